"""FRNet on a factorization machine (Wang et al., "Enhancing CTR Prediction with Context-Aware
Feature Representation Learning", SIGIR 2022).

Dimension letters: B batch, F fields, E embedding size, A width of the attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recbole_mars.ctr.din import History
from recbole_mars.ctr.layers import FieldEmbedding, check_widths, mlp
from recbole_mars.ctr.prediction import Prediction

__all__ = ["FRNet", "FRNetSettings", "FeatureRefinement", "InformationExtraction"]


@dataclass(frozen=True)
class FRNetSettings:
    """attention_width: A. hidden: widths of the MLP that reads all fields of a sample.

    Raises ValueError for a number out of range.
    """

    attention_width: int = 10
    hidden: Sequence[int] = (256,)

    def __post_init__(self) -> None:
        if self.attention_width < 1:
            raise ValueError(f"attention_width must be >= 1, got {self.attention_width}")
        check_widths("hidden", self.hidden)


class InformationExtraction(nn.Module):
    """IEU: what fields tell of each other, times what the sample as a whole tells.

    O_vec = softmax(Q K^T) V W_P, with Q, K, V = E W_Q, E W_K, E W_V; O_bit, (E,), by an MLP of
    PReLUs over all fields; O_vec · O_bit in each field.
    """

    def __init__(self, fields: int, size: int, own: FRNetSettings) -> None:
        super().__init__()
        self.width = own.attention_width
        self.projections = nn.Linear(size, 3 * self.width, bias=False)
        self.out = nn.Linear(self.width, size, bias=False)
        self.context = mlp([fields * size, *own.hidden, size], "prelu")

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, F, E). Returns (B, F, E)."""
        queries, keys, values = self.projections(x).split(self.width, dim=2)
        attended = (queries @ keys.transpose(1, 2)).softmax(dim=2) @ values
        return self.out(attended) * self.context(x.flatten(1)).unsqueeze(1)


class FeatureRefinement(nn.Module):
    """FRNet: E_r = E · s + E_g · (1 - s), s = sigmoid(W_b) (the complementary selection gate).

    E_g and W_b come of two InformationExtraction units: field vectors that depend on the sample.
    """

    def __init__(self, fields: int, size: int, own: FRNetSettings) -> None:
        super().__init__()
        self.complement = InformationExtraction(fields, size, own)
        self.gate = InformationExtraction(fields, size, own)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, F, E). Returns (B, F, E)."""
        share = self.gate(x).sigmoid()
        return x * share + self.complement(x) * (1 - share)


class FRNet(nn.Module):
    """Click logit of a factorization machine over refined fields of user and target.

    logit = w_0 + sum_f w_f + sum_{f<g} <e_f, e_g>, e the refined vectors (bit-level weights).
    Like the paper's, the model reads no history; it reads no item features either.

    The formulas are those of the paper as others quote them and of an implementation by others
    (codectr/RefineCTR); the paper's equation numbers, and whether its attention is scaled, could
    not be checked. That implementation also has batch norm and dropout in the MLP.

    items, users: embeddings of equal size, users None without user fields. item_weights,
    user_weights: w of the same fields, embeddings of size 1. context_width: numbers about each
    sample, which enter linearly.
    """

    def __init__(
        self,
        items: FieldEmbedding,
        users: FieldEmbedding | None,
        item_weights: FieldEmbedding,
        user_weights: FieldEmbedding | None,
        own: FRNetSettings,
        context_width: int = 0,
    ) -> None:
        super().__init__()
        self.items, self.users = items, users
        self.item_weights, self.user_weights = item_weights, user_weights
        self.size = items.width // items.fields
        fields = items.fields + (users.fields if users is not None else 0)
        self.refinement = FeatureRefinement(fields, self.size, own)
        self.bias = nn.Parameter(torch.zeros(1))
        self.context = nn.Linear(context_width, 1, bias=False) if context_width else None

    def forward(
        self,
        history: History,
        target_item: Tensor,
        user: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Prediction:
        """history: not read. target_item, user: (B,) ids. context: (B, context_width).

        Raises ValueError if user or context is missing where the model was built with it.
        """
        vectors, weights = [self.items(target_item)], [self.item_weights(target_item)]
        if self.users is not None and self.user_weights is not None:
            if user is None:
                raise ValueError("user must be given: the model was built with user features")
            vectors.append(self.users(user))
            weights.append(self.user_weights(user))
        logits = self.bias + torch.cat(weights, dim=1).sum(1)
        if self.context is not None:
            if context is None:
                raise ValueError("context must be given: the model was built with a context_width")
            logits = logits + self.context(context).squeeze(1)
        refined = self.refinement(torch.cat(vectors, dim=1).view(len(target_item), -1, self.size))
        pairs = refined.sum(1).square() - refined.square().sum(1)
        return Prediction(logits + pairs.sum(1) / 2)
