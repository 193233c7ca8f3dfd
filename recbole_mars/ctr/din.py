"""Deep Interest Network (Zhou et al., KDD 2018), the base CTR model of MARS and DMAE.

Dimension letters: B batch, L history length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recbole_mars.ctr.layers import (
    ACTIVATIONS,
    TargetAttention,
    VectorTable,
    check_widths,
    distinct,
    mlp,
)
from recbole_mars.ctr.weighted_sum import mean_of_samples

_AGES = 8  # powers of two that the age of a behaviour is told by

__all__ = ["DIN", "DINSettings", "History", "extended"]


class History(NamedTuple):
    """What a batch's users did before.

    items: (B, L) ids. mask: (B, L) bool, True = real. labels: (B, L) 0 or 1, needed with the
    setting history_labels. borrowed: (B,) how many of the first behaviours come from other users,
    needed with mark_borrowed.
    """

    items: Tensor
    mask: Tensor
    labels: Tensor | None = None
    borrowed: Tensor | None = None

    def chosen(self, samples: Tensor) -> History:
        """The histories of these samples, in their order. samples: (N,) int64."""
        parts = (None if part is None else part[samples] for part in self[2:])
        return History(self.items[samples], self.mask[samples], *parts)


@dataclass(frozen=True)
class DINSettings:
    """Sizes of DIN; the defaults are the DIN paper's.

    attention_hidden: widths of the local activation unit. dnn_hidden: widths of the final MLP.
    activation: of the final MLP. history_labels: behaviours carry whether they were liked.
    mark_borrowed: behaviours borrowed from other users carry a learned mark. mark_age: so do those
    with 0, 1-2, 3-6, ... behaviours after them: a DIN knows no order. context_width: how
    many numbers about each sample the final MLP reads beside all this. precision: "float32",
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
    mark_age: bool = False
    context_width: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_widths("attention_hidden", self.attention_hidden)
        check_widths("dnn_hidden", self.dnn_hidden)
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}, got {self.activation!r}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, got {self.precision!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class DIN(nn.Module):
    """Click logit of a target item from the user's history, by target attention.

    items embeds items, users (or None) the user's own features. The final MLP takes the user's
    interest in the target, the target, their product and the user's features. attention: what
    finds the interest in place of a TargetAttention, and is called like it; see interest_units.
    """

    def __init__(
        self,
        items: VectorTable,
        users: VectorTable | None,
        settings: DINSettings,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.items = items
        self.users = users
        width = items.width
        if attention is None:
            attention = TargetAttention(
                width, settings.attention_hidden, settings.attention_softmax
            )
        self.attention = attention
        # A behaviour's label and origin are added to its item vector: one row per case.
        self.label_embedding = nn.Embedding(2, width) if settings.history_labels else None
        self.borrowed_embedding = nn.Embedding(2, width) if settings.mark_borrowed else None
        self.age_embedding = nn.Embedding(_AGES, width) if settings.mark_age else None
        for table in (self.label_embedding, self.borrowed_embedding, self.age_embedding):
            if table is not None:
                nn.init.normal_(table.weight, std=width**-0.5 * 0.1)
        extra = (users.width if users is not None else 0) + settings.context_width
        self.dnn = mlp(
            [3 * width + extra, *settings.dnn_hidden], settings.activation, settings.dropout
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
        context: Tensor | None = None,
    ) -> Tensor:
        """history, history_mask, history_labels, borrowed: see History. target_item: (B,).

        user: (B,) ids, needed if the model has user features. context: (B, context_width), needed
        if that is not 0. Returns logits (B,).
        """
        past = History(history, history_mask, history_labels, borrowed)
        return self.logits(*self.interest(past, target_item), user, context)

    def interest(self, history: History, target_item: Tensor) -> tuple[Tensor, Tensor]:
        """Each user's interest in the target (DIN, eq. 3) and the target's vector, both (B, D)."""
        self._check_given(history)
        # All vectors are made once, however often a batch holds them.
        places, vectors = self.items.distinct(torch.cat([history.items[history.mask], target_item]))
        behaviour_of, target_of = places.split([len(places) - len(target_item), len(target_item)])
        behaviours, behaviour_of = self._mark(vectors, behaviour_of, history)
        return self._attend(vectors, target_of, behaviours, behaviour_of, history.mask.sum(1))

    @property
    def shares_histories(self) -> bool:
        """Whether interest_in_candidates can be asked."""
        return isinstance(self.attention, TargetAttention) and self.settings.precision == "float32"

    def interest_in_candidates(
        self, history: History, candidates: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """As interest, for several targets of each history; without gradients.

        Equal to repeating each history, and nearly twice as fast. Only where shares_histories.

        history: of R users. candidates: (B,) ids, those of the first user first. counts: of each
        user's, their sum is B. Returns (B, D) twice.
        """
        attention = self.attention
        assert isinstance(attention, TargetAttention)
        behaviours, behaviour_of = self.behaviours(history)
        lengths = history.mask.sum(1).tolist()
        targets = self.items(candidates)
        interests = [
            attention.of_candidates(own, behaviours[places])
            for own, places in zip(targets.split(list(counts)), behaviour_of.split(lengths))
        ]
        return torch.cat(interests), targets

    def logits(
        self,
        interest: Tensor,
        target: Tensor,
        user: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """The final network. interest, target: (B, D); the rest: see forward. Returns (B,)."""
        return self.decide(interest, target, self.user_vectors(user, context))

    def user_vectors(self, user: Tensor | None, context: Tensor | None = None) -> Tensor | None:
        """The user's own features and the context, (B, U); None for a model without both."""
        parts = []
        if self.users is not None:
            if user is None:
                raise ValueError("user must be given: the model was built with user features")
            parts.append(self.users(user))
        if self.settings.context_width:
            if context is None:
                raise ValueError("context must be given: the model was built with a context_width")
            parts.append(context)
        return torch.cat(parts, dim=1) if parts else None

    def decide(self, interest: Tensor, target: Tensor, users: Tensor | None) -> Tensor:
        """The final network on vectors. interest, target: (B, D). users: (B, U). Returns (B,)."""
        parts = [interest, target, interest * target]
        if users is not None:
            parts.append(users)
        return self.score(self.dnn(torch.cat(parts, dim=1))).squeeze(1)

    def behaviours(self, history: History) -> tuple[Tensor, Tensor]:
        """Vectors of the real behaviours as the attention reads them, packed by sample.

        Returns the distinct ones (K, D), and which of them each behaviour is, (M,).
        """
        self._check_given(history)
        places, vectors = self.items.distinct(history.items[history.mask])
        return self._mark(vectors, places, history)

    def pooled(self, history: History) -> Tensor:
        """Mean of the behaviours' vectors, whatever the target: (B, D), zeros for no behaviour."""
        return mean_of_samples(*self.behaviours(history), history.mask.sum(1))

    def attend(
        self, target_item: Tensor, behaviours: Tensor, behaviour_of: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As interest, from behaviours of any origin; see TargetAttention for their form."""
        target_of, vectors = self.items.distinct(target_item)
        return self._attend(vectors, target_of, behaviours, behaviour_of, lengths)

    def _attend(
        self,
        vectors: Tensor,
        target_of: Tensor,
        behaviours: Tensor,
        behaviour_of: Tensor,
        lengths: Tensor,
    ) -> tuple[Tensor, Tensor]:
        asked, target_of = torch.unique(target_of, return_inverse=True)
        targets = vectors[asked]
        device = targets.device.type
        enabled = self.settings.precision == "bfloat16" or torch.is_autocast_enabled(device)
        dtype = torch.bfloat16 if self.settings.precision == "bfloat16" else None
        with torch.autocast(device, dtype, enabled):
            interest = self.attention(targets, behaviours, target_of, behaviour_of, lengths)
        return interest.to(targets.dtype), targets[target_of]

    def _check_given(self, history: History) -> None:
        if self.label_embedding is not None and history.labels is None:
            raise ValueError("history_labels must be given: the model was built with them")
        if self.borrowed_embedding is not None and history.borrowed is None:
            raise ValueError("borrowed must be given: the model was built to mark it")

    def _mark(
        self, vectors: Tensor, behaviour_of: Tensor, history: History
    ) -> tuple[Tensor, Tensor]:
        """Add labels and origins to item vectors: one row for each case that may occur.

        vectors: (N, D). behaviour_of: (M,). Returns behaviours (K, D) and behaviour_of (M,).
        """
        tables, cases = [], []
        if self.label_embedding is not None and history.labels is not None:
            tables.append(self.label_embedding.weight)
            cases.append(history.labels[history.mask].long())
        if self.borrowed_embedding is not None and history.borrowed is not None:
            position = torch.arange(history.mask.shape[1], device=history.borrowed.device)
            tables.append(self.borrowed_embedding.weight)
            cases.append((position < history.borrowed.unsqueeze(1))[history.mask].long())
        if self.age_embedding is not None:
            lengths = history.mask.sum(1, keepdim=True)
            ages = (lengths - history.mask.cumsum(1))[history.mask]
            tables.append(self.age_embedding.weight)
            power = (ages + 1).float().frexp().exponent.long() - 1  # exact, unlike log2
            cases.append(power.clamp(max=_AGES - 1))
        behaviours = vectors
        for table, case in zip(tables, cases):
            code, behaviour_of = distinct(
                behaviour_of * len(table) + case, len(behaviours) * len(table)
            )
            behaviours = behaviours[code // len(table)] + table[code % len(table)]
        return behaviours, behaviour_of


def extended(context: Tensor | None, more: Tensor) -> Tensor:
    """The context with more numbers behind it. context: (B, C) or None. more: (B, W)."""
    return more if context is None else torch.cat([context, more], dim=1)
