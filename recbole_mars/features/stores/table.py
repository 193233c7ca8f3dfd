"""Feature vectors of items, read by item id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recbole_mars.features.catalogue.ids import check_ids, check_strings
from recbole_mars.features.stores.scaled_matrix import ScaledMatrix

__all__ = ["FeatureTable"]


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Feature vectors of n items, row by row.

    name: what the features are, for logs and errors.
    ids: n item ids, all different.
    matrix: (n, D) floats, perhaps memory-mapped, or int8 that is read as floats; zeros where an
        item has no features.
    present: (n,) bool, whether an item has features.

    Raises ValueError if the shapes do not fit, an id is no string or stands twice.
    """

    name: str
    ids: tuple[str, ...]
    matrix: np.ndarray | ScaledMatrix
    present: np.ndarray

    def __post_init__(self) -> None:
        check_ids(self.ids, f"the ids of {self.name!r}")
        n = len(self.ids)
        if self.matrix.ndim != 2 or len(self.matrix) != n or 0 in self.matrix.shape:
            raise ValueError(
                f"features {self.name!r} must have shape ({n}, D) with D >= 1, a row for each "
                f"of the {n} >= 1 ids, got {self.matrix.shape}"
            )
        if not np.issubdtype(self.matrix.dtype, np.floating):
            raise ValueError(f"features {self.name!r} must be floats, got {self.matrix.dtype}")
        if self.present.shape != (n,) or self.present.dtype != bool:
            raise ValueError(
                f"present of {self.name!r} must be bool of shape ({n},), "
                f"got {self.present.dtype} of shape {self.present.shape}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimensions(self) -> int:
        """D, the length of a vector."""
        return self.matrix.shape[1]

    def select(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The features of these items in this order, and whether they have any.

        Returns (len(ids), D) float32 and (len(ids),) bool; an id that the table does not know
        gets zeros and False, as an item without features does.
        """
        check_strings(ids, "ids")
        rows = np.array([self._row_of.get(item, -1) for item in ids], dtype=np.int64)
        known = rows >= 0
        matrix = np.zeros((len(rows), self.dimensions), dtype=np.float32)
        matrix[known] = self.matrix[rows[known]]
        present = np.zeros(len(rows), dtype=bool)
        present[known] = self.present[rows[known]]
        return matrix, present

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.ids)}
