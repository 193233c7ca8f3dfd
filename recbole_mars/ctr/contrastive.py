"""Contrastive learning of histories: CL4SRec and CoSeRec.

Xie et al., ICDE 2022, and Liu et al., arXiv 2108.06479. Both add lambda · L_cl to the model's own
loss and differ in how views are made, which is augmentation's part.

Dimension letters: N samples, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_mars.ctr.din import DIN
from recbole_mars.ctr.objectives import Objective, TrainingBatch

__all__ = ["ContrastiveObjective", "ContrastiveSettings", "info_nce"]

REPRESENTATIONS = ("pooled", "interest")
_TINY = 1e-8  # a shorter vector counts as zero, whose direction has no gradient worth having


@dataclass(frozen=True)
class ContrastiveSettings:
    """weight: lambda, 0.1 in both papers' code. temperature: of InfoNCE. representation: of a
    history, "pooled" or "interest"; see ContrastiveObjective.

    Raises ValueError for a number out of range or an unknown choice.
    """

    weight: float = 0.1
    temperature: float = 1.0
    representation: str = "pooled"

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"weight must be >= 0, got {self.weight}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")
        if self.representation not in REPRESENTATIONS:
            raise ValueError(
                f"representation must be one of {', '.join(REPRESENTATIONS)}, "
                f"got {self.representation!r}"
            )


def info_nce(first: Tensor, second: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Mean over all 2N views of -log(e^(s_p/T) / (e^(s_p/T) + sum_n e^(s_n/T))) (CoSeRec, eq. 12).

    s are cosines; p is the other view of the same sample, n runs over both views of the samples of
    other groups. The papers take all other samples for negatives: they have one history a user,
    but a batch of a CTR model holds many rows of a user with nearly the same history, which the
    loss would push apart.

    first, second: (N, D). groups: (N,) int64, such as users. Returns a scalar, 0 for N = 0 and
    where there is no negative.
    """
    n = len(first)
    if n == 0:
        return first.sum() + second.sum()
    views = F.normalize(torch.cat([first, second]), dim=1, eps=_TINY)
    scores = views @ views.t() / temperature
    groups = groups.repeat(2)
    places = torch.arange(2 * n, device=scores.device)
    partners = places.roll(n)
    left_out = groups.unsqueeze(1) == groups
    left_out[places, partners] = False
    return F.cross_entropy(scores.masked_fill(left_out, -torch.inf), partners)


class ContrastiveObjective(Objective):
    """lambda · InfoNCE between two views of each history, users being the groups.

    What represents a history? The papers' encoders see no target; DIN's interest vector is
    attention by the target, which a row's two views share. It only mixes the views' behaviours,
    but its weights can solve the task alone: they need but favour the same behaviours for the same
    target, and tell rows apart by target rather than by user. So the default, "pooled", is the
    mean of the behaviours' vectors as the attention reads them, labels included. It trains the
    embeddings, not the attention; "interest" trains both.

    A DIN has no positions: for both representations a reordered view equals the history.
    Views without behaviours take no part.
    """

    def __init__(self, settings: ContrastiveSettings) -> None:
        self.settings = settings

    def __call__(self, din: DIN, batch: TrainingBatch, interest: Tensor, target: Tensor) -> Tensor:
        if self.settings.weight == 0:
            return interest.new_zeros(())
        if self.settings.representation == "pooled":
            first, second = (din.pooled(view) for view in batch.views)
        else:
            first, second = (din.interest(view, batch.target_item)[0] for view in batch.views)
        real = batch.views[0].mask.any(1) & batch.views[1].mask.any(1)
        loss = info_nce(first[real], second[real], batch.user[real], self.settings.temperature)
        return self.settings.weight * loss
