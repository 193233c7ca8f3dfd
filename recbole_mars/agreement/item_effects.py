"""What others think of an item on average: the opinions of all users who met it but the asker.

Dimension letters: N opinions, I items, D content features.
"""

from __future__ import annotations

import numpy as np

__all__ = ["content_means", "others_sums"]


def others_sums(
    users: np.ndarray,
    items: np.ndarray,
    given: np.ndarray,
    values: np.ndarray,
    n_items: int,
) -> tuple[np.ndarray, np.ndarray]:
    """For each row, the number and sum of the values that other users gave its item.

    users, items: (N,). given: (N,) bool, rows whose value counts. values: (N,).
    All rows of the row's own user are left out, so that no row is told its own value.
    Returns counts and sums, (N,) float64.
    """
    pair, of_pair = np.unique(users.astype(np.int64) * n_items + items, return_inverse=True)
    weight = given.astype(np.float64)
    weighted = np.where(given, values, 0.0)
    found = []
    for column in (weight, weighted):
        total = np.bincount(items, column, minlength=n_items)[items]
        own = np.bincount(of_pair, column, minlength=len(pair))[of_pair]
        found.append(total - own)
    return found[0], found[1]


def content_means(
    contents: np.ndarray,
    counts: np.ndarray,
    sums: np.ndarray,
    *,
    item_variance: float,
    noise: float,
    ridge: float,
) -> np.ndarray:
    """What an item's mean opinion should be, by its contents and the means of all other items.

    Weighted ridge regression of the items' means on their contents, each item predicted without
    its own mean (by the hat matrix, so exactly as if it had been left out).

    contents: (I, D), zeros for items without. counts, sums: (I,) opinions of each item.
    item_variance: of true means around the regression. noise: variance of one opinion. ridge:
    of the coefficients. Returns (I,) float64.
    """
    mean = sums / np.maximum(counts, 1)
    weight = np.where(counts > 0, 1 / (item_variance + noise / np.maximum(counts, 1)), 0.0)
    gram = (contents * weight[:, None]).T @ contents + ridge * np.eye(contents.shape[1])
    solved = np.linalg.solve(gram, contents.T).T  # (I, D)
    fitted = contents @ (solved.T @ (weight * mean))
    leverage = weight * np.einsum("id,id->i", contents, solved)
    return (fitted - leverage * mean) / np.maximum(1 - leverage, 1e-6)
