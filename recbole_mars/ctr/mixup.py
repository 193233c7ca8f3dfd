"""Mixed histories: BASRec (Dang et al., AAAI 2025, arXiv 2412.08300), adapted to a DIN.

Dimension letters: B batch, M real behaviours, D width of an item vector, U of user features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from recbole_mars.ctr.din import DIN, History
from recbole_mars.ctr.objectives import Objective, TrainingBatch

__all__ = ["MixupObjective", "MixupSettings", "cross_loss", "mix", "mixed_interest", "reweigh"]


@dataclass(frozen=True)
class MixupSettings:
    """single_weight, cross_weight: of the two losses, 1 in the paper's code. alpha: mixing weights
    are drawn from Beta(alpha, alpha). reweight: weigh rows as reweigh does; False: all by 1.

    Raises ValueError for a number out of range.
    """

    single_weight: float = 1.0
    cross_weight: float = 1.0
    alpha: float = 0.3
    reweight: bool = True

    def __post_init__(self) -> None:
        for name in ("single_weight", "cross_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.alpha <= 0:
            raise ValueError(f"alpha must be > 0, got {self.alpha}")


def mix(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """weights · first + (1 - weights) · second, the weights broadcast."""
    return weights * first + (1 - weights) * second


def mixed_interest(
    din: DIN, history: History, view: History, weights: Tensor, target_item: Tensor
) -> tuple[Tensor, Tensor]:
    """As din.interest, over w · e(s_t) + (1 - w) · e(s'_t) at each position t.

    The behaviours are mixed, not what the attention makes of them, as in the paper: it puts both
    sequences' embeddings together before the encoder. That a reordered view differs from the
    history in a DIN, which has no positions, comes from this.

    weights: (B,), one a sample. The view has the history's lengths; raises ValueError otherwise.
    """
    if not torch.equal(history.mask.sum(1), view.mask.sum(1)):
        raise ValueError(
            "a view must be as long as its history to be mixed with it, position by position; "
            "make it by reordering or substitution"
        )
    lengths = history.mask.sum(1)
    first, second = (
        F.embedding(places, vectors)
        for vectors, places in (din.behaviours(history), din.behaviours(view))
    )
    samples = torch.arange(len(lengths), device=lengths.device)
    sample_of = samples.repeat_interleave(lengths, output_size=len(first))
    mixed = mix(first, second, weights[sample_of].unsqueeze(1))
    places = torch.arange(len(mixed), device=lengths.device)
    return din.attend(target_item, mixed, places, lengths)


def reweigh(weights: Tensor, rates: Tensor) -> Tensor:
    """1 / (w · r), brought to 0..1 over the batch by its least and its greatest value.

    A row weighs more the more of its mixture is the view (small w) and the less the view changed
    (small r). 1 / w has no bound: one row with a w near 0 may leave next to nothing to the others,
    as in the paper's code. Where all are equal, all are 1 (there: 0 / 0).

    weights, rates: (B,) float64. Returns (B,).
    """
    raw = 1 / (weights * rates).clamp(min=1e-200)
    if len(raw) == 0:
        return raw
    low, high = raw.aminmax()
    return torch.where(high > low, (raw - low) / (high - low).clamp(min=1e-300), 1.0)


def cross_loss(
    din: DIN,
    interest: Tensor,
    target: Tensor,
    users: Tensor | None,
    labels: Tensor,
    partners: Tensor,
    weights: Tensor,
) -> Tensor:
    """Cross-entropy of each row mixed with its partner, the label mixed likewise.

    Interest, target and user features are mixed; their product comes after, so the mixture is no
    sum of what the final network sees of either row. With one weight for each feature, what has
    no such feature (user features, the label) takes the row's mean weight.

    interest, target: (B, D). users: (B, U). labels: (B,). partners: (B,) int64, a row each.
    weights: (B, 1), one a row, or (B, D), one a feature. Returns a scalar.
    """
    mean = weights.mean(1)
    labels = mix(labels, labels[partners], mean)
    if users is not None:
        users = mix(users, users[partners], mean.unsqueeze(1))
    logits = din.decide(
        mix(interest, interest[partners], weights), mix(target, target[partners], weights), users
    )
    return F.binary_cross_entropy_with_logits(logits, labels)


class MixupObjective(Objective):
    """Both of BASRec's losses, after the paper and its code (github.com/KingGugu/BASRec).

    Single-sequence: each view (a reordered stretch, M-Reorder, or substituted items, M-Substitute)
    is mixed with its history, w ~ Beta(alpha, alpha) for a row; the mixture has to predict the
    row's label, rows weighed by reweigh. Two views a row, their losses added. Taken over as it is,
    but that the encoder is DIN's attention.

    Cross-sequence: rows are mixed with those of a random permutation, once with one weight for
    each row (the code's item-wise mixing, a DIN having one vector for a sequence) and once with
    one for each feature; the losses are added. The code mixes positive with positive and negative
    with negative targets and scores by a product; a CTR row has one target with a label, so here
    labels are mixed too, and the final network scores.

    The final network's batch statistics of mixtures are not tracked: evaluation never sees any.
    Mixing weights are drawn from torch's global generator of the CPU.
    """

    def __init__(self, settings: MixupSettings) -> None:
        self.settings = settings

    def __call__(self, din: DIN, batch: TrainingBatch, interest: Tensor, target: Tensor) -> Tensor:
        loss = interest.new_zeros(())
        users = din.user_vectors(batch.user, batch.context)
        labels = batch.labels.to(interest.dtype)
        with _untracked(din):
            if self.settings.single_weight > 0:
                for view, rates in zip(batch.views, batch.rates):
                    loss = loss + self.settings.single_weight * self._single(
                        din, batch, view, rates, users, labels
                    )
            if self.settings.cross_weight > 0:
                for width in (1, interest.shape[1]):
                    partners = torch.randperm(len(labels)).to(labels.device)
                    weights = self._draw(len(labels), width).to(interest)
                    loss = loss + self.settings.cross_weight * cross_loss(
                        din, interest, target, users, labels, partners, weights
                    )
        return loss

    def _single(
        self,
        din: DIN,
        batch: TrainingBatch,
        view: History,
        rates: Tensor,
        users: Tensor | None,
        labels: Tensor,
    ) -> Tensor:
        drawn = self._draw(len(labels)).to(labels.device)
        interest, target = mixed_interest(
            din, batch.history, view, drawn.to(labels.dtype), batch.target_item
        )
        logits = din.decide(interest, target, users)
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        if self.settings.reweight:
            losses = losses * reweigh(drawn, rates.double()).to(losses.dtype)
        return losses.mean()

    def _draw(self, *shape: int) -> Tensor:
        """Mixing weights, never 0: float64 on the CPU, whose random state a resumed run has."""
        alpha = torch.tensor(self.settings.alpha, dtype=torch.float64)
        drawn: Tensor = torch.distributions.Beta(alpha, alpha).sample(shape)
        return drawn.clamp(min=1e-30)


@contextmanager
def _untracked(module: nn.Module) -> Iterator[None]:
    """Within it batch norms use the batch's statistics and leave the running ones as they are."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
