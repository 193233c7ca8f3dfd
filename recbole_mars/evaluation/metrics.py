"""Metrics of predicted clicks, in float64; columns are arrays, lists or tensors.

Dimension letters: N impressions, G distinct scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recbole_mars.evaluation.columns import (
    float_column,
    id_column,
    label_column,
    require_equal_lengths,
)

__all__ = [
    "UndefinedMetricError",
    "UserAUCReport",
    "auc",
    "auc_of_counts",
    "log_loss",
    "rela_impr",
    "require_both_classes",
    "row_losses",
    "score_ranks",
    "user_auc",
    "user_auc_report",
]


class UndefinedMetricError(ValueError):
    """The columns are sound, but hold no pair of a click and a non-click to rank."""


def auc(labels: Any, scores: Any) -> float:
    """Area under the ROC curve: how often a click is scored above a non-click, ties counting half.

    labels: (N,) 0 or 1. scores: (N,), any monotone scale, infinities allowed. O(N log N).
    Raises ValueError if a column is empty, the lengths differ, a score is NaN or a label is
    neither 0 nor 1, and UndefinedMetricError, a ValueError too, if only one class occurs.
    """
    clicked, score = label_column(labels), float_column("scores", scores)
    require_equal_lengths(labels=clicked, scores=score)
    require_both_classes(clicked)
    ranks, n_ranks = score_ranks(score)
    negatives = np.bincount(ranks[~clicked], minlength=n_ranks)
    positives = np.bincount(ranks[clicked], minlength=n_ranks)
    return float(auc_of_counts(negatives, positives))


@dataclass(frozen=True)
class UserAUCReport:
    """The user AUC and what it rests on: users with one class have no AUC and are excluded."""

    value: float
    users_counted: int
    users_excluded: int
    impressions_counted: int


def user_auc(user_ids: Any, labels: Any, scores: Any) -> float:
    """Mean of the users' AUC, weighted by their impressions (MARS, eq. 19).

    sum_i #impression_i * AUC_i / sum_i #impression_i over the users i with both classes.
    user_ids, labels, scores: (N,), in any order. O(N log N).
    Raises ValueError as `auc` does, and UndefinedMetricError if no user has both classes.
    """
    return user_auc_report(user_ids, labels, scores).value


def user_auc_report(user_ids: Any, labels: Any, scores: Any) -> UserAUCReport:
    """The user AUC (MARS, eq. 19) with the users and impressions that count; see `user_auc`."""
    users = id_column("user_ids", user_ids)
    clicked, score = label_column(labels), float_column("scores", scores)
    require_equal_lengths(user_ids=users, labels=clicked, scores=score)

    _, user_ranks = np.unique(users, return_inverse=True)
    order = np.lexsort((score, user_ranks))
    user, score, clicked = user_ranks[order], score[order], clicked[order]
    new_user = np.diff(user, prepend=-1) != 0
    new_tie = new_user | np.append(True, score[1:] != score[:-1])

    # A tie is the impressions of one user with one score; all sums below are exact integers.
    ties = np.flatnonzero(new_tie)
    positives = np.add.reduceat(clicked.astype(np.int64), ties)
    negatives = np.add.reduceat((~clicked).astype(np.int64), ties)
    firsts = np.flatnonzero(new_user[ties])  # first tie of each user
    n_positives = np.add.reduceat(positives, firsts)
    n_negatives = np.add.reduceat(negatives, firsts)
    below = np.cumsum(negatives) - negatives
    below -= below[firsts][user[ties]]
    twice_wins = np.add.reduceat(positives * (2 * below + negatives), firsts)

    counted = (n_positives > 0) & (n_negatives > 0)
    if not counted.any():
        raise UndefinedMetricError(
            f"user AUC needs a user with clicks and non-clicks, got none among {len(firsts)}; "
            "use auc, or a split that holds out several impressions of a user"
        )
    pairs = (n_positives * n_negatives)[counted]
    impressions = (n_positives + n_negatives)[counted]
    user_aucs = twice_wins[counted] / (2 * pairs)
    return UserAUCReport(
        value=float(impressions @ user_aucs / impressions.sum()),
        users_counted=int(counted.sum()),
        users_excluded=int((~counted).sum()),
        impressions_counted=int(impressions.sum()),
    )


def log_loss(labels: Any, probabilities: Any, eps: float = 1e-15) -> float:
    """Mean of -[y ln p + (1 - y) ln(1 - p)], p being cut to eps..1 - eps.

    labels: (N,) 0 or 1, one class is enough. probabilities: (N,).
    Raises ValueError for bad columns as `auc` does, and for probabilities outside 0..1.
    """
    return float(row_losses(labels, probabilities, eps).mean())


def rela_impr(measured: float, base: float) -> float:
    """Relative improvement of an AUC over a base, in percent (MARS, eq. 20).

    ((measured - 0.5) / (base - 0.5) - 1) * 100.
    Raises ValueError if base is 0.5: a random base has no merit to compare with.
    """
    if base == 0.5:
        raise ValueError("base must differ from 0.5, the AUC of random scores; compare AUCs as is")
    return ((measured - 0.5) / (base - 0.5) - 1) * 100


def row_losses(labels: Any, probabilities: Any, eps: float = 1e-15) -> np.ndarray:
    """The log loss of each impression, (N,) float64; arguments and errors of `log_loss`."""
    clicked, probability = label_column(labels), float_column("probabilities", probabilities)
    require_equal_lengths(labels=clicked, probabilities=probability)
    outside = probability[(probability < 0) | (probability > 1)]
    if len(outside):
        raise ValueError(
            f"probabilities must lie in 0..1, got {outside[0]}; apply the sigmoid to logits first"
        )
    probability = np.clip(probability, eps, 1 - eps)
    return -np.where(clicked, np.log(probability), np.log1p(-probability))


def require_both_classes(clicked: np.ndarray) -> None:
    """Raises UndefinedMetricError if clicked, (N,) bool, holds one class only."""
    if clicked.all() or not clicked.any():
        raise UndefinedMetricError(f"AUC needs both classes, got only label {int(clicked[0])}")


def score_ranks(scores: np.ndarray) -> tuple[np.ndarray, int]:
    """The rank of each score among the distinct ones, (N,) int64 in 0..G-1, and G."""
    distinct, ranks = np.unique(scores, return_inverse=True)
    return ranks, len(distinct)


def auc_of_counts(negatives: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """AUC from the counts of non-clicks and clicks at every distinct score, lowest first.

    negatives, positives: (..., G) int64, so that the sums are exact. Returns (...), nan where
    one class is missing.
    """
    twice_below = 2 * np.cumsum(negatives, axis=-1) - negatives  # non-clicks of equal score: half
    twice_wins = (positives * twice_below).sum(axis=-1)
    pairs = positives.sum(axis=-1) * negatives.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return twice_wins / (2 * pairs)
