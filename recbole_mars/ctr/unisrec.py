"""UniSRec as a CTR model (Hou et al., "Towards Universal Sequence Representation Learning for
Recommender Systems", KDD 2022).

Dimension letters: B batch, L history length, N distinct items, V width of a modality's features,
G experts, D width of an item vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_mars.ctr.contents import ContentVectors
from recbole_mars.ctr.din import DIN, DINSettings, History
from recbole_mars.ctr.interest_units import padded
from recbole_mars.ctr.layers import VectorTable
from recbole_mars.ctr.prediction import Prediction
from recbole_mars.ctr.similarities import Modality

__all__ = ["ExpertAdaptor", "SequenceInterest", "UniSRec", "UniSRecSettings"]

_NOISE = 0.01  # the least deviation of the gates' noise, as in the authors' code


@dataclass(frozen=True)
class UniSRecSettings:
    """The defaults are the authors', but for dropout (there 0.2 in the adaptor, 0.5 elsewhere).

    experts: G. layers, heads, inner: of the transformer, inner the width of its feed-forward part.
    dropout: of adaptor and transformer. ages: distinct positions.

    Raises ValueError for a number out of range.
    """

    experts: int = 8
    layers: int = 2
    heads: int = 2
    inner: int = 256
    dropout: float = 0.2
    ages: int = 200

    def __post_init__(self) -> None:
        for field in ("experts", "layers", "heads", "inner", "ages"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be >= 1, got {getattr(self, field)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class ExpertAdaptor(nn.Module):
    """Mixture of parametric whitenings, sum_g g_g (x - b_g) W_g (UniSRec, §2.1.2).

    The gates are softmax(x W_gate + noise), in training with normal noise of deviation
    softplus(x W_noise) + 0.01.
    """

    def __init__(self, width: int, out: int, experts: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.randn(experts, width, out) * 0.02)
        self.bias = nn.Parameter(torch.zeros(experts, width))
        self.gate = nn.Parameter(torch.zeros(width, experts))
        self.noise = nn.Parameter(torch.zeros(width, experts))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, V). Returns (N, D)."""
        logits = x @ self.gate
        if self.training:
            deviation = nn.functional.softplus(x @ self.noise) + _NOISE
            logits = logits + torch.randn_like(logits) * deviation
        # (x - b) W = x W - b W: no (N, G, V).
        whitened = torch.einsum("nv,gvd->ngd", self.dropout(x), self.weight)
        whitened = whitened - torch.einsum("gv,gvd->gd", self.bias, self.weight)
        return torch.einsum("ng,ngd->nd", logits.softmax(dim=1), whitened)


class _AddedVectors(VectorTable):
    """Two tables' vectors of the same ids, added up."""

    def __init__(self, items: VectorTable, contents: VectorTable) -> None:
        super().__init__()
        self.items, self.contents, self.width = items, contents, items.width

    def distinct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        places, vectors = self.items.distinct(ids)
        return places, vectors + self.contents.distinct(ids)[1]


class SequenceInterest(nn.Module):
    """The last output of a causal transformer over the history, zeros for an empty one.

    Layers as in SASRec: norms behind the residuals, GELU. It stands in DIN's attention's place,
    see TargetAttention, but does not look at the target.
    """

    def __init__(self, width: int, own: UniSRecSettings) -> None:
        super().__init__()
        if width % own.heads:
            raise ValueError(
                f"heads must divide the width of an item's vector, {width}, got {own.heads}; "
                "change it or embedding_size"
            )
        self.positions = nn.Embedding(own.ages, width)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(own.dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, own.heads, own.inner, own.dropout, activation="gelu", batch_first=True
            )
            for _ in range(own.layers)
        )

    def forward(
        self,
        targets: Tensor,
        behaviours: Tensor,
        target_of: Tensor,
        behaviour_of: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """See TargetAttention; returns (B, D)."""
        x, _ = padded(behaviours, behaviour_of, lengths)
        size, place = len(x), torch.arange(x.shape[1], device=x.device)
        age = lengths.unsqueeze(1) - 1 - place
        x = x + self.positions(age.clamp(0, self.positions.num_embeddings - 1))
        x = self.dropout(self.norm(x))
        # What lies behind the last behaviour is seen by none before it.
        later = place > place.unsqueeze(1)
        for layer in self.layers[:-1]:
            x = layer(x, src_mask=later)
        last = x[torch.arange(size, device=x.device), (lengths - 1).clamp(min=0)]
        real = lengths.unsqueeze(1) > 0
        return _outputs_of(self.layers[-1], last, x, (age < 0) & real) * real


def _outputs_of(layer: nn.Module, asked: Tensor, x: Tensor, hidden: Tensor) -> Tensor:
    """An nn.TransformerEncoderLayer's output for one behaviour a sample, the only one wanted.

    asked: (B, D). x: (B, L, D), what it attends to but where hidden, (B, L) bool. Returns (B, D).
    """
    part: Any = layer
    query = asked.unsqueeze(1)
    seen, _ = part.self_attn(query, x, x, key_padding_mask=hidden, need_weights=False)
    query = part.norm1(query + part.dropout1(seen))
    wide = part.dropout(part.activation(part.linear1(query)))
    return part.norm2(query + part.dropout2(part.linear2(wide))).squeeze(1)


class UniSRec(nn.Module):
    """Items are ids plus adapted features; a transformer's view of the history is the interest.

    Item encoding: ExpertAdaptor of each modality, added to the id embedding (the transductive
    setting, §2.3) on both sides, history and target. Sequence encoding: SequenceInterest (§2.1.3).

    Adapted: DIN's final network in place of the softmax of cosines over all items, and no
    pre-training on other domains, hence no contrastive tasks (§2.2). The paper reads texts; here
    each modality has an adaptor, and an item without one is its id alone. Positions are counted
    from the latest behaviour. Formulas and defaults were checked against the authors' code
    (RUCAIBox/UniSRec); the sections are named from memory of the paper.

    modalities: one or more. Raises ValueError without one, and if heads do not divide the width.
    """

    def __init__(
        self,
        items: VectorTable,
        users: VectorTable | None,
        modalities: Sequence[Modality],
        settings: DINSettings,
        own: UniSRecSettings,
    ) -> None:
        super().__init__()
        width = items.width
        contents = ContentVectors(
            modalities, width, lambda v, d: ExpertAdaptor(v, d, own.experts, own.dropout)
        )
        interest = SequenceInterest(width, own)
        self.din = DIN(_AddedVectors(items, contents), users, settings, interest)

    def forward(
        self,
        history: History,
        target_item: Tensor,
        user: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Prediction:
        """target_item, user: (B,) ids. context: (B, context_width), if that is not 0."""
        interest, target = self.din.interest(history, target_item)
        return Prediction(self.din.logits(interest, target, user, context))
