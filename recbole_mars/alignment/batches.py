"""Stretches of the log as padded batches of little padding.

Dimension letters: S stretches, B batch, L length.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_mars.data import InteractionLog, windows

__all__ = ["Sequences", "Stretches", "batches_by_length", "read_sequences"]


class Sequences(NamedTuple):
    """A batch of behaviour sequences on a device, padded on the right."""

    items: Tensor  # (B, L) int64, 0 = padding
    mask: Tensor  # (B, L) bool, True = real
    labels: Tensor  # (B, L) float32, 0 = padding
    hidden: Tensor | None = None  # (B, L) bool, sampled negatives; None: none


def read_sequences(log: InteractionLog, rows: np.ndarray, device: torch.device) -> Sequences:
    """The behaviours at some rows of the log. rows: (B, L) int64, -1 = padding."""
    real = rows >= 0
    items = np.where(real, log.items[rows], 0)
    labels = np.where(real, log.labels[rows], np.float32(0))
    items_, mask, labels_ = (torch.from_numpy(each).to(device) for each in (items, real, labels))
    if log.drawn is None:
        return Sequences(items_, mask, labels_)
    return Sequences(items_, mask, labels_, torch.from_numpy(real & log.drawn[rows]).to(device))


class Stretches(NamedTuple):
    """Stretches of the log that cover the rows that count; see data.windows."""

    starts: np.ndarray  # (S,) int64
    lengths: np.ndarray  # (S,) int64
    firsts: np.ndarray  # (S,) int64, the first row that counts
    counted: np.ndarray  # (N,) bool, the rows of the log that count in one stretch or another

    @classmethod
    def cover(
        cls, log: InteractionLog, counted: np.ndarray, length: int, context: int
    ) -> Stretches:
        starts, ends, firsts = windows(log.offsets, counted, length, context)
        return cls(starts, ends - starts, firsts, counted)

    def rows(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a batch of stretches, (B, L), -1 = padding, and which count, (B, L) bool."""
        steps = np.arange(self.lengths[batch].max())
        rows = self.starts[batch, None] + steps
        real = steps < self.lengths[batch, None]
        rows = np.where(real, rows, -1)
        return rows, (rows >= self.firsts[batch, None]) & self.counted[rows]

    def one_per_target(self, batch: np.ndarray) -> Stretches:
        """The targets of a batch of stretches, each at the end of a stretch of its own.

        One sample an interaction, as MARS is printed: with causal attention the same loss and
        gradients as of the stretches themselves, and many times their cost. Used by the test
        and the benchmark that say so. A target keeps the history that it has in its stretch.
        """
        rows, counted = self.rows(batch)
        targets = rows[counted]
        starts = np.repeat(self.starts[batch], counted.sum(1))
        return Stretches(starts, targets + 1 - starts, targets, self.counted)


def batches_by_length(
    lengths: np.ndarray, size: int, generator: np.random.Generator | None = None
) -> list[np.ndarray]:
    """Split stretches into batches of like length, so that little is padding.

    lengths: (S,). size: stretches in a batch at most. With a generator the lengths are blurred
    by up to a quarter before sorting and the batches shuffled, so that every epoch mixes anew.
    Returns arrays of stretch numbers, each stretch in exactly one.
    """
    blurred = lengths if generator is None else lengths * generator.uniform(1, 1.25, len(lengths))
    order = np.argsort(blurred, kind="stable")
    batches = [order[begin : begin + size] for begin in range(0, len(order), size)]
    if generator is not None:
        return [batches[i] for i in generator.permutation(len(batches))]
    return batches
