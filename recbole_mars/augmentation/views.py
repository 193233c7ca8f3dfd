"""Two augmented views of each training history, for objectives beside the cross-entropy.

CL4SRec (Xie et al., ICDE 2022), CoSeRec (Liu et al., arXiv 2108.06479) and BASRec (Dang et al.,
AAAI 2025). The histories that a model predicts from stay as they are.

Dimension letters: B targets, L longest history in the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recbole_mars.augmentation.base import Augmenter, keep_latest
from recbole_mars.augmentation.correlated import SimilarRows
from recbole_mars.augmentation.operators import (
    Crop,
    Insert,
    Mask,
    OneOf,
    Operator,
    Reorder,
    Substitute,
)

__all__ = ["ByLength", "View", "ViewAugmenter", "basrec", "cl4srec", "coserec"]

_STREAMS = (1, 2)  # of the two views


class View(NamedTuple):
    """histories: (B, L) rows of the log, padded on the right with -1. lengths: (B,). rates: (B,)
    the share of its behaviours that each history's operator was to change; 0 where it has no one
    share."""

    histories: np.ndarray
    lengths: np.ndarray
    rates: np.ndarray


class ViewAugmenter(Augmenter):
    """Leaves histories as they are, and gives two views of each in training.

    operator: one of several for each view, drawn anew in each epoch. rates: of each of the
    operators, or None. start: the first epoch with views. Raises ValueError if start < 0.
    """

    def __init__(
        self, operator: OneOf, seed: int, rates: Sequence[float] | None = None, start: int = 0
    ) -> None:
        if start < 0:
            raise ValueError(f"start must be >= 0, got {start}; 0 gives views from the beginning")
        self.operator, self.seed, self.start = operator, seed, start
        self._rates = np.asarray(rates if rates else [0.0] * len(operator.operators))

    def augment(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        phase: str,
        epoch: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        return keep_latest(histories, lengths, max_length)

    def views(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        epoch: int,
    ) -> tuple[View, View] | None:
        """Two views of each target's history; None in the epochs before the first with views.

        Arguments and what holds for a view's rows: see Operator.apply. To be called in training
        only. The same arguments give the same views.
        """
        if epoch < self.start:
            return None

        def view(stream: int) -> View:
            place = (self.seed, epoch, stream)
            changed = self.operator.apply(rows, histories, lengths, max_length, *place)
            chosen = self.operator.choices(rows, lengths, *place)
            return View(*changed, self._rates[chosen])

        return view(_STREAMS[0]), view(_STREAMS[1])

    def fingerprint(self) -> str:
        return f"views {self.seed} {self.start} {self._rates} {self.operator.fingerprint()}"


class ByLength(OneOf):
    """One operator for histories of at most short_length behaviours, another for longer ones.

    Raises ValueError if short_length < 0.
    """

    def __init__(self, short: Operator, long: Operator, short_length: int) -> None:
        if short_length < 0:
            raise ValueError(f"short_length must be >= 0, got {short_length}")
        super().__init__([short, long])
        self.short_length = short_length

    def choices(
        self, rows: np.ndarray, lengths: np.ndarray, seed: int, epoch: int, stream: int
    ) -> np.ndarray:
        return (lengths > self.short_length).astype(np.int64)

    def fingerprint(self) -> str:
        words = f"up to {self.short_length} {super().fingerprint()}"
        return hashlib.sha256(words.encode()).hexdigest()


def cl4srec(crop: Crop, mask: Mask, reorder: Reorder, seed: int) -> ViewAugmenter:
    """CL4SRec's views: each by one of the three operators, drawn uniformly (section 3.3)."""
    return ViewAugmenter(OneOf([crop, mask, reorder]), seed)


def coserec(
    crop: Crop,
    mask: Mask,
    reorder: Reorder,
    substitute: Substitute,
    insert: Insert,
    short_length: int,
    seed: int,
) -> ViewAugmenter:
    """CoSeRec's views: of short histories by substitution, insertion or mask, which leave most of
    what they hold; of others by one of all five operators (section 4.2.3)."""
    short = OneOf([substitute, insert, mask])
    long = OneOf([crop, mask, reorder, substitute, insert])
    return ViewAugmenter(ByLength(short, long, short_length), seed)


def basrec(
    similar: SimilarRows, rates: Sequence[float], seed: int, start: int = 0
) -> ViewAugmenter:
    """BASRec's views: a stretch reordered or behaviours substituted, at a rate drawn from rates.

    Both keep the history's length: a view is mixed with it, position by position. start: the
    paper's two stages, the first of which trains without augmentation. The paper draws rates from
    a uniform distribution, here they are some of its values.

    Raises ValueError if rates is empty or one is not in 0..1.
    """
    if not rates:
        raise ValueError("rates must hold at least one, got none")
    operators: list[Operator] = []
    for rate in rates:
        operators += [Reorder(rate), Substitute(similar, rate)]
    return ViewAugmenter(OneOf(operators), seed, np.repeat(rates, 2).tolist(), start)
