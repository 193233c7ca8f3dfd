"""Which of the donors' behaviours to borrow: the four strategies of MARS, section 4.4.

Every strategy takes
    candidates: what the donors offer, nearest donor first (see Candidate);
    room: how many behaviours there is room for;
    theta: the similarity from which on a behaviour is relevant;
and returns the borrowed rows of the log, (n,) with n <= room, in the order in which they stand
before the user's own history. When there are too many, those that stand first go first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recbole_mars.retrieval import Candidate

__all__ = ["STRATEGIES", "dynamic_programming", "filtered", "most_similar", "top_k"]


def most_similar(candidates: Sequence[Candidate], room: int, theta: float) -> np.ndarray:
    """Copy the sequence of the nearest donor; theta is not used."""
    return _last(candidates[0].rows, room) if candidates else _NO_ROWS


def filtered(candidates: Sequence[Candidate], room: int, theta: float) -> np.ndarray:
    """Keep those items of the nearest donor with s_i >= theta (eq. 17)."""
    if not candidates:
        return _NO_ROWS
    rows, _, similarities = candidates[0]
    return _last(rows[similarities >= theta], room)


def top_k(candidates: Sequence[Candidate], room: int, theta: float) -> np.ndarray:
    """Merge the items of all donors with s_i >= theta by similarity, each item once.

    The most similar stand last, next to the user's own history; of an item's behaviours the most
    similar stays. Equal similarities: the nearer donor counts more, then the older behaviour.
    """
    if not candidates:
        return _NO_ROWS
    rows, items, similarities = (np.concatenate(parts) for parts in zip(*candidates))
    relevant = np.flatnonzero(similarities >= theta)
    best_first = relevant[np.argsort(-similarities[relevant], kind="stable")]
    _, once = np.unique(items[best_first], return_index=True)
    chosen = best_first[np.sort(once)]
    return _last(rows[chosen[::-1]], room)


def dynamic_programming(candidates: Sequence[Candidate], room: int, theta: float) -> np.ndarray:
    """Take the contiguous stretch of one donor's sequence with the greatest sum of s_i - theta.

    The paper names dynamic programming only; this is the maximum subarray, found by Kadane's
    recurrence best_i = max(best_(i-1), 0) + s_i - theta. A stretch may hold items below theta
    where those around make up for it. Nothing is taken if no sum is positive; of equal sums the
    nearer donor's, then the earlier and longer stretch.
    """
    greatest, stretch = 0.0, _NO_ROWS
    for rows, _, similarities in candidates:
        sums = np.concatenate(([0.0], np.cumsum(similarities - theta, dtype=np.float64)))
        # max(best_(i-1), 0) starts anew wherever the sum up to here is the least so far.
        best = sums - np.minimum.accumulate(sums)
        end = int(best.argmax())
        if best[end] > greatest:
            greatest = best[end]
            stretch = rows[sums[:end].argmin() : end]
    return _last(stretch, room)


STRATEGIES = {
    "most_similar": most_similar,
    "filtered": filtered,
    "top_k": top_k,
    "dynamic_programming": dynamic_programming,
}

_NO_ROWS = np.zeros(0, dtype=np.int64)


def _last(rows: np.ndarray, room: int) -> np.ndarray:
    return rows[max(0, len(rows) - room) :]
