"""Low-, mid- and high-active users."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["GROUP_NAMES", "HIGH", "LOW", "MID", "activity_groups"]

LOW, MID, HIGH = 0, 1, 2
GROUP_NAMES = ("low", "mid", "high")


def activity_groups(
    training_counts: Any, users: Any = None, low_share: float = 0.3, high_share: float = 0.3
) -> np.ndarray:
    """Group of users by how many training behaviours they have (MARS, section 4.1.3).

    The n users that take part are ranked by count, ties by id (the smaller id is the less active);
    the first floor(low_share * n) are LOW, the last floor(high_share * n) HIGH, the others MID.
    A user without training behaviours ranks first.

    training_counts: (n_users,) behaviours of every internal user id, the padding id 0 included.
    users: (n,) distinct ids that take part; None means all but the padding.
    Returns int8 groups: (n,) in the order of `users`; for None (n_users,), indexed by user id,
    with -1 for the padding.
    Raises ValueError for shares below 0 or adding to more than 1, negative counts, and users that
    repeat or are not in 1..n_users-1.
    """
    counts = np.asarray(training_counts)
    if counts.ndim != 1 or not len(counts) or counts.min() < 0:
        raise ValueError("training_counts must be a vector of counts >= 0 with one for the padding")
    # Shares are decimal fractions: 0.29 * 100 and 0.7 + 0.3 must not fail by a rounding error.
    slack = 1e-9
    if not (low_share >= 0 and high_share >= 0 and low_share + high_share <= 1 + slack):
        raise ValueError(
            "low_share and high_share must be >= 0 and add to at most 1, "
            f"got {low_share} and {high_share}"
        )
    if users is None:
        everyone = np.arange(1, len(counts))
        groups = activity_groups(counts, everyone, low_share, high_share)
        return np.append(np.int8(-1), groups)

    ids = np.asarray(users, dtype=np.int64)
    if len(ids) and (ids.min() < 1 or ids.max() >= len(counts)):
        raise ValueError(
            f"users must lie in 1..{len(counts) - 1}, got {ids.min()}..{ids.max()}; 0 is padding"
        )
    if len(np.unique(ids)) < len(ids):
        raise ValueError("users must be distinct; index the groups by id to repeat them")
    order = np.lexsort((ids, counts[ids]))
    groups = np.full(len(ids), MID, dtype=np.int8)
    groups[order[: math.floor(low_share * len(ids) + slack)]] = LOW
    groups[order[len(ids) - math.floor(high_share * len(ids) + slack) :]] = HIGH
    return groups
