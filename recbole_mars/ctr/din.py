"""Deep Interest Network (Zhou et al., KDD 2018), the base CTR model of MARS and DMAE.

Dimension letters: B batch, L history length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recbole_mars.ctr.layers import FieldEmbedding, TargetAttention, distinct, mlp

__all__ = ["DIN", "DINSettings"]


@dataclass(frozen=True)
class DINSettings:
    """Sizes of DIN; the defaults are the DIN paper's.

    attention_hidden: widths of the local activation unit. dnn_hidden: widths of the final MLP.
    activation: of the final MLP. history_labels: behaviours carry whether they were liked.
    mark_borrowed: behaviours borrowed from other users carry a learned mark. precision: "float32",
    or "bfloat16" for the products of the attention's unit, which are nearly all of the work; sums,
    weights and all else stay in float32.
    """

    attention_hidden: Sequence[int] = (80, 40)
    dnn_hidden: Sequence[int] = (200, 80)
    activation: str = "dice"
    attention_softmax: bool = False
    dropout: float = 0.0
    history_labels: bool = False
    mark_borrowed: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        if not self.dnn_hidden:
            raise ValueError("dnn_hidden must hold at least one width, got none")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, got {self.precision!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class DIN(nn.Module):
    """Click logit of a target item from the user's history, by target attention.

    items embeds items, users (or None) the user's own features. The final MLP takes the user's
    interest in the target, the target, their product and the user's features.
    """

    def __init__(
        self, items: FieldEmbedding, users: FieldEmbedding | None, settings: DINSettings
    ) -> None:
        super().__init__()
        self.settings = settings
        self.items = items
        self.users = users
        width = items.width
        self.attention = TargetAttention(
            width, settings.attention_hidden, settings.attention_softmax
        )
        # A behaviour's label and origin are added to its item vector: one row per case.
        self.label_embedding = nn.Embedding(2, width) if settings.history_labels else None
        self.borrowed_embedding = nn.Embedding(2, width) if settings.mark_borrowed else None
        for table in (self.label_embedding, self.borrowed_embedding):
            if table is not None:
                nn.init.normal_(table.weight, std=width**-0.5 * 0.1)
        user_width = users.width if users is not None else 0
        self.dnn = mlp(
            [3 * width + user_width, *settings.dnn_hidden], settings.activation, settings.dropout
        )
        self.score = nn.Linear(settings.dnn_hidden[-1], 1)

    def forward(
        self,
        history: Tensor,
        history_mask: Tensor,
        target_item: Tensor,
        user: Tensor | None = None,
        history_labels: Tensor | None = None,
        borrowed: Tensor | None = None,
    ) -> Tensor:
        """history: (B, L) item ids. history_mask: (B, L) bool, True = real. target_item: (B,).

        user: (B,) ids, needed if the model has user features. history_labels: (B, L) 0 or 1,
        needed with the setting of that name. borrowed: (B,) how many of the first behaviours
        come from other users. Returns logits (B,).
        """
        if self.label_embedding is not None and history_labels is None:
            raise ValueError("history_labels must be given: the model was built with them")
        if self.borrowed_embedding is not None and borrowed is None:
            raise ValueError("borrowed must be given: the model was built to mark it")
        lengths = history_mask.sum(1)
        # All vectors are made once, however often a batch holds them.
        places, vectors = self.items.distinct(torch.cat([history[history_mask], target_item]))
        behaviour_of, target_of = places.split([len(places) - len(target_item), len(target_item)])
        asked, target_of = torch.unique(target_of, return_inverse=True)
        targets = vectors[asked]
        behaviours, behaviour_of = self._mark(
            vectors, behaviour_of, history_mask, history_labels, borrowed
        )
        device = targets.device.type
        enabled = self.settings.precision == "bfloat16" or torch.is_autocast_enabled(device)
        dtype = torch.bfloat16 if self.settings.precision == "bfloat16" else None
        with torch.autocast(device, dtype, enabled):
            interest = self.attention(targets, behaviours, target_of, behaviour_of, lengths)
        target = targets[target_of]
        parts = [interest, target, interest * target]
        if self.users is not None:
            if user is None:
                raise ValueError("user must be given: the model was built with user features")
            parts.append(self.users(user))
        return self.score(self.dnn(torch.cat(parts, dim=1))).squeeze(1)

    def _mark(
        self,
        vectors: Tensor,
        behaviour_of: Tensor,
        history_mask: Tensor,
        history_labels: Tensor | None,
        borrowed: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Add labels and origins to item vectors: one row for each case that may occur.

        vectors: (N, D). behaviour_of: (M,). Returns behaviours (K, D) and behaviour_of (M,).
        """
        tables, cases = [], []
        if self.label_embedding is not None and history_labels is not None:
            tables.append(self.label_embedding.weight)
            cases.append(history_labels[history_mask].long())
        if self.borrowed_embedding is not None and borrowed is not None:
            position = torch.arange(history_mask.shape[1], device=borrowed.device)
            tables.append(self.borrowed_embedding.weight)
            cases.append((position < borrowed.unsqueeze(1))[history_mask].long())
        behaviours = vectors
        for table, case in zip(tables, cases):
            code, behaviour_of = distinct(
                behaviour_of * len(table) + case, len(behaviours) * len(table)
            )
            behaviours = behaviours[code // len(table)] + table[code % len(table)]
        return behaviours, behaviour_of
