"""What a training objective beside the cross-entropy reads, and what it returns.

Dimension letters: B batch, L history length, D width of an item vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from recbole_mars.ctr.din import DIN, History

__all__ = ["Objective", "TrainingBatch"]


class TrainingBatch(NamedTuple):
    """A batch of training and two augmented views of each history.

    target_item, user: (B,) ids. labels: (B,) 0 or 1. views: two histories of B samples. rates:
    (B,) each, the share of each view's behaviours that its operator was to change. context:
    (B, C), see DINSettings.context_width.
    """

    history: History
    target_item: Tensor
    user: Tensor
    labels: Tensor
    views: tuple[History, History]
    rates: tuple[Tensor, Tensor]
    context: Tensor | None = None


class Objective(ABC):
    """A loss that is added to a DIN's cross-entropy in training."""

    @abstractmethod
    def __call__(self, din: DIN, batch: TrainingBatch, interest: Tensor, target: Tensor) -> Tensor:
        """The weighted loss, a scalar; exactly 0 where all weights are.

        interest, target: (B, D), what din.interest gave for the batch.
        """
