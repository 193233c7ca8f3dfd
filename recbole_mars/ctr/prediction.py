"""What every CTR model gives for a batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Prediction"]


class Prediction(NamedTuple):
    """logits: (B,). loss: a scalar that training adds to the cross-entropy, None without one."""

    logits: Tensor
    loss: Tensor | None = None
