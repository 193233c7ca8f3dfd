"""Single-head attention over padded sequences, with a stated rule of who sees whom.

Dimension letters: B batch, L length, N distinct rows, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CrossAttention", "attend", "place", "visible_positions"]


def visible_positions(mask: Tensor, rule: str) -> Tensor:
    """Which real positions each position sees.

    rule: "inclusive" (itself and those before), "exclusive" (only those before) or "full" (all).
    mask: (B, L) bool, True = real. Returns (B, L, L) bool: [b, t, s] is True where t sees s.
    Raises ValueError for an unknown rule.
    """
    batch, length = mask.shape
    if rule == "full":
        return mask[:, None, :].expand(batch, length, length)
    diagonals = {"inclusive": 0, "exclusive": -1}
    if rule not in diagonals:
        raise ValueError(f"rule must be 'inclusive', 'exclusive' or 'full', got {rule!r}")
    order = torch.ones(length, length, dtype=torch.bool, device=mask.device)
    return order.tril(diagonals[rule]) & mask[:, None, :]


def attend(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """Scaled dot-product attention, softmax(Q K^T / sqrt(d_k)) V over what is visible.

    queries, keys: (B, L, Dk). values: (B, L, D). visible: (B, L, L) bool.
    Returns (B, L, D): zeros, without gradient, for a position that sees nothing.
    """
    blind = ~visible.any(-1, keepdim=True)
    # A softmax over nothing is NaN, and so is its gradient: the blind look, and are not heard.
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible | blind)
    return attended.masked_fill(blind, 0.0)


def place(rows: Tensor, positions: Tensor | None) -> Tensor:
    """Lay rows out as sequences. rows: (N, D). positions: (B, L) row numbers. Returns (B, L, D).

    Without positions the rows are sequences already and are returned as they are.
    """
    return rows if positions is None else F.embedding(positions, rows)


class CrossAttention(nn.Module):
    """Attention with learned projections, the form shared by eq. 4, 9 and 11 of MARS.

    Queries and keys may come as sequences (B, L, D), or as the N distinct rows that the
    sequences are made of with their positions: each row is then projected once, however often
    it occurs, which in a batch of histories saves most of the work.
    """

    def __init__(self, query_width: int, key_width: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_width, width, bias=False)
        self.key = nn.Linear(key_width, width, bias=False)
        self.value = nn.Linear(key_width, width, bias=False)

    def forward(
        self, queries: Tensor, keys: Tensor, visible: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        """queries, keys: (B, L, D), or (N, D) with positions (B, L). visible: (B, L, L) bool.

        Returns (B, L, width).
        """
        return attend(
            place(self.query(queries), positions),
            place(self.key(keys), positions),
            place(self.value(keys), positions),
            visible,
        )
