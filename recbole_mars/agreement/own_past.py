"""One user's past behaviours, prepared to be asked of any candidate.

Dimension letters: L behaviours of a user, W of them that are looked back at, M items met.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["OwnOpinions", "OwnPast"]


class OwnOpinions(NamedTuple):
    """A user's own share in the items' totals: item ids (M,), ascending, numbers and sums (M,)."""

    items: np.ndarray
    numbers: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, items: np.ndarray, values: np.ndarray) -> OwnOpinions:
        """items, values: (L,) of the user's opinions that are in the totals."""
        met, place = np.unique(items, return_inverse=True)
        return cls(met, np.bincount(place, minlength=len(met)), np.bincount(place, values))

    def at(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number and sum of the own opinions of each item, shaped like items; 0 where none is."""
        if not len(self.items):
            return np.zeros(items.shape), np.zeros(items.shape)
        place = np.minimum(np.searchsorted(self.items, items), len(self.items) - 1)
        there = self.items[place] == items
        return np.where(there, self.numbers[place], 0), np.where(there, self.sums[place], 0.0)


class OwnPast(NamedTuple):
    """A user's posterior, of which candidates can be asked; 8 W^2 bytes for the most part.

    own: see OwnOpinions. items: (W,), those that are looked back at. root, innovations: (W, W) and
    (W,), see `process.condition`.
    """

    fold: int
    n_behaviours: int
    own: OwnOpinions
    items: np.ndarray
    root: np.ndarray
    innovations: np.ndarray
