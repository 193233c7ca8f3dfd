"""Sums of item vectors over histories of any length, without padding.

Dimension letters: M behaviours of all samples, B samples, K distinct behaviours, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["mean_of_samples", "samples_of", "weighted_sum"]

_PIECE = {"cpu": 1 << 19}  # numbers gathered at once, 2 MB in float32: they stay in the cache
_PIECE_ELSEWHERE = 1 << 27


def samples_of(lengths: Tensor, number: int) -> Tensor:
    """The sample that each behaviour belongs to, (M,). lengths: (B,). number: their sum, M."""
    samples = torch.arange(len(lengths), device=lengths.device)
    return samples.repeat_interleave(lengths, output_size=number)


def mean_of_samples(behaviours: Tensor, behaviour_of: Tensor, lengths: Tensor) -> Tensor:
    """Mean of each sample's behaviours, (B, D), zeros for none.

    behaviours: (K, D). behaviour_of: (M,) int64, those of sample 0 first. lengths: (B,) int64.
    """
    sample_of = samples_of(lengths, len(behaviour_of))
    shares = (1 / lengths.clamp(min=1).to(behaviours.dtype))[sample_of]
    return weighted_sum(shares, behaviours, behaviour_of, sample_of, len(lengths))


def weighted_sum(
    weights: Tensor, behaviours: Tensor, behaviour_of: Tensor, sample_of: Tensor, samples: int
) -> Tensor:
    """sum_m weights[m] · behaviours[behaviour_of[m]] over the m of each sample.

    weights: (M,). behaviours: (K, D). behaviour_of, sample_of: (M,) int64. samples: B.
    Returns (B, D), zeros for a sample without behaviours. It can be differentiated once.
    """
    return _WeightedSum.apply(weights, behaviours, behaviour_of, sample_of, samples)


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        behaviours: Tensor,
        behaviour_of: Tensor,
        sample_of: Tensor,
        samples: int,
    ) -> Tensor:
        ctx.save_for_backward(weights, behaviours, behaviour_of, sample_of)
        total = behaviours.new_zeros(samples, behaviours.shape[1])
        for piece in _pieces(behaviours, len(weights)):
            vectors = behaviours.index_select(0, behaviour_of[piece])
            total.index_add_(0, sample_of[piece], vectors.mul_(weights[piece].unsqueeze(1)))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, behaviours, behaviour_of, sample_of = ctx.saved_tensors
        d_weights, d_behaviours = torch.empty_like(weights), torch.zeros_like(behaviours)
        for piece in _pieces(behaviours, len(weights)):
            vectors = behaviours.index_select(0, behaviour_of[piece])
            flow = gradient.index_select(0, sample_of[piece])
            d_weights[piece] = vectors.mul_(flow).sum(1)
            flow.mul_(weights[piece].unsqueeze(1))
            d_behaviours.index_add_(0, behaviour_of[piece], flow)
        return d_weights, d_behaviours, None, None, None


def _pieces(behaviours: Tensor, length: int) -> Iterator[slice]:
    size = max(1, _PIECE.get(behaviours.device.type, _PIECE_ELSEWHERE) // behaviours.shape[1])
    return (slice(begin, begin + size) for begin in range(0, length, size))
