"""Items by what they contain: frozen features, encoded by trained layers.

Dimension letters: I items, N distinct items, V width of a modality's features, D width of an item
vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recbole_mars.ctr.frozen_rows import BLOCK, FrozenRows
from recbole_mars.ctr.layers import VectorTable, distinct
from recbole_mars.ctr.similarities import Modality, require_modalities

__all__ = ["ContentVectors", "FrozenFeatures", "linear_encoder"]


class FrozenFeatures(nn.Module):
    """One modality's features, moved to mean 0 and scaled, by one number, to variance 1 on average.

    So what reads them need not know its encoder's scale. Nothing here is trained, and a checkpoint
    leaves it out. Items without the modality are zero.
    """

    present: Tensor

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        known = np.array(modality.present, dtype=bool)
        known[0] = False  # a masked behaviour is of item 0
        mean, deviation = _moments(modality.vectors, np.flatnonzero(known))
        present = torch.from_numpy(known)
        self.register_buffer("present", present, persistent=False)

        def standardise(rows: Tensor, part: slice) -> Tensor:
            return ((rows - mean) / deviation).masked_fill(~present[part].unsqueeze(1), 0.0)

        self.vectors = FrozenRows(modality.vectors, standardise, modality.storage)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids: (N,). Returns features (N, V), and which items have them (N,) bool."""
        return self.vectors(ids), self.present[ids]


class ContentVectors(VectorTable):
    """Sum over the modalities that an item has of its encoded features; zero without any.

    encoder: makes the layer from V to width of a modality, given V and width.

    Raises ValueError without a modality.
    """

    told: Tensor

    def __init__(
        self,
        modalities: Sequence[Modality],
        width: int,
        encoder: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        require_modalities(modalities)
        self.width, self.n_ids = width, len(modalities[0].present)
        found = [FrozenFeatures(m) for m in modalities]
        self.features = nn.ModuleList(found)
        self.encoders = nn.ModuleList(encoder(m.vectors.shape[1], width) for m in modalities)
        told = torch.stack([features.present for features in found]).any(0)
        self.register_buffer("told", told, persistent=False)

    def distinct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """See VectorTable."""
        unique, places = distinct(ids, self.n_ids)
        parts = []
        for features, encoder in zip(self.features, self.encoders):
            vectors, present = features(unique)
            parts.append(encoder(vectors) * present.unsqueeze(1))
        return places, torch.stack(parts).sum(0)

    def known(self, ids: Tensor) -> Tensor:
        """Which items have any of the modalities. ids: any shape. Returns bool of that shape."""
        return self.told[ids]


def _moments(vectors: np.ndarray, items: np.ndarray) -> tuple[Tensor, float]:
    """Mean (V,) of these rows, and the deviation from it of all numbers; in float64, by blocks."""
    parts = np.array_split(items, max(1, len(items) * vectors.shape[1] // BLOCK))
    mean = sum(vectors[part].astype(np.float64).sum(0) for part in parts) / max(len(items), 1)
    squares = sum(np.square(vectors[part] - mean).sum() for part in parts)
    deviation = np.sqrt(squares / max(len(items) * vectors.shape[1], 1))
    return torch.from_numpy(mean.astype(np.float32)), max(float(deviation), 1e-12)


def linear_encoder(width: int, out: int) -> nn.Module:
    """A projection without a bias: the features' mean is zero already."""
    return nn.Linear(width, out, bias=False)
