"""Training behaviours by item: a row of the log for an item that is put into a history.

A history is rows of the log, so an item alone is not enough: what stands for it is a behaviour that
somebody had with it in training, which brings its label, its time and every other field along.

Dimension letters: M questions, B targets, n draws of a target.
"""

from __future__ import annotations

import hashlib

import numpy as np

from recbole_mars.data import TRAIN, InteractionLog

__all__ = ["ItemRows"]


class ItemRows:
    """Rows that may stand for an item in the history of a target.

    rows: (R,) ascending training rows to choose from; None: all of them. donor_time: "any" lends
    them whenever they were, except the target itself and what its user did after it; "before" lends
    only those strictly earlier than the target, by anyone, which a split in time needs. Validation
    and test rows are never lent, and neither is a target to itself.

    The label that a lent row carries is what its own user thought of the item, never the target's.

    Raises ValueError for another donor_time, and for rows that are not ascending training rows.
    """

    def __init__(
        self, log: InteractionLog, rows: np.ndarray | None = None, donor_time: str = "any"
    ) -> None:
        if donor_time not in ("any", "before"):
            raise ValueError(f"donor_time must be any or before, got {donor_time!r}")
        rows = np.flatnonzero(log.phases == TRAIN) if rows is None else np.asarray(rows)
        if np.any(log.phases[rows] != TRAIN):
            raise ValueError("rows must be training behaviours, got validation or test; drop them")
        if np.any(np.diff(rows) <= 0):
            raise ValueError("rows must ascend; sort them")
        self.donor_time = donor_time
        self.log, self.rows = log, rows
        # Places on which an item's rows are sorted: their order in the log, or in time.
        if donor_time == "any":
            self._n_places, place = max(1, len(log)), rows
        else:
            times, self._time_ranks = np.unique(log.times, return_inverse=True)
            self._n_places, place = max(1, len(times)), self._time_ranks[rows]
        keys = log.items[rows] * self._n_places + place
        order = np.argsort(keys, kind="stable")
        self._keys, self._lent = keys[order], rows[order]
        bounds = np.arange(log.n_items + 1) * self._n_places
        self._starts = np.searchsorted(self._keys, bounds)  # of each item
        known = np.flatnonzero(np.diff(self._starts))
        first = self._keys[self._starts[known]] - known * self._n_places
        if donor_time == "any":
            first[:] = -1  # every item is there from the beginning
        by_first = np.argsort(first, kind="stable")
        self._known, self._first = known[by_first], first[by_first]

    def pick(self, items: np.ndarray, targets: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """A row of each item for the history of each target, every allowed one equally likely.

        items: (M,) ids; 0 has no rows. targets: (M,) rows. draws: (M,) in [0, 1).
        Returns (M,) int64 rows, -1 where no row is allowed.
        """
        # The item's sorted rows from barred to freed are closed to the target.
        starts, ends = self._starts[items], self._starts[items + 1]
        if self.donor_time == "any":
            barred = self._before(items, targets)
            freed = self._before(items, self.log.offsets[self.log.users[targets] + 1])
        else:
            barred, freed = self._before(items, self._time_ranks[targets]), ends
        free = ends - starts - (freed - barred)
        places = starts + (draws * free).astype(np.int64)
        places += np.where(places >= barred, freed - barred, 0)
        found = free > 0
        picked = np.full(len(places), -1, dtype=np.int64)
        picked[found] = self._lent[places[found]]
        return picked

    def _before(self, items: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Number of sorted rows before a place among those of an item."""
        return np.searchsorted(self._keys, items * self._n_places + places)

    def draw_items(self, targets: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Items drawn uniformly from all that have rows; with "before", rows before the target.

        targets: (B,) rows. draws: (B, n) in [0, 1). Returns (B, n) item ids, 0 if there are none.
        """
        if self.donor_time == "any":
            n_known = np.full(len(targets), len(self._known))
        else:
            n_known = np.searchsorted(self._first, self._time_ranks[targets])
        chosen = (draws * n_known[:, None]).astype(np.int64)
        if not len(self._known):
            return np.zeros_like(chosen)
        return np.where(n_known[:, None] > 0, self._known[chosen], 0)

    def fingerprint(self) -> str:
        """Hash of which rows are lent for which item, and when."""
        digest = hashlib.sha256(self.donor_time.encode())
        for part in (self._keys, self._lent):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()
