"""LRD on DIN (Yang et al., "Sequential Recommendation with Latent Relations based on Large Language
Model", SIGIR 2024).

Dimension letters: B batch, M behaviours of the batch, K distinct behaviours, R relations, D width
of an item vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recbole_mars.ctr.contents import ContentVectors, linear_encoder
from recbole_mars.ctr.din import DIN, DINSettings, History, extended
from recbole_mars.ctr.layers import VectorTable, logsumexp_within, softmax_within
from recbole_mars.ctr.prediction import Prediction
from recbole_mars.ctr.similarities import Modality
from recbole_mars.ctr.weighted_sum import weighted_sum

__all__ = ["LRD", "LRDSettings", "reconstruction_loss"]


@dataclass(frozen=True)
class LRDSettings:
    """The defaults are the authors'. relations: R. width: of the projected features. weight:
    lambda, of the discovery loss. entropy: alpha, of the relations' entropy. inferred: the weights
    of the history count p(r | j, i), too.

    Raises ValueError for a number out of range.
    """

    relations: int = 8
    width: int = 64
    weight: float = 10.0
    entropy: float = 0.1
    inferred: bool = False

    def __post_init__(self) -> None:
        for field in ("relations", "width"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be >= 1, got {getattr(self, field)}")
        if self.weight < 0:
            raise ValueError(f"weight must be >= 0, got {self.weight}")


class LRD(nn.Module):
    """A DIN that also reads its history through latent relations, which texts help to discover.

    Relation extraction, from the projected features e of behaviour j and target i:
        p(r | j, i) = softmax_r(W [e_j; e_i] + b)
    Item reconstruction, of j from i and r, against an item j' drawn at random:
        phi(j, r, i) = <v_j, w, v_i> + <v_j, w> + <v_i, w>,  w = p(r | j, i) · r
        L = -mean_r log mean_j sigmoid(phi(j, r, i) - phi(j', r, i)) + alpha · mean(-p log p)
    with v the item embeddings and r the relation vectors that the recommender has, too:
        m_r = sum_j softmax_j(<v_j, r, v_i>) v_j,
    the history as relation r weighs it. The final network reads mean_r m_r beside DIN's interest.

    All this is as in the authors' code (ysh-1998/LRD, its KDAPlus and RCFPlus), in which texts act
    through the loss alone; with inferred, p(r | j, i) multiplies the weights before they are
    normalised. The code adds the entropy to the loss, which makes relations certain; a negative
    alpha raises it, as the lower bound of a discrete variational auto-encoder would. The paper's
    numbered equations could not be compared.

    Adapted: all modalities are projected and added up; the loss counts pairs in which both items
    have features, of clicked and other targets alike, as a network is not told the label; j' is
    drawn from all items, so that it may be one that the user met; relations are latent only, there
    being no knowledge graph; and what follows m_r in those models (self-attention over relations,
    temporal decay) is left to them, DIN being the backbone.

    modalities: one or more. settings: of the DIN, whose context_width m comes on top of. Raises
    ValueError without a modality.
    """

    def __init__(
        self,
        items: VectorTable,
        users: VectorTable | None,
        modalities: Sequence[Modality],
        settings: DINSettings,
        own: LRDSettings,
    ) -> None:
        super().__init__()
        self.own = own
        width = items.width
        self.din = DIN(
            items, users, replace(settings, context_width=settings.context_width + width)
        )
        self.contents = ContentVectors(modalities, own.width, linear_encoder)
        # W of behaviour and target side by side: found once an item, not once a pair.
        self.extraction = nn.Linear(own.width, 2 * own.relations, bias=False)
        self.extraction_bias = nn.Parameter(torch.zeros(own.relations))
        self.relations = nn.Parameter(torch.randn(own.relations, width) * width**-0.5)

    def forward(
        self,
        history: History,
        target_item: Tensor,
        user: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Prediction:
        """target_item, user: (B,) ids. context: (B, context_width), if that is not 0."""
        interest, target = self.din.interest(history, target_item)
        related = self.related(history, target_item, target)
        logits = self.din.logits(interest, target, user, extended(context, related))
        loss = None
        if self.training and self.own.weight:
            loss = self.own.weight * self.discovery(history, target_item)
        return Prediction(logits, loss)

    def related(self, history: History, target_item: Tensor, target: Tensor) -> Tensor:
        """mean_r m_r, (B, D). target: (B, D), the targets' vectors."""
        behaviours, behaviour_of = self.din.behaviours(history)
        sample_of = history.mask.nonzero(as_tuple=True)[0]
        scores = (behaviours[behaviour_of] * target[sample_of]) @ self.relations.T
        if self.own.inferred:
            items = history.items[history.mask]
            scores = scores + self.log_relations(items, target_item[sample_of])
        groups, group = _by_relation(sample_of, len(target), len(self.relations))
        shares = softmax_within(scores.flatten(), group, groups).view_as(scores).mean(1)
        return weighted_sum(shares, behaviours, behaviour_of, sample_of, len(target))

    def log_relations(self, behaviour: Tensor, target: Tensor) -> Tensor:
        """log p(r | j, i). behaviour, target: (M,) ids. Returns (M, R)."""
        (first, second), contents = self.contents.distinct(torch.stack([behaviour, target]))
        of_behaviour, of_target = self.extraction(contents).chunk(2, dim=1)
        logits = of_behaviour[first] + of_target[second] + self.extraction_bias
        return logits.log_softmax(dim=1)

    def discovery(self, history: History, target_item: Tensor) -> Tensor:
        """The loss of relation extraction and item reconstruction, a scalar; 0 without a pair."""
        sample_of = history.mask.nonzero(as_tuple=True)[0]
        behaviour, target = history.items[history.mask], target_item[sample_of]
        known = self.contents.known(behaviour) & self.contents.known(target)
        behaviour, target, sample_of = behaviour[known], target[known], sample_of[known]
        other = torch.randint_like(behaviour, 1, self.contents.n_ids)
        mine, theirs, aim = self.din.items(torch.stack([behaviour, other, target]))
        log_p = self.log_relations(behaviour, target)
        return reconstruction_loss(
            log_p, self.relations, mine, theirs, aim, sample_of, self.own.entropy
        )


def reconstruction_loss(
    log_p: Tensor,
    relations: Tensor,
    behaviour: Tensor,
    other: Tensor,
    target: Tensor,
    sample_of: Tensor,
    entropy: float,
) -> Tensor:
    """L of LRD over M pairs of behaviour and target.

    log_p: (M, R). relations: (R, D). behaviour, other, target: (M, D), the vectors of j, j' and i.
    sample_of: (M,) int64, ascending. Returns a scalar, 0 for no pair.
    """
    if len(sample_of) == 0:
        return log_p.sum()
    p = log_p.exp()
    # phi(j) - phi(j') = p · <v_j - v_j', r · (1 + v_i)>: what i alone says cancels.
    margin = p * (((behaviour - other) * (1 + target)) @ relations.T)
    _, sample, counts = sample_of.unique(return_inverse=True, return_counts=True)
    # log mean_j sigmoid by logarithms: of margins far below 0 the mean itself is 0.
    groups, group = _by_relation(sample, len(counts), margin.shape[1])
    won = logsumexp_within(nn.functional.logsigmoid(margin).flatten(), group, groups)
    won = won.view(len(counts), -1) - counts.unsqueeze(1).log()
    return -won.mean() - entropy * (p * log_p).mean()


def _by_relation(sample_of: Tensor, samples: int, relations: int) -> tuple[int, Tensor]:
    """Groups of a sample and a relation: their number, and the group of each of (M, R) scores."""
    group = sample_of.unsqueeze(1) * relations
    group = group + torch.arange(relations, device=sample_of.device)
    return samples * relations, group.flatten()
