"""Negatives for data of clicks only, drawn once: the same rows for every model, seed and epoch."""

from __future__ import annotations

import numpy as np

__all__ = ["NEGATIVES_BY", "draw_negatives"]

NEGATIVES_BY = ("uniform", "popularity", "moment")
_SEED = 0
_MOMENT = 0.005  # of all interactions, to either side
_ROUNDS = 1000


def draw_negatives(
    users: np.ndarray,
    items: np.ndarray,
    count: int,
    by: str = "uniform",
    times: np.ndarray | None = None,
) -> np.ndarray:
    """Items that a user never met, `count` for each interaction.

    users, items: (N,) int64, the interactions. by: "uniform" draws each item that occurs in them
    alike, "popularity" as often as it occurs, "moment" as often as it occurs in the hundredth of
    all interactions around the same time. times: (N,), for "moment". Returns (N, count) int64;
    equal for equal input. An item may be drawn for several interactions of a user.

    Raises ValueError if count < 1, `by` is unknown, times are missing, or a user met every item.
    """
    if count < 1:
        raise ValueError(f"count must be >= 1, got {count}")
    if by not in NEGATIVES_BY:
        raise ValueError(f"by must be one of {NEGATIVES_BY}, got {by!r}")
    if by == "moment" and times is None:
        raise ValueError("by 'moment' needs times, got None")
    catalogue = np.unique(items)
    width = int(items.max(initial=0)) + 1
    met = np.unique(users * width + items)
    everything = np.flatnonzero(np.bincount(met // width) == len(catalogue))
    if len(everything):
        raise ValueError(
            f"{len(everything)} users met every one of the {len(catalogue)} items, so that there "
            f"is no negative to draw for them (the first: id {everything[0]})"
        )
    pool = catalogue if by == "uniform" else items
    firsts, span = np.zeros(len(users) * count, dtype=np.int64), len(pool)
    if times is not None and by == "moment":
        order = np.argsort(times, kind="stable")
        pool, half = items[order], max(1, round(_MOMENT * len(items)))
        span = min(2 * half + 1, len(items))
        places = np.empty(len(items), dtype=np.int64)
        places[order] = (np.arange(len(items)) - half).clip(0, len(items) - span)
        firsts = np.repeat(places, count)
    rng = np.random.default_rng(_SEED)
    owners = np.repeat(users, count)
    drawn = np.zeros(len(owners), dtype=np.int64)
    missing = np.arange(len(owners))
    for _ in range(_ROUNDS):
        drawn[missing] = pool[firsts[missing] + rng.integers(0, span, len(missing))]
        keys = owners[missing] * width + drawn[missing]
        places = np.searchsorted(met, keys).clip(max=len(met) - 1)
        missing = missing[met[places] == keys]
        if not len(missing):
            break
    for place in missing:  # of users who met nearly all that is popular, or of that moment
        others = np.setdiff1d(catalogue, items[users == owners[place]])
        drawn[place] = rng.choice(others)
    return drawn.reshape(len(users), count)
