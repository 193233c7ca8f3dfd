"""Fusion of the modalities, then of content and behaviour (MARS, eq. 9 to 11).

Dimension letters: B batch, L length, N distinct items, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from recbole_mars.alignment.attention import CrossAttention, place

__all__ = ["CollaborativeFusion", "CrossModalFusion"]


class CrossModalFusion(nn.Module):
    """Let the images ask the texts (MARS, eq. 9 and 10).

    emb_attn  = CrossAttention(emb_img, emb_txt)     image as query, text as keys and values
    emb_fused = LayerNorm(emb_img + emb_attn)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = CrossAttention(width, width, width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        mask: Tensor,
        rule: str,
        positions: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """image, text: (B, L, D), or (N, D) with positions (B, L). Others: as in attend.

        Returns (B, L, D).
        """
        attended = self.attention(image, text, mask, rule, positions, hidden)
        return self.norm(place(image, positions) + attended)


class CollaborativeFusion(nn.Module):
    """Let the content of an item ask the behaviours before it (MARS, eq. 11).

    residual=True:  emb_item = LayerNorm(emb_fused + CrossAttention(emb_fused, emb_id))
    residual=False: emb_item = CrossAttention(emb_fused, emb_id), as printed

    Departure: as printed, content only weighs the behaviours. The target itself would reach its
    score as a query and no more, and a user's first behaviour, which has nothing to look back
    on, would be embedded as zeros. The residual connection of eq. 10 mends both.
    """

    def __init__(self, width: int, id_width: int, residual: bool = True) -> None:
        super().__init__()
        self.attention = CrossAttention(width, id_width, width)
        self.norm = nn.LayerNorm(width) if residual else None

    def forward(
        self, fused: Tensor, ids: Tensor, mask: Tensor, rule: str, hidden: Tensor | None = None
    ) -> Tensor:
        """fused: (B, L, D). ids: (B, L, id_width). Others: as in attend. Returns (B, L, D)."""
        attended = self.attention(fused, ids, mask, rule, hidden=hidden)
        return attended if self.norm is None else self.norm(fused + attended)
