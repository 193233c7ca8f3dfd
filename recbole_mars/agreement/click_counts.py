"""How often, and how lately, an item was clicked before a moment.

Dimension letters: E clicks of the training part, R questions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["ClickCounts"]

_SHARES = (0.1, 0.01)  # of all clicks: the latest ones


class ClickCounts(NamedTuple):
    """The training part's clicks in the order of time.

    times: (E,) float64, ascending. keys: (E,) int64, ascending: item * (E + 1) + place in times.
    """

    times: np.ndarray
    keys: np.ndarray

    @classmethod
    def of(cls, items: np.ndarray, times: np.ndarray) -> ClickCounts:
        """items, times: (E,), in any order."""
        order = np.argsort(times, kind="stable")
        places = np.arange(len(order))
        keys = np.sort(np.asarray(items, dtype=np.int64)[order] * (len(order) + 1) + places)
        return cls(np.asarray(times, dtype=np.float64)[order], keys)

    def before(self, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """What was clicked strictly before each moment, (R, 4) float64, all as log(1 + number).

        Clicks of the item: all, among the latest tenth, and among the latest hundredth of as many
        clicks as the training part has. Clicks of any item since the last one of this; E if there
        was none. Places in the order of clicks stand for time: no unit is needed, and what is
        asked long after the training part ends is told how things stood at its end.

        items, times: (R,); inf for a moment after all clicks.
        """
        total = len(self.times)
        now = np.searchsorted(self.times, times)
        base = np.asarray(items, dtype=np.int64) * (total + 1)
        end = np.searchsorted(self.keys, base + now)
        begins = [np.searchsorted(self.keys, base)]
        for share in _SHARES:
            since = np.maximum(now - max(1, round(share * total)), 0)
            begins.append(np.searchsorted(self.keys, base + since))
        gaps = np.full(len(base), total)
        (there,) = np.nonzero(end > begins[0])
        gaps[there] = now[there] - (self.keys[end[there] - 1] - base[there])
        return np.log1p(np.stack([*(end - begin for begin in begins), gaps], axis=1))
