"""How a network learns from a stream."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StreamSettings"]


@dataclass(frozen=True)
class StreamSettings:
    """Settings of streaming training, checked when made.

    batch_size: new events of a step. commit_batches: steps from one saved state to the next.
    publish_minutes: from one snapshot to the next, the paper's 20. keep: snapshots that are left.
    learning_rate: of AdamW, lower than offline's as each event is met once. weight_decay: of AdamW;
    at each step it also shrinks what the step's events do not touch, so items that are met seldom
    would fade. max_norm: to which gradients are cut. seed: of dropout.
    recent: latest events that loss and AUC are told of. max_loss_increase: by how much the log loss
    on recent events may exceed that of the published weights, or they stay; None does not compare,
    which saves one pass. accept_loss: go on with what is left where the queue has lost events.
    take_over: a new folder may start from weights that another training has published; what that
    one has learnt from the queue then only makes up histories.

    Raises ValueError for a number out of range.
    """

    batch_size: int = 256
    commit_batches: int = 20
    publish_minutes: float = 20.0
    keep: int = 3
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    max_norm: float = 1.0
    seed: int = 0
    recent: int = 10_000
    max_loss_increase: float | None = None
    accept_loss: bool = False
    take_over: bool = False

    def __post_init__(self) -> None:
        least = {"batch_size": 2, "commit_batches": 1, "keep": 1, "seed": 0, "recent": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be >= {low}, got {getattr(self, name)}")
        for name in ("publish_minutes", "learning_rate", "max_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be > 0 and finite, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be >= 0 and finite, got {self.weight_decay}")
        if self.max_loss_increase is not None and not self.max_loss_increase >= 0:
            raise ValueError(f"max_loss_increase must be >= 0, got {self.max_loss_increase}")
