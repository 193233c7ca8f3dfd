"""How an extraction runs: nothing here changes what comes out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Execution"]


@dataclass(frozen=True)
class Execution:
    """How an extraction runs; nothing here moves a vector beyond rounding.

    batch_size: inputs the model reads at a time. workers: threads that decode pictures or tokenize
    texts; None: one a core, 16 at most. shard: (i, n) with 1 <= i <= n: do the i-th of n parts of
    the work, over a folder that all n jobs share; the job that finds all parts done writes the
    store. ray_address: of a Ray cluster to spread the work over, "auto" for the one that is
    running, "local" for one of this machine. ray_workers: model copies there; None: one a GPU, or
    one a node without GPUs.

    Raises ValueError for a value out of range, or for shard together with ray_address.
    """

    batch_size: int = 32
    workers: int | None = None
    shard: tuple[int, int] | None = None
    ray_address: str | None = None
    ray_workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "ray_workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if self.shard is not None:
            i, n = self.shard
            if not 1 <= i <= n:
                raise ValueError(f"shard must be i/n with 1 <= i <= n, got {i}/{n}")
            if self.ray_address is not None:
                raise ValueError("shard and ray_address exclude each other; give one of them")
