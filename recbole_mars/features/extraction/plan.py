"""Which inputs are encoded together, and what is left to do: the same for all who take part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["SHARD_ITEMS", "Plan"]

SHARD_ITEMS = 1024  # inputs a shard at most, about: what one process takes on at a time
SHARDS = 64  # at least, where there are batches enough: jobs and workers then have equal shares


@dataclass(frozen=True)
class Plan:
    """Inputs in the order of encoding, longest first, so that like lies with like.

    inputs: n texts or files. digests: (n, 32) uint8, their SHA-256, no two equal. batch_size:
    inputs in a batch. Batches never depend on who encodes them or on what is done already: so
    that any number of interrupted, resumed or parallel runs come to the same bytes as one.
    """

    inputs: Sequence[Any]
    digests: np.ndarray
    batch_size: int

    @classmethod
    def of(
        cls, inputs: Sequence[Any], digests: np.ndarray, lengths: np.ndarray, batch_size: int
    ) -> Plan:
        """Order inputs by falling length; the most memory is then needed at the start."""
        order = np.argsort(-lengths.astype(np.int64), kind="stable")
        return cls([inputs[k] for k in order], digests[order], batch_size)

    @cached_property
    def name(self) -> str:
        """Tells plans apart: other inputs, or another order or batch size, have another name."""
        digest = hashlib.sha256(f"{self.batch_size} {self._shard_size} ".encode())
        digest.update(np.ascontiguousarray(self.digests).tobytes())
        return digest.hexdigest()[:16]

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-len(self.inputs) // self._shard_size)

    @property
    def _shard_size(self) -> int:
        items = min(SHARD_ITEMS, len(self.inputs) // SHARDS)
        return max(1, items // self.batch_size) * self.batch_size

    def batches(self, shard: int) -> list[slice]:
        """The batches of a shard, as stretches of the inputs."""
        return list(self._batches(shard))

    def _batches(self, shard: int) -> Iterator[slice]:
        end = min(len(self.inputs), (shard + 1) * self._shard_size)
        for start in range(shard * self._shard_size, end, self.batch_size):
            yield slice(start, min(end, start + self.batch_size))
