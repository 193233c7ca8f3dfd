"""For every row of the log: what is to be expected of it before its own opinion is known.

Dimension letters: N rows of the log, I items, D width of features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from recbole_mars.agreement.columns import ColumnScale
from recbole_mars.agreement.fitted import FittedAgreement
from recbole_mars.agreement.item_effects import item_effects
from recbole_mars.agreement.item_factors import fit_item_factors
from recbole_mars.agreement.kernel import KernelParts, content_directions
from recbole_mars.agreement.process import fit_weights, one_step_ahead, one_thread
from recbole_mars.data import TEST, TRAIN, InteractionLog, windows

__all__ = ["Agreement", "AgreementSettings", "agree"]

_PRIOR_OPINIONS = 3.0  # with which a user's mean is shrunk


@dataclass(frozen=True)
class AgreementSettings:
    """How agreement is computed.

    factors: width of the collaborative part; 0 leaves it out. folds: parts of the users; factors
    and contents' means that a user is told of come from users of the other parts. max_length: a
    posterior looks back at that many behaviours at most, and at half of them at least.
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
    """columns: (N, 5) float32, named by AGREEMENT_COLUMNS. fitted: gives them for any pair.

    "item": what others think of the item, shrunk; "item_support": log(1 + their number). "user":
    by how much this user's opinion should differ, given all own opinions before; with
    "user_uncertainty", its standard deviation. "history": log(1 + behaviours before). Opinions
    are in units of the training opinions' standard deviation, their mean is 0.
    """

    columns: np.ndarray
    fitted: FittedAgreement

    def standardised(self) -> np.ndarray:
        """The columns with mean 0 and variance 1 over the training rows, (N, 5) float32."""
        return self.fitted.scale.apply(self.columns)


def agree(
    log: InteractionLog,
    opinions: np.ndarray,
    features: Mapping[str, np.ndarray],
    settings: AgreementSettings,
    *,
    progress: bool = False,
) -> Agreement:
    """What each row's opinion is expected to be, from others who met the item and own past.

    Own opinions before the row count in every split; others' only from the training part. A row's
    own opinion, and those after it, reach none of its columns but through the few weights and
    variances that all rows share.

    opinions: (N,), such as labels or ratings. features: by modality (I, D), zeros where an item
    has none. Raises ValueError if the training opinions are all equal or none is there.
    """
    training = log.phases == TRAIN
    if not training.any() or np.ptp(opinions[training]) == 0:
        raise ValueError("training opinions must differ, got one value only, or none")
    random = np.random.default_rng(settings.seed)
    fold = random.integers(0, settings.folds, log.n_users)
    opinions = np.asarray(opinions, dtype=np.float64)
    mean, spread = opinions[training].mean(), opinions[training].std()
    values = (opinions - mean) / spread
    directions = {name: content_directions(matrix) for name, matrix in features.items()}
    contents = np.concatenate([np.zeros((log.n_items, 0)), *directions.values()], axis=1)
    effects = item_effects(log, values, contents, fold)
    rest = values - effects.whole
    factors = _item_factors(log, values, contents, fold, settings)
    parts = KernelParts(factors, directions)
    with one_thread():
        weights = _fit(log, rest, fold, parts, settings, random)
        means, variances = _predict(log, rest, fold, parts, weights, settings, progress)
    past = np.arange(len(log)) - log.offsets[log.users]
    columns = [effects.told, np.log1p(effects.support), means, np.sqrt(variances), np.log1p(past)]
    table = np.stack(columns, axis=1).astype(np.float32)
    n_folds = len(effects.totals.priors)  # fewer than asked for if the users are few
    fitted = FittedAgreement(
        opinion_mean=float(mean),
        opinion_spread=float(spread),
        totals=effects.totals,
        factors=np.array(factors[:n_folds], dtype=np.float32).reshape(n_folds, log.n_items, -1),
        contents={name: matrix.astype(np.float32) for name, matrix in directions.items()},
        weights=dict(zip([*parts.names, "noise"], weights.tolist())),
        max_length=settings.max_length,
        scale=ColumnScale.of(table, training),
        fold=fold.astype(np.min_scalar_type(n_folds)),
    )
    return Agreement(table, fitted)


def _item_factors(
    log: InteractionLog,
    values: np.ndarray,
    contents: np.ndarray,
    fold: np.ndarray,
    settings: AgreementSettings,
) -> list[np.ndarray]:
    """Item factors for the users of each fold, from all others.

    Items' effects are made anew for each: a residual of those for everybody holds what the fold's
    users said of the item.
    """
    found = []
    for part in range(settings.folds if settings.factors else 0):
        rows = (log.phases == TRAIN) & (fold[log.users] != part)
        if not rows.any():
            found.append(np.zeros((log.n_items, settings.factors)))
            continue
        outside = replace(log, phases=np.where(rows, TRAIN, TEST).astype(np.int8))
        rest = values - item_effects(outside, values, contents, fold).whole
        counts = np.bincount(log.users[rows], minlength=log.n_users)
        sums = np.bincount(log.users[rows], rest[rows], minlength=log.n_users)
        centred = rest - (sums / (counts + _PRIOR_OPINIONS))[log.users]
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


def _fit(
    log: InteractionLog,
    rest: np.ndarray,
    fold: np.ndarray,
    parts: KernelParts,
    settings: AgreementSettings,
    random: np.random.Generator,
) -> np.ndarray:
    """Weights of the kernel's parts, then the noise."""
    lent = np.flatnonzero(log.phases == TRAIN)
    users, firsts = np.unique(log.users[lent], return_index=True)
    histories = np.split(lent, firsts[1:])
    chosen = np.sort(random.permutation(len(users))[: settings.sample_users])
    samples = [histories[user][-settings.sample_length :] for user in chosen]
    start = [0.1] * len(parts.names) + [0.7]
    return fit_weights([(_parts_of(log, rows, fold, parts), rest[rows]) for rows in samples], start)


def _predict(
    log: InteractionLog,
    rest: np.ndarray,
    fold: np.ndarray,
    parts: KernelParts,
    weights: np.ndarray,
    settings: AgreementSettings,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and variance of every row, (N,) each, user by user."""
    means, variances = np.zeros(len(log)), np.zeros(len(log))
    everything = np.ones(len(log), dtype=bool)
    length = settings.max_length
    stretches = windows(log.offsets, everything, length, length // 2)
    for start, end, first in tqdm(
        zip(*stretches), "agreement", total=len(stretches[0]), disable=not progress
    ):
        rows = np.arange(start, end)
        kernel = np.tensordot(weights[:-1], _parts_of(log, rows, fold, parts), 1)
        mean, variance = one_step_ahead(kernel, rest[start:end], weights[-1])
        means[first:end], variances[first:end] = mean[first - start :], variance[first - start :]
    return means, variances


def _parts_of(
    log: InteractionLog, rows: np.ndarray, fold: np.ndarray, parts: KernelParts
) -> np.ndarray:
    """Parts of the kernel of rows of one user, ascending: (parts, L, L)."""
    return parts.of(log.items[rows], rows, int(fold[log.users[rows[0]]]))
