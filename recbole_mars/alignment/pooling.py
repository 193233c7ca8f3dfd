"""Item embeddings pooled into user embeddings (MARS, eq. 13).

Dimension letters: B batch, L length, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pooled_user_embedding", "running_user_embedding"]


def running_user_embedding(item_embeddings: Tensor, mask: Tensor) -> Tensor:
    """The user's embedding before each behaviour (MARS, eq. 13, read causally).

    emb_user(t) = mean of emb_item(s) over the real positions s < t

    item_embeddings: (B, L, D). mask: (B, L) bool, True = real. Returns (B, L, D), zeros where
    nothing came before.
    """
    real = mask[:, :-1, None]
    earlier = item_embeddings[:, :-1].masked_fill(~real, 0.0)
    means = earlier.cumsum(1) / real.cumsum(1).clamp(min=1)
    return torch.cat([torch.zeros_like(item_embeddings[:, :1]), means], dim=1)


def pooled_user_embedding(item_embeddings: Tensor, mask: Tensor) -> Tensor:
    """The user's embedding after a whole history (MARS, eq. 13).

    emb_user = mean of emb_item over the real positions

    item_embeddings: (B, L, D). mask: (B, L) bool, True = real. Returns (B, D), zeros for an
    empty history.
    """
    real = mask[..., None]
    return item_embeddings.masked_fill(~real, 0.0).sum(1) / real.sum(1).clamp(min=1)
