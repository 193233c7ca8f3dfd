"""Negatives for data of clicks only, drawn once: the same rows for every model, seed and epoch."""

from __future__ import annotations

import numpy as np

__all__ = ["draw_negatives"]

_SEED = 0
_ROUNDS = 1000


def draw_negatives(
    users: np.ndarray, items: np.ndarray, count: int, by: str = "uniform"
) -> np.ndarray:
    """Items that a user never met, `count` for each interaction.

    users, items: (N,) int64, the interactions. by: "uniform" draws each item that occurs in them
    alike, "popularity" as often as it occurs. Returns (N, count) int64; equal for equal input. An
    item may be drawn for several interactions of a user.

    Raises ValueError if count < 1, `by` is unknown, or a user met every item.
    """
    if count < 1:
        raise ValueError(f"count must be >= 1, got {count}")
    if by not in ("uniform", "popularity"):
        raise ValueError(f"by must be 'uniform' or 'popularity', got {by!r}")
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
    owners = np.repeat(users, count)
    drawn = np.zeros(len(owners), dtype=np.int64)
    missing = np.arange(len(owners))
    for _ in range(_ROUNDS):
        drawn[missing] = rng.choice(pool, size=len(missing))
        keys = owners[missing] * width + drawn[missing]
        places = np.searchsorted(met, keys).clip(max=len(met) - 1)
        missing = missing[met[places] == keys]
        if not len(missing):
            break
    for place in missing:  # of users who met nearly all that is popular
        others = np.setdiff1d(catalogue, items[users == owners[place]])
        drawn[place] = rng.choice(others)
    return drawn.reshape(len(users), count)
