"""DMAE's interest-distribution decoding (Zhang et al., §4.3): a loss that only training has.

Dimension letters: N behaviours of the batch, B samples, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_mars.ctr.interest_fusion import mean_within
from recbole_mars.ctr.similarities import Similarities

__all__ = ["InterestDecoder", "interest_distribution"]

DECODERS = ("softmax", "sigmoid")


def interest_distribution(similarities: Similarities, times: int, levels: int) -> Tensor:
    """Share of a sample's behaviours in each cell of time and similarity (DMAE, eq. 10).

    A history is cut into `times` stretches of equal length, the oldest first, and [0, 1] into
    `levels` intervals, [0, 1/n] and ((j - 1)/n, j/n]. Returns (B, times · levels), rows of sum 1,
    or of zeros without behaviours.
    """
    counts = similarities.counts()
    starts = counts.cumsum(0) - counts
    sample_of = similarities.sample_of
    place = torch.arange(len(sample_of), device=sample_of.device) - starts[sample_of]
    time = place * times // counts[sample_of]
    cell = (sample_of * times + time) * levels + similarities.levels(levels)
    cells = torch.bincount(cell, minlength=similarities.size * times * levels)
    return cells.view(similarities.size, -1) / counts.clamp(min=1).unsqueeze(1)


class InterestDecoder(nn.Module):
    """Tells the interest distribution from the interests (DMAE, eq. 11-13), in one modality.

    times, levels: l and n, the cells. mask: share of the behaviours that are left out at random.
    output: "softmax" over the cells, or "sigmoid" of each, as printed. With the latter,
    KL(P || Q) = sum p log(p / q) has no minimum at Q = P: it falls as all q rise towards 1.

    Raises ValueError for another output.
    """

    def __init__(
        self, width: int, times: int, levels: int, mask: float, output: str = "softmax"
    ) -> None:
        super().__init__()
        if output not in DECODERS:
            raise ValueError(f"output must be one of {', '.join(DECODERS)}, got {output!r}")
        self.times, self.levels, self.mask, self.output = times, levels, mask, output
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, times * levels)
        )

    def forward(self, interests: Tensor, similarities: Similarities) -> Tensor:
        """Mean divergence of the samples of which a behaviour is left, a scalar; 0 if of none.

        interests: (N, D), of the same behaviours.
        """
        truth = interest_distribution(similarities, self.times, self.levels).to(interests.dtype)
        sample_of = similarities.sample_of
        if self.mask > 0:
            kept = torch.rand(len(interests), device=interests.device) >= self.mask
            interests, sample_of = interests[kept], sample_of[kept]
        counts = torch.bincount(sample_of, minlength=similarities.size)
        shown = counts > 0
        truth, means = truth[shown], mean_within(interests, counts)[shown]
        logits = self.layers(means)
        if self.output == "softmax":
            log_q = logits.log_softmax(dim=1)
        else:
            log_q = nn.functional.logsigmoid(logits)
        divergence = torch.xlogy(truth, truth) - truth * log_q
        return divergence.sum() / max(1, len(truth))
