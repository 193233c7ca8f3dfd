"""The scored impressions of a test set, and what they say of a model.

Dimension letters: T impressions.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from recbole_mars.evaluation.activity import GROUP_NAMES
from recbole_mars.evaluation.metrics import UndefinedMetricError, auc, log_loss, user_auc
from recbole_mars.evaluation.significance import bootstrap_interval

__all__ = ["Impressions"]


@dataclass(frozen=True, eq=False)
class Impressions:
    """What a model said of each impression; every array is (T,).

    users: internal ids. groups: activity (0 low, 1 mid, 2 high). labels: 0 or 1. scores: predicted
    probabilities. lengths: the user's own behaviours before it, borrowed ones not counted. cold:
    whether the target item was hardly met in training. requests: what was shown together, such as
    a page view. The last two are None where they are not known.
    """

    users: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    lengths: np.ndarray
    cold: np.ndarray | None = None
    requests: np.ndarray | None = None

    def rows(self, group: str) -> np.ndarray:
        """Mask of the impressions of "all", "low", "mid" or "high"."""
        if group == "all":
            return np.ones(len(self.labels), dtype=bool)
        return self.groups == GROUP_NAMES.index(group)

    def metrics(self) -> dict[str, float]:
        """auc, log_loss, auc_low, auc_mid, auc_high, auc_cold, user_auc and request_auc.

        Those that are not defined are left out.

        Raises ValueError for scores that are no probabilities.
        """
        found = {"log_loss": log_loss(self.labels, self.scores)}
        for name, mine in self._auc_rows().items():
            found[name] = auc(self.labels[mine], self.scores[mine])
        with suppress(UndefinedMetricError):  # as under leave-one-out, with one impression a user
            found["user_auc"] = user_auc(self.users, self.labels, self.scores)
        if self.requests is not None:
            with suppress(UndefinedMetricError):
                found["request_auc"] = user_auc(self.requests, self.labels, self.scores)
        return found

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of log loss and of the AUCs over impressions."""
        found = {"log_loss": bootstrap_interval(self.labels, self.scores, "log_loss")}
        for name, mine in self._auc_rows().items():
            found[name] = bootstrap_interval(self.labels[mine], self.scores[mine])
        return found

    def _auc_rows(self) -> dict[str, np.ndarray]:
        """The AUCs that are defined, with the impressions that they are of."""
        names = {"all": "auc", **{group: f"auc_{group}" for group in GROUP_NAMES}}
        rows = {name: self.rows(group) for group, name in names.items()}
        if self.cold is not None:
            rows["auc_cold"] = self.cold.astype(bool)
        return {name: mine for name, mine in rows.items() if len(np.unique(self.labels[mine])) == 2}
