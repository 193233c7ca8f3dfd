"""DMAE's interest fusion (Zhang et al., §4.2): within a modality, then across modalities.

Behaviours are packed, without padding: those of sample 0 first, in the order of time.

Dimension letters: N behaviours of the batch, B samples, D width, C chunks, S behaviours a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_mars.ctr.layers import softmax_within
from recbole_mars.ctr.weighted_sum import mean_of_samples, weighted_sum

__all__ = ["CrossAttention", "WindowAttention", "mean_within"]

_CHUNK = 16


def mean_within(vectors: Tensor, counts: Tensor) -> Tensor:
    """Mean of each sample's vectors (DMAE, eq. 7), zeros for a sample without any.

    vectors: (N, D), those of sample 0 first. counts: (B,), vectors of each sample. Returns (B, D).
    """
    own = torch.arange(len(vectors), device=vectors.device)
    return mean_of_samples(vectors, own, counts)


class WindowAttention(nn.Module):
    """Self-attention in which a behaviour sees those at most reach places away (DMAE, eq. 5-6).

    One head, scaled by sqrt(D). Time and memory grow with N, not with its square.
    """

    near: Tensor

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.chunk = max(_CHUNK, reach)
        self.projections = nn.Linear(width, 3 * width, bias=False)
        place = torch.arange(self.chunk)
        seen = torch.arange(-self.chunk, 2 * self.chunk)
        near = (place.unsqueeze(1) - seen).abs() <= reach
        self.register_buffer("near", near, persistent=False)

    def forward(self, vectors: Tensor, sample_of: Tensor) -> Tensor:
        """vectors: (N, D). sample_of: (N,) int64, ascending. Returns (N, D)."""
        number, width = vectors.shape
        missing = -number % self.chunk
        queries, keys, values = self.projections(vectors).chunk(3, dim=1)
        padded = nn.functional.pad(sample_of, (0, missing), value=-1)
        owner = padded.view(-1, self.chunk)
        # A chunk sees itself and its neighbours, of which there are none at either end.
        around = _around(nn.functional.pad(padded, (self.chunk, self.chunk), value=-2), self.chunk)
        mask = self.near & (owner.unsqueeze(2) == around.unsqueeze(1))
        queries = nn.functional.pad(queries, (0, 0, 0, missing)).view(-1, self.chunk, width)
        keys, values = (
            _around(nn.functional.pad(x, (0, 0, self.chunk, self.chunk + missing)), self.chunk)
            for x in (keys, values)
        )
        scores = queries @ keys.transpose(1, 2) * width**-0.5
        weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=2)
        return (weights @ values).reshape(-1, width)[:number]


def _around(rows: Tensor, chunk: int) -> Tensor:
    """Three chunks in a row, a step of one chunk: ((C + 2) S, ...) gives (C, 3 S, ...)."""
    chunks = rows.view(-1, chunk, *rows.shape[1:])
    return torch.cat([chunks[:-2], chunks[1:-1], chunks[2:]], dim=1)


class CrossAttention(nn.Module):
    """A modality's interests, weighed by what the others show on average (DMAE, eq. 8-9)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    def forward(self, context: Tensor, interests: Tensor, sample_of: Tensor) -> Tensor:
        """context: (B, D). interests: (N, D). sample_of: (N,) int64, ascending.

        Returns (B, D), zeros for a sample without behaviours.
        """
        # (c Q) (r K)^T = (c Q K^T) r^T: no product for each behaviour.
        asked = self.query(context) @ self.key.weight * context.shape[1] ** -0.5
        scores = (interests * asked[sample_of]).sum(1)
        weights = softmax_within(scores, sample_of, len(context))
        own = torch.arange(len(interests), device=interests.device)
        return self.value(weighted_sum(weights, interests, own, sample_of, len(context)))
