"""Operators that change a history: crop, mask, reorder, substitute and insert.

CL4SRec (Xie et al., ICDE 2022, section 3.2) crops, masks and reorders; CoSeRec (Liu et al., 2021,
section 4.2) substitutes and inserts. They are given histories as rows of the interaction log; what
CoSeRec puts in is a behaviour with the most correlated item, see SimilarRows.

Dimension letters: B targets, L longest history in the batch, n length of a history.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbole_mars.augmentation.base import keep_latest
from recbole_mars.augmentation.correlated import SimilarRows
from recbole_mars.augmentation.draws import substream, uniforms
from recbole_mars.data import pad_ragged

__all__ = ["Crop", "Insert", "Mask", "OneOf", "Operator", "Reorder", "Substitute", "check_share"]


def check_share(name: str, share: float) -> None:
    """Raise ValueError unless a share lies in [0, 1]."""
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must lie in 0..1, got {share}; 0 changes nothing")


class Operator(ABC):
    """A random change of histories."""

    @abstractmethod
    def apply(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        seed: int,
        epoch: int,
        stream: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Change the latest max_length behaviours of each history; the arguments stay as they are.

        rows: (B,), the targets. histories: (B, L), oldest first, padded on the right with -1; -1
        within a length is a masked behaviour. lengths: (B,). seed, epoch, stream: what is drawn for
        a target depends on these, on its row and on its history only, see draws.

        Returns histories and lengths of the same form, no longer than max_length and trimmed to the
        longest. An empty history stays empty.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Name of what it does to histories."""


class _OneChange(Operator):
    """An operator by how it changes histories that fit, given its random numbers."""

    def apply(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        seed: int,
        epoch: int,
        stream: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        histories, lengths = keep_latest(histories, lengths, max_length)
        draws = uniforms(seed, epoch, rows, stream, self._n_draws(histories.shape[1]))
        return keep_latest(*self._change(rows, histories, lengths, draws), max_length)

    @abstractmethod
    def _n_draws(self, width: int) -> int:
        """How many numbers a history of at most width behaviours needs."""

    @abstractmethod
    def _change(
        self, rows: np.ndarray, histories: np.ndarray, lengths: np.ndarray, draws: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As apply, of histories that fit. draws: (B, _n_draws(L)) in [0, 1)."""

    def fingerprint(self) -> str:
        return repr(self)  # that of a dataclass of numbers says all


@dataclass(frozen=True)
class Crop(_OneChange):
    """Keep a stretch of max(1, floor(share * n)) behaviours, from anywhere (CL4SRec's eta).

    The paper keeps floor(eta * n), which leaves a single behaviour nothing; one stays here, as in
    CoSeRec's code. share 1 changes nothing. Raises ValueError if share is not in (0, 1].
    """

    share: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {self.share}; 1 keeps everything")

    def _n_draws(self, width: int) -> int:
        return 1

    def _change(
        self, rows: np.ndarray, histories: np.ndarray, lengths: np.ndarray, draws: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        kept = np.minimum(np.maximum(_floor(self.share, lengths), 1), lengths)
        first = (draws[:, 0] * (lengths - kept + 1)).astype(np.int64)
        starts = np.arange(len(histories)) * histories.shape[1] + first
        return pad_ragged(histories.reshape(-1), starts, kept), kept


@dataclass(frozen=True)
class Mask(_OneChange):
    """Mask floor(share * n) behaviours, anywhere (CL4SRec's gamma).

    A masked behaviour is -1: it reads as item 0 with all fields 0, where the paper has a special
    item and CoSeRec's code has item 0. Raises ValueError if share is not in [0, 1].
    """

    share: float = 0.3

    def __post_init__(self) -> None:
        check_share("share", self.share)

    def _n_draws(self, width: int) -> int:
        return width

    def _change(
        self, rows: np.ndarray, histories: np.ndarray, lengths: np.ndarray, draws: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        masked = _some(draws, lengths, _floor(self.share, lengths))
        return np.where(masked, -1, histories), lengths


@dataclass(frozen=True)
class Reorder(_OneChange):
    """Shuffle a stretch of floor(share * n) behaviours, from anywhere (CL4SRec's beta).

    Raises ValueError if share is not in [0, 1].
    """

    share: float = 0.6

    def __post_init__(self) -> None:
        check_share("share", self.share)

    def _n_draws(self, width: int) -> int:
        return 1 + width

    def _change(
        self, rows: np.ndarray, histories: np.ndarray, lengths: np.ndarray, draws: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        width = histories.shape[1]
        count = _floor(self.share, lengths)
        first = (draws[:, 0] * (lengths - count + 1)).astype(np.int64)
        position = np.broadcast_to(np.arange(width), histories.shape)
        inside = (position >= first[:, None]) & (position < (first + count)[:, None])
        # A behaviour of the stretch is sorted to a random place within it, all others to their own.
        wanted = np.where(inside, first[:, None] + draws[:, 1:] * count[:, None], position)
        return np.take_along_axis(histories, np.argsort(wanted, axis=1, kind="stable"), 1), lengths


@dataclass(frozen=True)
class _BySimilarity(_OneChange):
    """An operator that brings in similar behaviours for a share of a history's."""

    similar: SimilarRows
    share: float

    def __post_init__(self) -> None:
        check_share("share", self.share)

    def _n_draws(self, width: int) -> int:
        return 2 * width

    def fingerprint(self) -> str:
        return f"{type(self).__name__}({self.share}, {self.similar.fingerprint()})"


@dataclass(frozen=True)
class Substitute(_BySimilarity):
    """Replace floor(share * n) behaviours, anywhere, by similar ones (CoSeRec).

    One at least, as in CoSeRec's code, unless share is 0. All fields are those of the row put in,
    its label too. A behaviour without a similar one stays. Raises ValueError if share is not in
    [0, 1].
    """

    share: float = 0.1

    def _change(
        self, rows: np.ndarray, histories: np.ndarray, lengths: np.ndarray, draws: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        found = _similar(self, rows, histories, lengths, draws)
        return np.where(found >= 0, found, histories), lengths


@dataclass(frozen=True)
class Insert(_BySimilarity):
    """Put a similar behaviour before each of floor(share * n), anywhere (CoSeRec).

    One at least, as in CoSeRec's code, unless share is 0; what then exceeds max_length goes at the
    oldest end. Otherwise as Substitute.
    """

    share: float = 0.4

    def _change(
        self, rows: np.ndarray, histories: np.ndarray, lengths: np.ndarray, draws: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        found = _similar(self, rows, histories, lengths, draws)
        inserted = found >= 0
        total = lengths + inserted.sum(1)
        longer = np.full((len(total), int(total.max(initial=0))), -1, dtype=np.int64)
        place = np.arange(histories.shape[1]) + np.cumsum(inserted, axis=1)
        real = np.arange(histories.shape[1]) < lengths[:, None]
        row = np.broadcast_to(np.arange(len(total))[:, None], place.shape)
        longer[row[real], place[real]] = histories[real]
        longer[row[inserted], place[inserted] - 1] = found[inserted]
        return longer, total


class OneOf(Operator):
    """One of several operators for each target, drawn uniformly.

    Raises ValueError if there is none.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        if not operators:
            raise ValueError("operators must hold at least one, got none")
        self.operators = tuple(operators)

    def apply(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        seed: int,
        epoch: int,
        stream: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.choices(rows, lengths, seed, epoch, stream)
        changed = np.full((len(rows), max_length), -1, dtype=np.int64)
        changed_lengths = np.zeros(len(rows), dtype=np.int64)
        for number, operator in enumerate(self.operators):
            mine = np.flatnonzero(chosen == number)
            part, part_lengths = operator.apply(
                rows[mine],
                histories[mine],
                lengths[mine],
                max_length,
                seed,
                epoch,
                substream(stream, number),
            )
            changed[mine, : part.shape[1]] = part
            changed_lengths[mine] = part_lengths
        return changed[:, : int(changed_lengths.max(initial=0))], changed_lengths

    def choices(
        self, rows: np.ndarray, lengths: np.ndarray, seed: int, epoch: int, stream: int
    ) -> np.ndarray:
        """Which of the operators each target has in apply with the same arguments, (B,)."""
        draw = uniforms(seed, epoch, rows, stream, 1)[:, 0]
        return (draw * len(self.operators)).astype(np.int64)

    def fingerprint(self) -> str:
        names = " ".join(operator.fingerprint() for operator in self.operators)
        return hashlib.sha256(names.encode()).hexdigest()


def _floor(share: float, lengths: np.ndarray) -> np.ndarray:
    """floor(share * n); a share is a decimal fraction, 0.29 * 100 is meant to be 29."""
    return np.floor(share * lengths + 1e-9).astype(np.int64)


def _some(draws: np.ndarray, lengths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mark counts (B,) of the first lengths (B,) places, all equally likely. draws: (B, L)."""
    real = np.arange(draws.shape[1]) < lengths[:, None]
    order = np.argsort(np.where(real, draws, 2.0), axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable") < counts[:, None]


def _similar(
    operator: _BySimilarity,
    rows: np.ndarray,
    histories: np.ndarray,
    lengths: np.ndarray,
    draws: np.ndarray,
) -> np.ndarray:
    """A similar behaviour for each of those that an operator draws, (B, L); -1 for all others."""
    counts = _floor(operator.share, lengths)
    if operator.share > 0:
        counts = np.minimum(np.maximum(counts, 1), lengths)
    # In pairs, so that a behaviour's draws do not depend on how wide the batch is.
    draws = draws.reshape(*histories.shape, 2)
    place, position = np.nonzero(_some(draws[..., 0], lengths, counts))
    found = np.full(histories.shape, -1, dtype=np.int64)
    found[place, position] = operator.similar.pick(
        histories[place, position], rows[place], draws[place, position, 1]
    )
    return found
