"""The columns of agreement, and their scale: what a network is told has mean 0 and variance 1.

Dimension letters: N rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["AGREEMENT_COLUMNS", "ColumnScale"]

AGREEMENT_COLUMNS = ("item", "item_support", "user", "user_uncertainty", "history")
_CONSTANT = 1e-6  # a spread of which nothing but rounding is left


class ColumnScale(NamedTuple):
    """Mean and standard deviation of each column over the training rows, (5,) float64 each.

    The spread of a column that is constant there is 1: such a column is only centred.
    """

    means: np.ndarray
    spreads: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray, training: np.ndarray) -> ColumnScale:
        """columns: (N, 5). training: (N,) bool."""
        spreads = columns[training].std(0, dtype=np.float64)
        means = columns[training].mean(0, dtype=np.float64)
        return cls(means, np.where(spreads > _CONSTANT, spreads, 1.0))

    def apply(self, columns: np.ndarray) -> np.ndarray:
        """Columns of any rows, (N, 5), in this scale; float32."""
        return ((columns - self.means) / self.spreads).astype(np.float32)
