"""Behaviours added before a history without looking at what they are: Random, Random-seq, RepPad.

Dimension letters: B targets, L longest history in the batch, n length of a history.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from recbole_mars.augmentation.base import Augmenter, keep_latest, prepend_to_room
from recbole_mars.augmentation.draws import substream, uniforms
from recbole_mars.augmentation.item_rows import ItemRows

__all__ = [
    "RandomAugmenter",
    "RandomSeqAugmenter",
    "RandomSettings",
    "RepPadAugmenter",
    "RepPadSettings",
]

_RANDOM, _RANDOM_SEQ, _REPPAD = (substream(0, number) for number in range(3))


@dataclass(frozen=True)
class RandomSettings:
    """items: how many are added to a history, as far as there is room. Raises ValueError if < 0."""

    items: int = 10

    def __post_init__(self) -> None:
        _check_count("items", self.items)


class RandomAugmenter(Augmenter):
    """Random: items of the whole item set before each history, in every phase.

    The baseline of DiffuASR (Liu et al., CIKM 2023), after its code: 10 items a user, drawn
    uniformly and with replacement, once for all epochs and phases. Drawn here among the items with
    training behaviours, one of which stands for the item (see ItemRows).
    """

    borrows = True

    def __init__(self, pool: ItemRows, settings: RandomSettings, seed: int) -> None:
        self.pool, self.settings, self.seed = pool, settings, seed

    def augment(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        phase: str,
        epoch: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        n = min(self.settings.items, max_length)  # no more can have room
        draws = uniforms(self.seed, 0, self.pool.log.users[rows], _RANDOM, 2 * n)
        items = self.pool.draw_items(rows, draws[:, ::2])
        added = self.pool.pick(items.ravel(), np.repeat(rows, n), draws[:, 1::2].ravel())
        added = added.reshape(len(rows), n)
        missing = added < 0
        first = np.argsort(missing, axis=1, kind="stable")
        added = np.take_along_axis(added, first, axis=1)
        return prepend_to_room(added, n - missing.sum(1), histories, lengths, max_length)

    def fingerprint(self) -> str:
        return _hash("random", self.settings, self.seed, self.pool.fingerprint())


class RandomSeqAugmenter(Augmenter):
    """Random-seq: behaviours of the own history, repeated before it, in every phase.

    The other baseline of DiffuASR, drawn as RandomAugmenter is. There the items are drawn from all
    that a user did before the test; here, so that no target sees what is later, from the behaviours
    before the target. users: (N,) of every row of the log.
    """

    def __init__(self, users: np.ndarray, settings: RandomSettings, seed: int) -> None:
        self.users, self.settings, self.seed = users, settings, seed

    def augment(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        phase: str,
        epoch: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        histories, lengths = keep_latest(histories, lengths, max_length)
        n = min(self.settings.items, max_length) if histories.shape[1] else 0
        draws = uniforms(self.seed, 0, self.users[rows], _RANDOM_SEQ, n)
        added = np.take_along_axis(histories, (draws * lengths[:, None]).astype(np.int64), axis=1)
        return prepend_to_room(added, np.where(lengths, n, 0), histories, lengths, max_length)

    def fingerprint(self) -> str:
        return _hash("random_seq", self.settings, self.seed)


@dataclass(frozen=True)
class RepPadSettings:
    """repeats: how often the history is repeated, None: drawn from 1 to floor(max_length / n).

    delimiter: a masked behaviour stands between the repetitions. Raises ValueError if repeats < 0.
    """

    repeats: int | None = None
    delimiter: bool = True

    def __post_init__(self) -> None:
        if self.repeats is not None:
            _check_count("repeats", self.repeats)


class RepPadAugmenter(Augmenter):
    """RepPad: the padding holds the history again and again, in training.

    Dang et al., RecSys 2024, after its code: the number of repetitions is drawn anew in each epoch;
    what exceeds max_length goes at the oldest end, so that the first repetition may be a part. The
    delimiter is the item 0 that keeps a next-item model from learning what follows the last item;
    the paper's runs are with it.
    """

    def __init__(self, settings: RepPadSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def augment(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        phase: str,
        epoch: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        histories, lengths = keep_latest(histories, lengths, max_length)
        if phase != "train" or not histories.shape[1]:
            return histories, lengths
        repeats = self.settings.repeats
        if repeats is None:
            draw = uniforms(self.seed, epoch, rows, _REPPAD, 1)[:, 0]
            repeats = 1 + (draw * (max_length // np.maximum(lengths, 1))).astype(np.int64)
        gap = int(self.settings.delimiter)
        period = lengths + gap
        total = np.where(lengths, np.minimum(lengths + repeats * period, max_length), 0)
        # Read backwards: a history, the delimiter, a history, ...
        position = np.arange(int(total.max()))
        back = (total[:, None] - 1 - position) % np.maximum(period, 1)[:, None]
        real = (position < total[:, None]) & (back < lengths[:, None])
        place = np.where(real, lengths[:, None] - 1 - back, 0)
        return np.where(real, np.take_along_axis(histories, place, axis=1), -1), total

    def fingerprint(self) -> str:
        return _hash("reppad", self.settings, self.seed)


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ValueError(f"{name} must be a whole number >= 0, got {count!r}; 0 adds nothing")


def _hash(*parts: object) -> str:
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()
