"""Single-head attention over padded sequences, with a stated rule of who sees whom.

Dimension letters: B batch, L length, N distinct rows, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CrossAttention", "attend", "check_padding", "place"]


def check_padding(mask: Tensor) -> None:
    """Raise ValueError unless all padding is on the right. mask: (B, L) bool, True = real."""
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError(
            "mask must have its padding on the right, got a real position after a padded one; "
            "move the behaviours to the front"
        )


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    rule: str,
    scale: float | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention, softmax(scale Q K^T) V over what each position sees.

    queries, keys, values: (B, L, D). mask: (B, L) bool, True = real, padded on the right: then
    no real position has padding before it, and the causal rules need no mask. rule: "inclusive"
    (a position sees itself and those before), "exclusive" (only those before) or "full" (all).
    scale: 1 / sqrt(D) if not given. hidden: (B, L) bool, positions that no other one sees.

    Returns (B, L, D): zeros, without gradient, for a position that sees nothing; those of padded
    positions mean nothing. Raises ValueError for an unknown rule.
    """
    if hidden is not None:
        return _attend_some(queries, keys, values, _visible(mask, hidden, rule), scale)
    if rule == "exclusive":  # what the position before it sees by itself
        q, k, v = queries[:, 1:], keys[:, :-1], values[:, :-1]
        return F.pad(attend(q, k, v, mask[:, 1:], "inclusive", scale), (0, 0, 1, 0))
    # torch's kernels that keep no (B, L, L) in memory want a dimension of heads.
    q, k, v = queries[:, None], keys[:, None], values[:, None]
    if rule == "inclusive":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).squeeze(1)
    if rule != "full":
        raise _unknown(rule)
    return _attend_some(queries, keys, values, mask[:, None, :], scale)


def _attend_some(
    queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor, scale: float | None
) -> Tensor:
    """As attend, where visible, (B, L or 1, L) bool, says which keys a position sees."""
    blind = ~visible.any(2, keepdim=True)
    # A softmax over nothing is NaN, and so is its gradient: the blind look, and are not heard.
    q, k, v = queries[:, None], keys[:, None], values[:, None]
    seen = (visible | blind)[:, None]
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    return attended.squeeze(1).masked_fill(blind, 0.0)


def _visible(mask: Tensor, hidden: Tensor, rule: str) -> Tensor:
    """Which keys a position sees, (B, L, L) bool: those that are not hidden, by the rule."""
    length = mask.shape[1]
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    others = (mask & ~hidden)[:, None, :]
    if rule == "full":
        return others | (itself & mask[:, None, :])
    earlier = torch.ones_like(itself).tril(-1)
    if rule == "exclusive":
        return others & earlier
    if rule == "inclusive":
        return (others & earlier) | itself
    raise _unknown(rule)


def _unknown(rule: str) -> ValueError:
    return ValueError(f"rule must be 'inclusive', 'exclusive' or 'full', got {rule!r}")


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

    Sequences of keys that are narrower than the attention are attended in their own width:
    (Q W_q)(K W_k)^T = (Q W_q W_k^T) K^T, and A (K W_v) = (A K) W_v.
    """

    def __init__(self, query_width: int, key_width: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_width, width, bias=False)
        self.key = nn.Linear(key_width, width, bias=False)
        self.value = nn.Linear(key_width, width, bias=False)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        mask: Tensor,
        rule: str,
        positions: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """queries, keys: (B, L, D), or (N, D) with positions (B, L). Others: as in attend.

        Returns (B, L, width).
        """
        width, key_width = self.key.weight.shape
        if positions is None and key_width < width:
            queries = F.linear(queries, self.key.weight.T @ self.query.weight)
            return self.value(attend(queries, keys, keys, mask, rule, width**-0.5, hidden))
        return attend(
            place(self.query(queries), positions),
            place(self.key(keys), positions),
            place(self.value(keys), positions),
            mask,
            rule,
            hidden=hidden,
        )
