"""How well the latest events were foreseen: progressive validation.

Dimension letters: N events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_mars.evaluation import UndefinedMetricError, auc, log_loss

__all__ = ["RecentScores"]

_NAMES = ("labels", "scores", "published")
_PREFIX = "recent."


class RecentScores:
    """The latest events with the probabilities that they were given before training on them.

    size: events kept. labels: (N,) 0 or 1. scores: (N,) of the weights in training. published: (N,)
    of the weights that were published last, NaN where these did not score.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._columns = {name: np.zeros(0, dtype=np.float32) for name in _NAMES}

    def add(
        self, labels: np.ndarray, scores: np.ndarray, published: np.ndarray | None = None
    ) -> None:
        """Add events, the latest last."""
        if published is None:
            published = np.full(len(labels), np.nan)
        for name, more in zip(_NAMES, (labels, scores, published)):
            column = np.concatenate([self._columns[name], more.astype(np.float32)])
            self._columns[name] = column[-self.size :]

    def forget_published(self) -> None:
        """Other weights are the published ones now."""
        self._columns["published"] = np.full_like(self._columns["published"], np.nan)

    def figures(self) -> dict[str, Any]:
        """What the notes of a snapshot tell: events, log_loss, auc and loss_increase.

        None stands for what is not defined: AUC of events of one class, and all without an event.
        """
        labels, scores, _ = (self._columns[name] for name in _NAMES)
        if not len(labels):
            return {"events": 0, "log_loss": None, "auc": None, "loss_increase": None}
        try:
            area: float | None = auc(labels, scores)
        except UndefinedMetricError:
            area = None
        loss, increase = log_loss(labels, scores), self.increase()
        return {"events": len(labels), "log_loss": loss, "auc": area, "loss_increase": increase}

    def increase(self) -> float | None:
        """The log loss less that of the published weights, on the events that both scored."""
        labels, scores, published = (self._columns[name] for name in _NAMES)
        both = ~np.isnan(published)
        if not both.any():
            return None
        return log_loss(labels[both], scores[both]) - log_loss(labels[both], published[both])

    def tensors(self) -> dict[str, Tensor]:
        return {_PREFIX + name: torch.from_numpy(self._columns[name].copy()) for name in _NAMES}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave."""
        self._columns = {name: tensors[_PREFIX + name].numpy()[-self.size :] for name in _NAMES}
