"""What others think of an item on average: the opinions of all users who met it but the asker.

Dimension letters: N rows, I items, D content dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recbole_mars.data import TRAIN, InteractionLog

__all__ = [
    "ItemEffects",
    "ItemTotals",
    "content_means",
    "earlier_sums",
    "item_effects",
    "others_sums",
]

_RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
_LEAST = 1e-3  # of a variance, in units of the opinions'


class ItemTotals(NamedTuple):
    """What all users think of each item, and how that is shrunk.

    counts, sums: (I,) float64, of the training opinions. priors: (folds, I), what an item's
    contents suggest to the users of each fold. strength: opinions that a prior is worth.
    """

    counts: np.ndarray
    sums: np.ndarray
    priors: np.ndarray
    strength: float

    def shrunk(self, number: np.ndarray, total: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """Mean of so many opinions with this sum, shrunk towards the prior."""
        return (total + self.strength * prior) / (number + self.strength)


class ItemEffects(NamedTuple):
    """What others think of each row's item, (N,) each.

    whole: the shrunk mean of all other users. told, support: the same and the number of opinions
    it rests on, for training rows from earlier opinions only. totals: what they are made of.
    """

    whole: np.ndarray
    told: np.ndarray
    support: np.ndarray
    totals: ItemTotals


def item_effects(
    log: InteractionLog,
    values: np.ndarray,
    contents: np.ndarray,
    fold: np.ndarray,
) -> ItemEffects:
    """Mean training opinion that a row's item has from other users, shrunk towards its contents.

    The mean is shrunk towards what the item's contents suggest (content_means, from users of the
    other folds), the less the more users met it: empirical Bayes, its variances by moments.

    A mean of all others but the own row betrays the own opinion to whoever knows the item: those
    who said 1 have the lower mean. What a model is told of training rows is therefore made of
    earlier opinions (ordered target statistics, Prokhorenkova et al., CatBoost, 2018).

    values: (N,) opinions of variance about 1 and mean about 0. contents: (I, D), zeros where an
    item has none. fold: (n_users,) part of each user.
    """
    training = log.phases == TRAIN
    joint = np.concatenate([np.ones((log.n_items, 1)), contents], axis=1)
    counts, sums = _totals(log, values, training)
    seen = counts > 0
    means = sums / np.maximum(counts, 1)
    inside = float(np.square(values[training] - means[log.items[training]]).sum())
    noise = max(inside / max(int(training.sum() - seen.sum()), 1), _LEAST)
    between = _variance_around(np.zeros(log.n_items), counts, means, noise)
    weight = np.where(seen, 1 / (between + noise / np.maximum(counts, 1)), 0)

    def predicted(counts: np.ndarray, sums: np.ndarray, ridge: float) -> np.ndarray:
        return content_means(joint, counts, sums, item_variance=between, noise=noise, ridge=ridge)

    losses = [np.sum(weight * (means - predicted(counts, sums, ridge)) ** 2) for ridge in _RIDGES]
    ridge = _RIDGES[int(np.argmin(losses))]
    strength = noise / _variance_around(predicted(counts, sums, ridge), counts, means, noise)
    part = fold[log.users]
    priors = [
        predicted(*_totals(log, values, training & (part != mine)), ridge)
        for mine in range(int(fold.max()) + 1)
    ]
    totals = ItemTotals(counts, sums, np.stack(priors), float(strength))
    prior = totals.priors[part, log.items]
    number, total = others_sums(log.users, log.items, training, values)
    support, earlier = earlier_sums(log.users, log.items, log.times, training, values)
    support, earlier = np.where(training, support, number), np.where(training, earlier, total)
    whole, told = totals.shrunk(number, total, prior), totals.shrunk(support, earlier, prior)
    return ItemEffects(whole, told, support, totals)


def others_sums(
    users: np.ndarray, items: np.ndarray, given: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each row, the number and sum of the values that other users gave its item.

    users, items: (N,). given: (N,) bool, rows whose value counts. values: (N,).
    All rows of the row's own user are left out. Returns counts and sums, (N,) float64.
    """
    pair = _pairs(users, items)
    found = []
    for column in (given.astype(np.float64), np.where(given, values, 0.0)):
        found.append(np.bincount(items, column)[items] - np.bincount(pair, column)[pair])
    return found[0], found[1]


def earlier_sums(
    users: np.ndarray, items: np.ndarray, times: np.ndarray, given: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As others_sums, of the rows before each in time; of equal times, those that stand before.

    times: (N,). Returns counts and sums, (N,) float64.
    """
    pair = _pairs(users, items)
    found = []
    for column in (given.astype(np.float64), np.where(given, values, 0.0)):
        found.append(_sums_before(items, times, column) - _sums_before(pair, times, column))
    return np.round(found[0]), found[1]


def _pairs(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """A number for each user with an item, (N,)."""
    width = int(items.max(initial=0)) + 1
    return np.unique(users.astype(np.int64) * width + items, return_inverse=True)[1]


def _sums_before(group: np.ndarray, times: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Sum of the column over the rows of each row's group that are before it, (N,)."""
    order = np.lexsort((times, group))
    running = np.concatenate(([0.0], np.cumsum(column[order], dtype=np.float64)))
    first = np.searchsorted(group[order], group[order])
    sums = np.empty(len(group))
    sums[order] = running[np.arange(len(group))] - running[first]
    return sums


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
    its own mean (by the hat matrix, exactly as if it had been left out).

    contents: (I, D), zeros for items without. counts, sums: (I,) opinions of each item.
    item_variance: of true means around the regression. noise: variance of one opinion. ridge:
    of the coefficients. Returns (I,) float64.
    """
    means = sums / np.maximum(counts, 1)
    weight = np.where(counts > 0, 1 / (item_variance + noise / np.maximum(counts, 1)), 0.0)
    gram = (contents * weight[:, None]).T @ contents
    gram.flat[:: len(gram) + 1] += ridge
    solved = np.linalg.solve(gram, contents.T).T
    fitted = contents @ (solved.T @ (weight * means))
    leverage = weight * np.einsum("id,id->i", contents, solved)
    return (fitted - leverage * means) / (1 - leverage)


def _totals(
    log: InteractionLog, values: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number and sum of the chosen rows' values for each item, (I,)."""
    items = log.items[rows]
    counts = np.bincount(items, minlength=log.n_items).astype(np.float64)
    return counts, np.bincount(items, values[rows], minlength=log.n_items)


def _variance_around(
    prior: np.ndarray, counts: np.ndarray, means: np.ndarray, noise: float
) -> float:
    """Variance of true item means around the prior: the mean squared gap, less its noise."""
    seen = counts > 0
    gap = counts * np.square(means - prior) - noise
    return max(float(gap[seen].sum() / counts.sum()), _LEAST)
