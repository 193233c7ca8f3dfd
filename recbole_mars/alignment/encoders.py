"""Frozen modality features brought to the fusion width (MARS, eq. 3).

Dimension letters: N items, F feature width, D fusion width, I item ids.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["ItemModality", "ModalityProjection"]


class ModalityProjection(nn.Module):
    """Project the features of one modality, e = W f (MARS, eq. 3).

    An item that lacks the modality gets one learned vector in its place, whatever its row of
    features holds.
    """

    def __init__(self, input_width: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_width, width, bias=False)
        self.absent = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.absent, std=0.02)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """features: (N, F), any float type. present: (N,) bool. Returns (N, D)."""
        here = present[:, None]
        features = features.to(self.linear.weight.dtype).masked_fill(~here, 0.0)
        return torch.where(here, self.linear(features), self.absent)


class ItemModality(nn.Module):
    """The features of every item in one modality, frozen, with their learned projection.

    features: (I, F) by item id, row 0 the padding; kept in their own precision, moved with the
    module and left out of its state_dict, for they never change. present: (I,) bool; padding
    counts as absent. Raises ValueError if a shape is wrong or a present row is not finite.
    """

    features: Tensor
    present: Tensor

    def __init__(
        self,
        name: str,
        features: np.ndarray | Tensor,
        present: np.ndarray | Tensor,
        n_items: int,
        width: int,
    ) -> None:
        super().__init__()
        features, present = _own_copy(features), _own_copy(present)
        if features.dim() != 2 or len(features) != n_items or not features.is_floating_point():
            raise ValueError(
                f"{name} must be a float matrix with one row for each of the {n_items} item ids, "
                f"padding included, got {tuple(features.shape)} {features.dtype}"
            )
        if present.shape != (n_items,) or present.dtype != torch.bool:
            raise ValueError(
                f"{name}_present must be ({n_items},) bool, "
                f"got {tuple(present.shape)} {present.dtype}"
            )
        present[0] = False
        broken = present & ~torch.isfinite(features).all(1)
        if broken.any():
            raise ValueError(
                f"{name} must be finite where present, item {int(broken.nonzero()[0])} is not; "
                "extract it again or mark it as absent"
            )
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("present", present, persistent=False)
        self.projection = ModalityProjection(features.shape[1], width)

    def forward(self, items: Tensor) -> Tensor:
        """items: (N,) int64 ids. Returns (N, D)."""
        return self.projection(self.features[items], self.present[items])


def _own_copy(values: np.ndarray | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().clone()
    return torch.from_numpy(np.array(values))  # as_tensor would share a read-only memory map
