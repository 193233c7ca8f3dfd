"""DIMO on DIN (Zhang et al., "Disentangling ID and Modality Effects for Session-based
Recommendation", SIGIR 2024).

Dimension letters: B batch, L history length, K companions, J drawn items, D width of an item
vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, softplus

from recbole_mars.ctr.companions import Companions, CompanionVectors
from recbole_mars.ctr.contents import ContentVectors, linear_encoder
from recbole_mars.ctr.din import DIN, DINSettings, History
from recbole_mars.ctr.layers import VectorTable
from recbole_mars.ctr.prediction import Prediction
from recbole_mars.ctr.similarities import Modality

__all__ = ["DIMO", "DIMOSettings", "Proxy", "constraint", "counterfactual"]


@dataclass(frozen=True)
class DIMOSettings:
    """companions: K, items that each is held together with, and window, how far apart two of a
    user's behaviours occur together: what find_companions takes. layers: of the co-occurrence
    graph. negatives: J. weight: lambda, of each of the three losses.

    Raises ValueError for a number out of range.
    """

    companions: int = 10
    window: int = 5
    layers: int = 1
    negatives: int = 10
    weight: float = 0.1

    def __post_init__(self) -> None:
        for field, least in (("companions", 1), ("window", 1), ("layers", 0), ("negatives", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be >= {least}, got {getattr(self, field)}")
        if self.weight < 0:
            raise ValueError(f"weight must be >= 0, got {self.weight}")


class Proxy(nn.Module):
    """An effect lies nearer its own proxy than the other effect (DIMO's proxy mechanism).

    -log(e^a / (e^a + e^b)), a = cos(W_1 s, W_2 p), b = cos(W_3 s, W_4 o), s the effect, p its
    proxy, o the other effect.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.views = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, effect: Tensor, proxy: Tensor, other: Tensor) -> Tensor:
        """effect, proxy, other: (B, D). Returns (B,)."""
        first, second, third, fourth = self.views
        near = cosine_similarity(first(effect), second(proxy))
        return softplus(cosine_similarity(third(effect), fourth(other)) - near)


class DIMO(nn.Module):
    """Two DINs, one of ids and one of contents, whose logits are added and effects disentangled.

    Ids: item vectors on the co-occurrence graph, x + A x in each layer. Contents: projected
    features. The effects s are the branches' interests, their proxies p the means of their
    histories, and to the cross-entropy comes lambda times each of
        co-occurrence: an item lies near its companions, see constraint;
        proxy: see Proxy, for either effect;
        counterfactual: the effect of ids explains a target that co-occurs with the history, that
        of contents one that does not, see counterfactual.

    Checked against the authors' code (Zhang-xiaokun/DIMO); the paper's numbered equations could
    not be compared. Adapted: DIN's attention and final network replace self-attention and the
    product of session and item, one of each per branch; user features and context are in the
    branch of ids. Sessions are windows of training histories (the code counts test sessions, too),
    of which A keeps each item's companions. As in the code, a training target is counted with its
    own history, so that targets lie nearer to histories in training than in a test. Losses are
    means over the batch and natural logarithms (there sums, base 10, lambda 0.001, four layers,
    weights reused in one proxy), negatives are drawn (there those that co-occur least). The code
    also spreads contents over the graph, and the paper turns pictures into words; here each
    modality is projected and they are added up. An impression counts in the losses whatever its
    label, which a network is not told.

    modalities: one or more. companions: as find_companions gives them. Raises ValueError without
    a modality.
    """

    def __init__(
        self,
        items: VectorTable,
        users: VectorTable | None,
        modalities: Sequence[Modality],
        companions: Companions,
        settings: DINSettings,
        own: DIMOSettings,
    ) -> None:
        super().__init__()
        self.own = own
        width = items.width
        self.ids = DIN(CompanionVectors(items, companions, own.layers), users, settings)
        contents = ContentVectors(modalities, width, linear_encoder)
        self.modality = DIN(contents, None, replace(settings, context_width=0))
        self.id_proxy, self.modality_proxy = Proxy(width), Proxy(width)

    @property
    def vectors(self) -> CompanionVectors:
        """Items by id, on the co-occurrence graph."""
        return cast(CompanionVectors, self.ids.items)

    @property
    def contents(self) -> ContentVectors:
        """Items by content."""
        return cast(ContentVectors, self.modality.items)

    def forward(
        self,
        history: History,
        target_item: Tensor,
        user: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Prediction:
        """target_item, user: (B,) ids. context: (B, context_width), if that is not 0."""
        of_ids = self.ids.interest(history, target_item)
        of_contents = self.modality.interest(history, target_item)
        logits = self.ids.logits(*of_ids, user, context) + self.modality.logits(*of_contents)
        loss = None
        if self.training and self.own.weight:
            parts = self.losses(history, target_item, of_ids, of_contents)
            loss = self.own.weight * torch.stack(parts).sum()
        return Prediction(logits, loss)

    def losses(
        self,
        history: History,
        target_item: Tensor,
        of_ids: tuple[Tensor, Tensor],
        of_contents: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Co-occurrence, proxy and counterfactual loss, scalars; 0 where no sample counts.

        of_ids, of_contents: effect and target of either branch, (B, D) each.
        """
        (ids, id_target), (contents, content_target) = of_ids, of_contents
        real = history.mask & (history.items > 0)  # not masked ones
        behaved = real.any(1)
        proxy = self.id_proxy(ids, self.ids.pooled(history), contents)
        proxy = proxy + self.modality_proxy(contents, self.modality.pooled(history), ids)
        apart = counterfactual(
            cosine_similarity(ids, id_target),
            cosine_similarity(contents, content_target),
            self.co_occurs(history, target_item),
        )
        held = self.vectors.companions[target_item]
        drawn = torch.randint(
            1,
            len(self.vectors.companions),
            (len(target_item), self.own.negatives),
            device=held.device,
        )
        # Asked for together: each time the vectors of all items are made.
        near, far = self.vectors(torch.cat([held, drawn], 1)).tensor_split([held.shape[1]], 1)
        together = constraint(id_target, near, self.vectors.shares[target_item], far)
        seen = real & self.contents.known(history.items)
        return (
            _mean(together, (held > 0).any(1)),
            _mean(proxy, behaved),
            _mean(apart, self.contents.known(target_item) & seen.any(1)),
        )

    def co_occurs(self, history: History, target_item: Tensor) -> Tensor:
        """Whether the target is a companion of any behaviour, (B,) bool."""
        held = self.vectors.companions[history.items] == target_item[:, None, None]
        return (held.any(2) & history.mask).any(1)


def constraint(item: Tensor, companions: Tensor, shares: Tensor, drawn: Tensor) -> Tensor:
    """-log(e^c / (e^c + sum_j e^d_j)), c the cosine with the companions' mean, d with drawn items.

    item: (B, D). companions: (B, K, D). shares: (B, K). drawn: (B, J, D). Returns (B,).
    """
    mean = (shares.unsqueeze(2) * companions).sum(1)
    near = cosine_similarity(item, mean).unsqueeze(1)
    far = cosine_similarity(item.unsqueeze(1), drawn, dim=2)
    return torch.cat([near, far], dim=1).logsumexp(1) - near.squeeze(1)


def counterfactual(ids: Tensor, contents: Tensor, co_occurs: Tensor) -> Tensor:
    """-log sigmoid(x), x = ids - contents where target and history co-occur, else its opposite.

    The authors' code has +log sigmoid(ids - contents) for the latter, which pulls the same way.

    ids, contents: (B,), how near effect and target lie in either branch. co_occurs: (B,) bool.
    Returns (B,).
    """
    return softplus(torch.where(co_occurs, contents - ids, ids - contents))


def _mean(losses: Tensor, counted: Tensor) -> Tensor:
    return (losses * counted).sum() / counted.sum().clamp(min=1)
