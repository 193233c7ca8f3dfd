"""For every row of the log: what is to be expected of it before its own opinion is known.

Dimension letters: N rows of the log, I items, D width of contents, L behaviours of a user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from recbole_mars.agreement.item_effects import content_means, others_sums
from recbole_mars.agreement.item_factors import fit_item_factors
from recbole_mars.agreement.process import fit_weights, one_step_ahead
from recbole_mars.data import TRAIN, InteractionLog, windows

__all__ = ["AGREEMENT_COLUMNS", "Agreement", "AgreementSettings", "agree"]

AGREEMENT_COLUMNS = ("item", "item_support", "user", "user_uncertainty", "history")
_RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
_DRIFTS = (8.0, 64.0)  # behaviours after which a mood has faded to 1/e
_WIDTHS = (0.5, 0.15)  # of the kernels on 1 - cosine of contents


@dataclass(frozen=True)
class AgreementSettings:
    """How agreement is computed.

    factors: width of the collaborative part; 0 leaves it out. folds: parts of the users; what a
    user is told comes from users of the other parts (items' own opinions: from all other users).
    max_length: behaviours that a posterior looks back at, at least half of it, at most all of it.
    sample_users, sample_length: training users, and their latest behaviours, on which the kernel's
    weights are fitted. Raises ValueError for numbers out of range.
    """

    factors: int = 16
    folds: int = 5
    max_length: int = 400
    sample_users: int = 400
    sample_length: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"factors": 0, "folds": 2, "max_length": 2, "sample_users": 1, "sample_length": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be >= {bound}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Agreement:
    """columns: (N, 5) float32, named by AGREEMENT_COLUMNS. weights: of the kernel's parts."""

    columns: np.ndarray
    weights: Mapping[str, float]


def agree(
    log: InteractionLog,
    opinions: np.ndarray,
    contents: Mapping[str, np.ndarray],
    settings: AgreementSettings,
    *,
    progress: bool = False,
) -> Agreement:
    random = np.random.default_rng(settings.seed)
    training = log.phases == TRAIN
    mean, scale = opinions[training].mean(), opinions[training].std()
    values = (opinions - mean) / scale
    fold = random.integers(0, settings.folds, log.n_users)
    directions = {name: _directions(matrix) for name, matrix in contents.items()}
    effects, support = _item_effects(log, values, fold, directions, settings.folds)
    rest = values - effects
    factors = _factors(log, rest, fold, settings)
    parts = _Parts(log, fold, factors, directions)
    weights = _fit(log, rest, parts, settings, random)
    means, variances = np.zeros(len(log)), np.zeros(len(log))
    everything = np.ones(len(log), dtype=bool)
    stretches = zip(*windows(log.offsets, everything, settings.max_length, settings.max_length // 2))
    for start, end, first in tqdm(list(stretches), "agreement", disable=not progress):
        kernel = np.tensordot(weights[:-1], np.stack(parts.of(start, end)), 1)
        found = one_step_ahead(kernel, rest[start:end], weights[-1])
        means[first:end] = found[0][first - start :]
        variances[first:end] = found[1][first - start :]
    history = np.arange(len(log)) - log.offsets[log.users]
    columns = np.stack(
        [effects, np.log1p(support), means, np.sqrt(variances), np.log1p(history)], axis=1
    )
    return Agreement(columns.astype(np.float32), dict(zip([*parts.names, "noise"], weights.tolist())))


def _item_effects(
    log: InteractionLog,
    values: np.ndarray,
    fold: np.ndarray,
    directions: Mapping[str, np.ndarray],
    folds: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean opinion of others on each row's item, shrunk towards what its contents suggest."""
    training = log.phases == TRAIN
    counts, sums = others_sums(log.users, log.items, training, values, log.n_items)
    kept = [matrix for matrix in directions.values()]
    joint = np.concatenate([np.ones((log.n_items, 1)), *kept], axis=1)

    def totals(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        items = log.items[rows]
        return (
            np.bincount(items, minlength=log.n_items).astype(np.float64),
            np.bincount(items, values[rows], minlength=log.n_items),
        )

    number, total = totals(training)
    seen = number > 0
    average = total / np.maximum(number, 1)
    within = np.average((values[training] - average[log.items[training]]) ** 2)
    noise = within * seen[seen].sum() / seen.sum()

    def spread(prior: np.ndarray) -> float:
        """Variance of true item means around the prior, by moments."""
        gap = number * (average - prior) ** 2 - noise
        return max(float(gap[seen].sum() / number[seen].sum()), 1e-3)

    between = spread(np.zeros(log.n_items))

    def predicted(number: np.ndarray, total: np.ndarray, ridge: float) -> np.ndarray:
        return content_means(
            joint, number, total, item_variance=between, noise=noise, ridge=ridge
        )

    weight = np.where(seen, 1 / (between + noise / np.maximum(number, 1)), 0)
    losses = [
        np.sum(weight * (average - predicted(number, total, ridge)) ** 2) for ridge in _RIDGES
    ]
    ridge = _RIDGES[int(np.argmin(losses))]
    between = spread(predicted(number, total, ridge))
    prior = np.zeros(len(log))
    for k in range(folds):
        mine = fold[log.users] == k
        prior[mine] = predicted(*totals(training & ~mine), ridge)[log.items[mine]]
    strength = noise / between
    return (sums + strength * prior) / (counts + strength), counts


def _factors(
    log: InteractionLog, rest: np.ndarray, fold: np.ndarray, settings: AgreementSettings
) -> list[np.ndarray]:
    """Item factors for each fold's users, from all others."""
    if settings.factors == 0:
        return []
    training = log.phases == TRAIN
    counts = np.bincount(log.users[training], minlength=log.n_users)
    sums = np.bincount(log.users[training], rest[training], minlength=log.n_users)
    centred = rest - (sums / (counts + 3.0))[log.users]
    found = []
    for k in range(settings.folds):
        rows = training & (fold[log.users] != k)
        found.append(
            fit_item_factors(
                log.users[rows],
                log.items[rows],
                centred[rows],
                log.n_users,
                log.n_items,
                settings.factors,
                seed=settings.seed,
            )
        )
    return found


class _Parts:
    """Parts of the kernel over a stretch of one user's behaviours."""

    def __init__(
        self,
        log: InteractionLog,
        fold: np.ndarray,
        factors: list[np.ndarray],
        directions: Mapping[str, np.ndarray],
    ) -> None:
        self._log, self._fold, self._factors, self._directions = log, fold, factors, directions
        self.names = ["user", *(f"drift {length:g}" for length in _DRIFTS)]
        self.names += ["agreement"] if factors else []
        self.names += [f"{name} {width:g}" for name in directions for width in _WIDTHS]

    def of(self, start: int, end: int) -> list[np.ndarray]:
        items = self._log.items[start:end]
        steps = np.abs(np.subtract.outer(np.arange(end - start), np.arange(end - start)))
        parts = [np.ones(steps.shape), *(np.exp(-steps / length) for length in _DRIFTS)]
        if self._factors:
            vectors = self._factors[self._fold[self._log.users[start]]][items]
            parts.append(vectors @ vectors.T)
        for matrix in self._directions.values():
            vectors = matrix[items]
            there = vectors.any(axis=1)
            gap = np.minimum(vectors @ vectors.T - 1, 0)
            both = np.outer(there, there)
            parts += [np.where(both, np.exp(gap / width), 0) for width in _WIDTHS]
        return parts


def _fit(
    log: InteractionLog,
    rest: np.ndarray,
    parts: _Parts,
    settings: AgreementSettings,
    random: np.random.Generator,
) -> np.ndarray:
    training = log.phases == TRAIN
    counts = np.bincount(log.users[training], minlength=log.n_users)
    users = np.flatnonzero(counts > 1)
    users = np.sort(random.permutation(users)[: settings.sample_users])

    def samples() -> Iterator[tuple[Sequence[np.ndarray], np.ndarray]]:
        for user in users:
            rows = np.arange(log.offsets[user], log.offsets[user + 1])
            rows = rows[training[rows]][-settings.sample_length :]
            start, end = int(rows[0]), int(rows[-1]) + 1
            inside = rows - start
            whole = parts.of(start, end)
            yield [part[np.ix_(inside, inside)] for part in whole], rest[rows]

    return fit_weights(samples(), [0.1] * len(parts.names) + [0.7])


def _directions(matrix: np.ndarray) -> np.ndarray:
    """Centred unit rows, zero where there is nothing."""
    there = np.asarray(matrix).any(axis=1)
    centred = np.where(there[:, None], matrix - matrix[there].mean(0), 0.0).astype(np.float64)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.maximum(lengths, 1e-12)
