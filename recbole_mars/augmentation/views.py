"""Two augmented views of each training history, for objectives beside the cross-entropy.

CL4SRec (Xie et al., ICDE 2022), CoSeRec (Liu et al., arXiv 2108.06479) and BASRec (Dang et al.,
AAAI 2025). The histories that a model predicts from stay as they are.

Dimension letters: B targets, L longest history in the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recbole_mars.augmentation.base import Augmenter, keep_latest
from recbole_mars.augmentation.correlated import SimilarRows
from recbole_mars.augmentation.draws import substream
from recbole_mars.augmentation.operators import (
    Insert,
    Mask,
    OneOf,
    Operator,
    Reorder,
    Substitute,
    check_share,
)
from recbole_mars.augmentation.perturbed import (
    CMRSettings,
    CMRSISettings,
    cmr_operator,
    cmrsi_operator,
)

__all__ = [
    "BASRecSettings",
    "ByLength",
    "CoSeRecSettings",
    "View",
    "ViewAugmenter",
    "basrec",
    "cl4srec",
    "coserec",
]

_STREAMS = (substream(0, 4), substream(0, 5))  # of the two views; 0 to 3 are other augmenters'


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
    operators, or None. start: the first epoch with views.
    """

    def __init__(
        self, operator: OneOf, seed: int, rates: Sequence[float] | None = None, start: int = 0
    ) -> None:
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
    """One operator for histories of at most short_length behaviours, another for longer ones."""

    def __init__(self, short: Operator, long: Operator, short_length: int) -> None:
        super().__init__([short, long])
        self.short_length = short_length

    def choices(
        self, rows: np.ndarray, lengths: np.ndarray, seed: int, epoch: int, stream: int
    ) -> np.ndarray:
        return (lengths > self.short_length).astype(np.int64)

    def fingerprint(self) -> str:
        words = f"up to {self.short_length} {super().fingerprint()}"
        return hashlib.sha256(words.encode()).hexdigest()


@dataclass(frozen=True)
class CoSeRecSettings(CMRSISettings):
    """With the longest history that is only substituted, inserted into and masked.

    Raises ValueError if short < 0.
    """

    short: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.short < 0:
            raise ValueError(f"short must be >= 0, got {self.short}; 0 takes all for long ones")


@dataclass(frozen=True)
class BASRecSettings:
    """rates: shares of a history that a view changes, drawn from these uniformly; the paper draws
    from all between two bounds, whose defaults in its code these cover. start: the first epoch with
    views; in the first of the paper's two stages a model trains without.

    Raises ValueError if there is no rate, one is not in 0..1, or start < 0.
    """

    rates: Sequence[float] = (0.2, 0.3, 0.4, 0.5)
    start: int = 1

    def __post_init__(self) -> None:
        if not self.rates:
            raise ValueError("rates must hold at least one, got none")
        for rate in self.rates:
            check_share("rates", rate)
        if self.start < 0:
            raise ValueError(f"start must be >= 0, got {self.start}; 0 is the first epoch")


def cl4srec(settings: CMRSettings, seed: int) -> ViewAugmenter:
    """CL4SRec's views: each by crop, mask or reorder, drawn uniformly."""
    return ViewAugmenter(cmr_operator(settings), seed)


def coserec(settings: CoSeRecSettings, similar: SimilarRows, seed: int) -> ViewAugmenter:
    """CoSeRec's views: of short histories by substitution, insertion or mask, since these leave
    most of what little they hold; of others by one of all five operators."""
    short = OneOf(
        [
            Substitute(similar, settings.substitute),
            Insert(similar, settings.insert),
            Mask(settings.mask),
        ]
    )
    operator = ByLength(short, cmrsi_operator(settings, similar), settings.short)
    return ViewAugmenter(operator, seed)


def basrec(settings: BASRecSettings, similar: SimilarRows, seed: int) -> ViewAugmenter:
    """BASRec's views: a stretch reordered or behaviours substituted, at a rate drawn for each.

    Both keep the history's length: a view is mixed with it, position by position.
    """
    operators: list[Operator] = []
    for rate in settings.rates:
        operators += [Reorder(rate), Substitute(similar, rate)]
    rates = np.repeat(np.asarray(settings.rates, dtype=np.float64), 2)
    return ViewAugmenter(OneOf(operators), seed, rates.tolist(), settings.start)
