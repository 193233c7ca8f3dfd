"""How alike targets and behaviours are in a modality: frozen vectors, compared by cosine.

Dimension letters: B batch, L history length, M real behaviours of the batch, I items, V width of a
modality's vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recbole_mars.ctr.din import History
from recbole_mars.ctr.frozen_rows import FrozenRows

__all__ = ["ItemSimilarities", "Modality", "Similarities", "require_modalities"]

_TABLE_BYTES = 1 << 29  # of all items' similarities, kept up to this size
_PIECE = {"cpu": 1 << 21}  # numbers gathered at once
_PIECE_ELSEWHERE = 1 << 26
CASES = 4  # of a behaviour: its label, and whether it is borrowed
SCALES = ("cosine", "quantile")
_SAMPLE = 1 << 20  # pairs that quantiles are taken of


class Modality(NamedTuple):
    """Frozen vectors of all items by id, row 0 padding.

    vectors: (I, V). present: (I,) bool. storage: what a model keeps of them, see FrozenRows.
    """

    name: str
    vectors: np.ndarray
    present: np.ndarray
    storage: str = "float32"


def require_modalities(modalities: Sequence[Modality]) -> None:
    """Raises ValueError without a modality."""
    if not modalities:
        raise ValueError("modalities must be one or more, got none")


class Similarities(NamedTuple):
    """Behaviours whose similarity to the target is known, those of sample 0 first.

    values: (N,) in [0, 1]. sample_of: (N,) int64, ascending. age: (N,) int64, 0 for the latest
    behaviour of the whole history. case: (N,) int64, label + 2 · (whether it is borrowed), each 0
    where it is not given. size: number of samples B.
    """

    values: Tensor
    sample_of: Tensor
    age: Tensor
    case: Tensor
    size: int

    def counts(self) -> Tensor:
        """Known behaviours of each sample, (B,) int64."""
        return torch.bincount(self.sample_of, minlength=self.size)

    def levels(self, number: int) -> Tensor:
        """Which interval each value lies in, (N,) int64: [0, 1/n] or ((j - 1)/n, j/n]."""
        return (self.values * number).ceil().long().clamp(1, number) - 1


class ItemSimilarities(nn.Module):
    """(cos + 1) / 2 of targets and behaviours in one modality (DMAE, §4.1.1).

    Behaviours without this modality, and all where the target lacks it, are left out: a missing
    modality is no behaviour, rather than one of middling similarity.

    scale: "cosine" as printed, or "quantile", the share of all pairs of items that are less alike:
    cosines of one encoder often fill a small part of their range, and those of two encoders
    different ones.

    Nothing here is trained, and a checkpoint leaves it out. Up to 2^29 bytes, the similarities of
    all pairs are computed at the first call and kept, in half precision; with more items (16,384),
    the distinct ones of a batch are computed as they come, and rounded alike.

    Raises ValueError for an unknown scale.
    """

    present: Tensor
    table: Tensor
    knots: Tensor

    def __init__(self, modality: Modality, scale: str = "cosine") -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
        present = torch.from_numpy(np.array(modality.present, dtype=bool))
        present[0] = False  # a masked behaviour is of item 0
        self.vectors = FrozenRows(modality.vectors, _unit, modality.storage)
        self.register_buffer("present", present, persistent=False)
        self.register_buffer("table", torch.empty(0), persistent=False)
        knots = self._quantiles() if scale == "quantile" else torch.empty(0)
        self.register_buffer("knots", knots, persistent=False)

    def forward(self, history: History, target_item: Tensor) -> Similarities:
        """history: of B samples. target_item: (B,)."""
        mask = history.mask
        lengths = mask.sum(1)
        order = mask.cumsum(1)
        sample_of, place = mask.nonzero(as_tuple=True)
        items = history.items[sample_of, place]
        age = lengths[sample_of] - order[sample_of, place]
        case = _cases(history)[sample_of, place]
        known = self.present[items] & self.present[target_item][sample_of]
        if not known.all():
            items, sample_of, age, case = (x[known] for x in (items, sample_of, age, case))
        values = self._of_pairs(target_item[sample_of], items)
        return Similarities(values, sample_of, age, case, len(target_item))

    @torch.no_grad()
    def _of_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        n_items, device = len(self.vectors), self.present.device.type
        pairs = first * n_items + second
        with torch.autocast(device, enabled=False):
            if 2 * n_items**2 > _TABLE_BYTES:
                pairs, place = pairs.unique(return_inverse=True)
                first = pairs.div(n_items, rounding_mode="floor")
                return self._compute(first, pairs - first * n_items)[place]
            if self.table.numel() == 0:
                self.table = self._all_pairs()
            return self.table[pairs].to(self.vectors.dtype)

    def _all_pairs(self) -> Tensor:
        """(I * I,) in half precision, a stretch of rows at a time."""
        vectors = self.vectors(slice(None))
        n_items = len(vectors)
        table = vectors.new_empty(n_items, n_items, dtype=torch.float16)
        rows = max(1, self._piece() // n_items)
        for begin in range(0, n_items, rows):
            part = slice(begin, begin + rows)
            table[part] = self._scaled(vectors[part] @ vectors.T)
        return table.flatten()

    def _compute(self, first: Tensor, second: Tensor) -> Tensor:
        """Rounded as the table is, so that how many items there are changes no bucket."""
        return self._scaled(self._cosines(first, second)).half().to(self.vectors.dtype)

    def _cosines(self, first: Tensor, second: Tensor) -> Tensor:
        """Of pairs of items, (P,) each, a piece at a time. Returns (P,)."""
        size = max(1, self._piece() // self.vectors.width)
        pairs = zip(first.split(size), second.split(size))
        return torch.cat([(self.vectors(a) * self.vectors(b)).sum(1) for a, b in pairs])

    def _piece(self) -> int:
        return _PIECE.get(self.present.device.type, _PIECE_ELSEWHERE)

    def _scaled(self, cosines: Tensor) -> Tensor:
        if self.knots.numel():
            places = torch.searchsorted(self.knots, cosines.contiguous())
            return places.to(cosines.dtype) / len(self.knots)
        return ((cosines + 1) / 2).clamp(0, 1)

    def _quantiles(self) -> Tensor:
        """Cosines below which equal shares of all pairs of different items lie, (1000,)."""
        items = self.present.nonzero().squeeze(1)
        items = items[items > 0]
        if len(items) < 2:
            return torch.zeros(1)
        generator = torch.Generator().manual_seed(0)
        first = torch.randint(len(items), (_SAMPLE,), generator=generator)
        step = torch.randint(1, len(items), (_SAMPLE,), generator=generator)
        second = (first + step) % len(items)
        cosines = self._cosines(items[first], items[second])
        return torch.quantile(cosines, (torch.arange(1000) + 0.5) / 1000)


def _unit(rows: Tensor, part: slice) -> Tensor:
    return nn.functional.normalize(rows, dim=1)


def _cases(history: History) -> Tensor:
    """Label + 2 · origin of each behaviour, (B, L) int64; 0 where neither is given."""
    cases = torch.zeros_like(history.items)
    if history.labels is not None:
        cases = cases + (history.labels > 0)
    if history.borrowed is not None:
        place = torch.arange(cases.shape[1], device=cases.device)
        cases = cases + 2 * (place < history.borrowed.unsqueeze(1))
    return cases
