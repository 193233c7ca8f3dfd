"""Contrastive learning of histories: CL4SRec and CoSeRec.

Xie et al., ICDE 2022, and Liu et al., arXiv 2108.06479. Both add lambda · L_cl to the model's own
loss and differ in how views are made, which is augmentation's part.

Dimension letters: N samples, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbole_mars.ctr.din import DIN
from recbole_mars.ctr.objectives import Objective, TrainingBatch

__all__ = ["ContrastiveObjective", "ContrastiveSettings", "info_nce"]

REPRESENTATIONS = ("pooled", "interest")
_BLOCK = {"cpu": 1 << 18}  # cosines at once, 1 MB: they stay in the cache
_BLOCK_ELSEWHERE = 1 << 26
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
    where there is no negative. It can be differentiated once.
    """
    if len(first) == 0:
        return first.sum() + second.sum()
    views = F.normalize(torch.cat([first, second]), dim=1, eps=_TINY)
    loss: Tensor = _InfoNCE.apply(views, groups.repeat(2), temperature)
    return loss


class _InfoNCE(torch.autograd.Function):
    """The loss and its gradient in one pass over blocks of the 2N x 2N cosines, none of which is
    kept: a block stays in the cache, where the whole matrix would be read and written many times.
    """

    @staticmethod
    def forward(ctx: Any, views: Tensor, groups: Tensor, temperature: float) -> Tensor:
        """views: (2N, D), of which row i and row i + N are of one sample. groups: (2N,)."""
        n = len(views)
        block = max(1, _BLOCK.get(views.device.type, _BLOCK_ELSEWHERE) // n)
        partners = torch.arange(n, device=views.device).roll(n // 2)
        total = views.new_zeros(())
        columns = views.t().contiguous()  # (D, 2N): products with these are several times faster
        gradient = torch.zeros_like(columns)
        with torch.autocast(views.device.type, enabled=False):
            for start in range(0, n, block):
                stop = min(start + block, n)
                own, place = views[start:stop], torch.arange(stop - start, device=views.device)
                scores = own @ columns
                partner_scores = scores[place, partners[start:stop]]
                scores.masked_fill_(groups[start:stop].unsqueeze(1) == groups, -torch.inf)
                scores[place, partners[start:stop]] = partner_scores
                scores.div_(temperature)
                highest = scores.amax(1, keepdim=True)
                shares = scores.sub_(highest).exp_()  # in place: scores are gone
                sums = shares.sum(1, keepdim=True)
                total += (sums.log() + highest).sum() - partner_scores.sum() / temperature
                shares.div_(sums)
                shares[place, partners[start:stop]] -= 1
                gradient[:, start:stop] += columns @ shares.t()
                gradient.addmm_(own.t(), shares)
        ctx.save_for_backward(gradient.t() / (n * temperature))
        return total / n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


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
