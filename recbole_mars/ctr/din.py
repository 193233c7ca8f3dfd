"""Deep Interest Network (Zhou et al., KDD 2018), the base CTR model of MARS and DMAE.

Dimension letters: B batch, L history length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recbole_mars.ctr.layers import FieldEmbedding, TargetAttention, mlp

__all__ = ["DIN", "DINSettings"]

_LENGTH_GROUPS = 8  # parts that a batch is cut into by history length


@dataclass(frozen=True)
class DINSettings:
    """Sizes of DIN; the defaults are the DIN paper's.

    attention_hidden: widths of the local activation unit. dnn_hidden: widths of the final MLP.
    activation: of the final MLP. history_labels: behaviours carry whether they were liked.
    mark_borrowed: behaviours borrowed from other users carry a learned mark.
    """

    attention_hidden: Sequence[int] = (80, 40)
    dnn_hidden: Sequence[int] = (200, 80)
    activation: str = "dice"
    attention_softmax: bool = False
    dropout: float = 0.0
    history_labels: bool = False
    mark_borrowed: bool = False

    def __post_init__(self) -> None:
        if not self.dnn_hidden:
            raise ValueError("dnn_hidden must hold at least one width, got none")
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
        places, vectors = self.items.distinct(torch.cat([history, target_item[:, None]], dim=1))
        target = nn.functional.embedding(places[:, -1], vectors)
        lengths = history_mask.sum(1)
        # Samples of like length together: short histories pay for no long one's padding.
        order = lengths.argsort()
        interests = []
        for rows in order.split(-(-len(order) // _LENGTH_GROUPS)):
            width = int(lengths[rows[-1]])
            behaviours = nn.functional.embedding(places[rows, :width], vectors)
            if self.label_embedding is not None and history_labels is not None:
                behaviours = behaviours + self.label_embedding(history_labels[rows, :width].long())
            if self.borrowed_embedding is not None and borrowed is not None:
                position = torch.arange(width, device=history.device)
                flag = (position < borrowed[rows].unsqueeze(1)).long()
                behaviours = behaviours + self.borrowed_embedding(flag)
            interests.append(self.attention(target[rows], behaviours, history_mask[rows, :width]))
        interest = torch.empty_like(target).index_copy(0, order, torch.cat(interests))
        parts = [interest, target, interest * target]
        if self.users is not None:
            if user is None:
                raise ValueError("user must be given: the model was built with user features")
            parts.append(self.users(user))
        return self.score(self.dnn(torch.cat(parts, dim=1))).squeeze(1)
