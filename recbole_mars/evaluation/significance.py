"""How far a metric or a gain could be chance: over impressions, and over seeds.

A bootstrap over impressions says what another test set of this kind would give for these trained
models, and treats impressions as independent. What another training would give, only several
seeds can say.

Dimension letters: N impressions, S resamples, G distinct scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from recbole_mars.evaluation.columns import float_column, label_column, require_equal_lengths
from recbole_mars.evaluation.metrics import (
    auc,
    auc_of_counts,
    require_both_classes,
    row_losses,
    score_ranks,
)

__all__ = [
    "PairedResult",
    "Summary",
    "bootstrap_interval",
    "holm",
    "paired_bootstrap",
    "paired_t_test",
    "summarise",
]

_CHUNK = 2**20  # impressions drawn at a time: the memory of a bootstrap stays below 100 MB


class PairedResult(NamedTuple):
    """A gain, its 95 % interval and the two-sided p value of "no gain"."""

    difference: float
    low: float
    high: float
    p_value: float


class Summary(NamedTuple):
    """Mean and standard deviation (n - 1 in the denominator; nan for one value) of n values."""

    mean: float
    std: float
    n: int


def bootstrap_interval(
    labels: Any,
    scores: Any,
    metric: str = "auc",
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a metric over impressions.

    labels: (N,) 0 or 1. scores: (N,), probabilities for the log loss. metric: "auc" or "log_loss".
    Resamples with one class have no AUC and are drawn again.
    Raises ValueError for bad columns as `auc` and `log_loss` do, an unknown metric, a confidence
    outside 0..1, and samples < 1.
    """
    if metric not in ("auc", "log_loss"):
        raise ValueError(f"metric must be 'auc' or 'log_loss', got {metric!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if metric == "auc":
        values = _resampled_aucs(labels, [scores], samples, seed)[0]
    else:
        losses = row_losses(labels, scores)
        values = _bootstrap(lambda rows: losses[rows].mean(axis=1), len(losses), samples, seed)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired_bootstrap(
    labels: Any, scores_base: Any, scores_measured: Any, samples: int = 1000, seed: int = 0
) -> PairedResult:
    """The gain in AUC of two scorings of the same impressions, both resampled together.

    labels: (N,). scores_base, scores_measured: (N,), or (R, N) of R trainings, whose AUCs are then
    averaged in every resample: the interval is that of the mean gain of these trained models.
    low and high are percentiles of the resampled gains. p_value = 2 min(#(gain <= 0) + 1,
    #(gain >= 0) + 1) / (samples + 1), at most 1: never 0, which so few resamples could not show.
    Raises ValueError as `bootstrap_interval` does.
    """
    before, after = _scorings(scores_base), _scorings(scores_measured)
    resampled = _resampled_aucs(labels, [*before, *after], samples, seed)
    gains = resampled[len(before) :].mean(axis=0) - resampled[: len(before)].mean(axis=0)
    low, high = np.quantile(gains, [0.025, 0.975])
    fewest = min(np.count_nonzero(gains <= 0), np.count_nonzero(gains >= 0))
    means = (np.mean([auc(labels, scores) for scores in side]) for side in (after, before))
    return PairedResult(
        difference=float(next(means) - next(means)),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2 * (fewest + 1) / (samples + 1)),
    )


def paired_t_test(base: Any, measured: Any) -> PairedResult:
    """The mean gain over seeds with Student's interval and two-sided test.

    base, measured: (n,), the metric of run i of both with the same seed.
    low, high and p_value are nan where the spread of the gains is unknown: for one seed, and for
    gains that do not differ at all, since then the seeds did not take effect.
    Raises ValueError if a column is empty or holds NaN, or the lengths differ.
    """
    before, after = float_column("base", base), float_column("measured", measured)
    require_equal_lengths(base=before, measured=after)
    difference, std, n = summarise(after - before)
    rounding = 1e-12 * max(np.abs(before).max(), np.abs(after).max())
    if n == 1 or std <= rounding:
        return PairedResult(difference, np.nan, np.nan, np.nan)
    error = std / np.sqrt(n)
    reach = stats.t.ppf(0.975, n - 1) * error
    p_value = 2 * stats.t.sf(abs(difference) / error, n - 1)
    return PairedResult(
        difference, float(difference - reach), float(difference + reach), float(p_value)
    )


def summarise(values: Any) -> Summary:
    """Mean, standard deviation and number of the values of a metric over seeds, (n,).

    Raises ValueError if there are none, or one is NaN.
    """
    column = float_column("values", values)
    std = float(column.std(ddof=1)) if len(column) > 1 else np.nan
    return Summary(float(column.mean()), std, len(column))


def holm(p_values: Any) -> np.ndarray:
    """p values corrected for their number by Holm's step-down method, (n,) in the given order.

    The i-th smallest of m is multiplied by m - i + 1, never falls below a smaller one's, and is at
    most 1: rejecting those below 0.05 errs at all with a chance of 5 % at most. nan stays nan and
    does not count. Raises ValueError for values outside 0..1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    if np.any((values[known] < 0) | (values[known] > 1)):
        raise ValueError(f"p_values must lie in 0..1, got {values[known]}")
    order = known[np.argsort(values[known], kind="stable")]
    corrected = np.full(values.shape, np.nan)
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def _scorings(scores: Any) -> list[Any]:
    """One scoring, (N,), or several, (R, N), as a list."""
    return list(scores) if np.ndim(scores) == 2 else [scores]


def _resampled_aucs(labels: Any, scorings: list[Any], samples: int, seed: int) -> np.ndarray:
    """AUC of every scoring in the same resamples, (len(scorings), S).

    Every scoring is sorted once: a cell is one class at one distinct score, and a resample is
    known by its counts per cell, from which the AUC takes O(N).
    """
    clicked = label_column(labels)
    require_both_classes(clicked)
    cells = []
    for scores in scorings:
        score = float_column("scores", scores)
        require_equal_lengths(labels=clicked, scores=score)
        ranks, n_ranks = score_ranks(score)
        cells.append((ranks + n_ranks * clicked, n_ranks))

    def aucs(rows: np.ndarray) -> np.ndarray:
        return np.stack([_aucs_of_cells(cell[rows], n_ranks) for cell, n_ranks in cells])

    return _bootstrap(aucs, len(clicked), samples, seed)


def _aucs_of_cells(cells: np.ndarray, n_ranks: int) -> np.ndarray:
    """AUC of each of C resamples. cells: (C, N), rank for non-clicks, n_ranks + rank for clicks."""
    own_cells = cells + 2 * n_ranks * np.arange(len(cells))[:, None]
    counts = np.bincount(own_cells.ravel(), minlength=2 * n_ranks * len(cells))
    counts = counts.reshape(len(cells), 2, n_ranks)
    return auc_of_counts(counts[:, 0], counts[:, 1])


def _bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, samples: int, seed: int
) -> np.ndarray:
    """The first values (..., S) of a statistic that are defined, over resamples of n rows.

    statistic: from rows (C, n), drawn with replacement, to values (..., C), nan if undefined.
    """
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
    rng = np.random.default_rng(seed)
    size = max(1, min(samples, _CHUNK // n))
    kept: list[np.ndarray] = []
    n_kept = 0
    while n_kept < samples:
        values = statistic(rng.integers(n, size=(size, n)))
        kept.append(values[..., ~np.isnan(np.atleast_2d(values)).any(axis=0)])
        n_kept += kept[-1].shape[-1]
    return np.concatenate(kept, axis=-1)[..., :samples]
