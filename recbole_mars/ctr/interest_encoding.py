"""DMAE's interest encoding (Zhang et al., §4.1): a similarity and its time as a vector.

Dimension letters: N behaviours of the batch, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_mars.ctr.similarities import CASES, Similarities

__all__ = ["InterestEncoder"]


class InterestEncoder(nn.Module):
    """The multimodal interest encoding unit of one modality (DMAE, eq. 1-4).

    width: D, even. buckets: N_B. ages: distinct positions; older behaviours share the last one.
    base: of the wavelengths in eq. 3. blend: False leaves the bucket's vector alone, without
    scaling and sine-cosine (the ablation "w/o MIEU-se").

    Beyond the paper, a behaviour's case (its label, whether it is borrowed) has a vector that is
    added to that of its position, where cases are given.
    """

    frequencies: Tensor

    def __init__(
        self, width: int, buckets: int, ages: int, base: float = 10.0, blend: bool = True
    ) -> None:
        super().__init__()
        self.blend = blend
        self.buckets = nn.Embedding(buckets, width)
        self.ages = nn.Embedding(ages, width)
        self.cases = nn.Embedding(CASES, width)
        nn.init.zeros_(self.cases.weight)
        self.scale = nn.Parameter(torch.ones(())) if blend else None
        self.shift = nn.Parameter(torch.zeros(())) if blend else None
        self.joined = nn.Linear(2 * width if blend else width, width)
        self.timed = nn.Linear(2 * width, width)
        frequencies = base ** -(torch.arange(0, width, 2) / width)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, similarities: Similarities) -> Tensor:
        """Interest that each behaviour shows in the target, (N, D), at least 0."""
        values, width = similarities.values, self.ages.embedding_dim
        bucket = (values * (self.buckets.num_embeddings - 1)).long()
        # W (a, b) is W_a a + W_b b: what is looked up is multiplied once a row of its table.
        table = nn.functional.linear(self.buckets.weight, self.joined.weight[:, :width])
        joined = nn.functional.embedding(bucket, table)
        if self.scale is not None and self.shift is not None:
            waves = values.unsqueeze(1) * self.frequencies
            waves = torch.cat([waves.sin(), waves.cos()], dim=1)
            joined = joined * (self.scale * values + self.shift).unsqueeze(1)
            joined = joined + nn.functional.linear(waves, self.joined.weight[:, width:])
        hidden = (joined + self.joined.bias).relu()
        from_hidden, from_time = self.timed.weight.split(width, dim=1)
        times = self.ages.weight.unsqueeze(1) + self.cases.weight  # (ages, cases, D)
        table = nn.functional.linear(times.flatten(0, 1), from_time, self.timed.bias)
        age = similarities.age.clamp(max=self.ages.num_embeddings - 1)
        timed = nn.functional.embedding(age * CASES + similarities.case, table)
        return (nn.functional.linear(hidden, from_hidden) + timed).relu()
