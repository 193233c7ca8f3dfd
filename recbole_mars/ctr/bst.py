"""Behavior Sequence Transformer (Chen et al., DLP-KDD 2019) as a unit that finds interests.

Dimension letters: B batch, S places (target and behaviours), Q asking places, D width of an item
vector, H heads, W width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recbole_mars.ctr.interest_units import padded

__all__ = ["BSTSettings", "TransformerBlock", "TransformerInterest"]


@dataclass(frozen=True)
class BSTSettings:
    """heads: of the attention. blocks: stacked; the paper found one best. dropout: of eq. 5-6.

    positions: places before the target that are told apart; those further back are one.

    Raises ValueError for a number out of range.
    """

    heads: int = 2
    blocks: int = 1
    dropout: float = 0.0
    positions: int = 200

    def __post_init__(self) -> None:
        for field in ("heads", "blocks", "positions"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be >= 1, got {getattr(self, field)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class TransformerBlock(nn.Module):
    """Self-attention and a layer at each place (BST, eq. 1-6), of the places that ask.

    S' = LayerNorm(E + Dropout(MH(E))), F = LayerNorm(S' + Dropout(LeakyReLU(S' W1 + b1) W2 + b2)).
    The paper names no inner width: it is 4 D, as in the transformer. Heads are D / H wide, rounded
    up, so that any number of them goes with any D.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * -(-width // heads)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.join = nn.Linear(inner, width, bias=False)
        self.attended = nn.LayerNorm(width)
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.LeakyReLU(), nn.Linear(4 * width, width)
        )
        self.processed = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, asking: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """asking: (B, Q, D), some of places: (B, S, D). mask: (B, S) bool. Returns (B, Q, D)."""
        queries = self._split(self.query(asking))
        keys, values = self._split(self.key(places)), self._split(self.value(places))
        seen = mask[:, None, None]
        heads = nn.functional.scaled_dot_product_attention(queries, keys, values, seen)
        joined = self.join(heads.transpose(1, 2).flatten(2))
        found = self.attended(asking + self.dropout(joined))
        return self.processed(found + self.dropout(self.layers(found)))

    def _split(self, x: Tensor) -> Tensor:
        """(B, S, H · W) gives (B, H, S, W)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class TransformerInterest(nn.Module):
    """What a transformer over behaviours and target makes of the target's place (BST, eq. 1-8).

    Departures: a place's position is its count of behaviours back from the target (0), not of
    seconds, which histories do not carry, and its vector is added, not put beside the item's, so
    that the result is as wide as an item vector; and the final network, DIN's, reads the result at
    the target's place alone, where the paper's reads all of them: there histories are 20 long, here
    of any length. In the last block only the target asks, so that one block costs O(L).
    """

    def __init__(self, width: int, settings: BSTSettings) -> None:
        super().__init__()
        self.positions = nn.Embedding(settings.positions + 1, width)
        nn.init.normal_(self.positions.weight, std=width**-0.5 * 0.1)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, settings.heads, settings.dropout)
            for _ in range(settings.blocks)
        )

    def forward(
        self,
        targets: Tensor,
        behaviours: Tensor,
        target_of: Tensor,
        behaviour_of: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """See TargetAttention. Returns (B, D); of an empty history, what the target says alone."""
        vectors, mask = padded(behaviours, behaviour_of, lengths)
        places = torch.cat([targets[target_of].unsqueeze(1), vectors], dim=1)
        mask = nn.functional.pad(mask, (1, 0), value=True)
        order = torch.arange(places.shape[1], device=lengths.device)
        back = (lengths.unsqueeze(1) + 1 - order).clamp(0, self.positions.num_embeddings - 1)
        back[:, 0] = 0
        places = places + self.positions(back)
        for block in self.blocks[:-1]:
            places = block(places, places, mask)
        return self.blocks[-1](places[:, :1], places, mask).squeeze(1)
