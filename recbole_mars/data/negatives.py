"""Negatives for data of clicks only, drawn once: the same rows for every model, seed and epoch."""

from __future__ import annotations

import numpy as np

__all__ = ["NEGATIVES_BY", "draw_negatives"]

NEGATIVES_BY = ("uniform", "popularity", "moment")
_SEED = 0
_NEXT = 50  # interactions that are of the same moment, for each negative
_PATIENCE = 10  # rounds until these are taken to be twice as many
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
    alike, "popularity" as often as it occurs, "moment" as often as it occurs in the next 50
    interactions (times count; of more if the user met all of these; of one time, in an order of
    chance). Next ones, as what was drawn for having been clicked just before would be known by
    that; and few, as of what comes later much is new. times: (N,), for "moment". Returns
    (N, count) int64; equal for equal input. An item may be drawn for several interactions of a
    user.

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
    rng = np.random.default_rng(_SEED)
    begins: np.ndarray | None = None
    if times is not None and by == "moment":
        order = np.lexsort((np.random.default_rng(_SEED).random(len(times)), times))
        pool, places = items[order], np.empty(len(items), dtype=np.int64)
        places[order] = np.arange(len(items))
        begins = np.repeat(places, count)
    owners = np.repeat(users, count)
    drawn = np.zeros(len(owners), dtype=np.int64)
    missing = np.arange(len(owners))
    for attempt in range(_ROUNDS):
        span, firsts = len(pool), np.int64(0)
        if begins is not None:
            span = min(_NEXT * count * 2 ** (attempt // _PATIENCE), len(pool))
            firsts = begins[missing].clip(max=len(pool) - span)
        drawn[missing] = pool[firsts + rng.integers(0, span, len(missing))]
        keys = owners[missing] * width + drawn[missing]
        places = np.searchsorted(met, keys).clip(max=len(met) - 1)
        missing = missing[met[places] == keys]
        if not len(missing):
            break
    for place in missing:  # of users who met nearly all that is popular, or of that moment
        others = np.setdiff1d(catalogue, items[users == owners[place]])
        drawn[place] = rng.choice(others)
    return drawn.reshape(len(users), count)
