"""Rows that are never trained, kept as small as is asked for.

Dimension letters: I items, N rows asked for, V width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["STORAGES", "FrozenRows"]

STORAGES = ("float32", "float16", "int8")
_LEVELS = 127  # -128 is not used: it has no opposite
BLOCK = 1 << 22  # numbers at a time: the matrix may be a memory map


class FrozenRows(nn.Module):
    """Rows of a matrix, (I, V), moved with the module and left out of its state_dict.

    change: makes a block of rows, (n, V) float32, into what is kept, given their numbers too.
    storage: "float32" takes 4 V bytes a row; "float16" 2 V; "int8" V + 4, each row in 255 even
    steps up to its largest value, scaled to the norm that it had.

    Raises ValueError for an unknown storage.
    """

    kept: Tensor
    scales: Tensor

    def __init__(
        self, rows: np.ndarray, change: Callable[[Tensor, slice], Tensor], storage: str
    ) -> None:
        super().__init__()
        if storage not in STORAGES:
            raise ValueError(f"storage must be one of {', '.join(STORAGES)}, got {storage!r}")
        self.register_buffer(
            "kept", torch.empty(rows.shape, dtype=getattr(torch, storage)), persistent=False
        )
        number = len(rows) if storage == "int8" else 0
        self.register_buffer("scales", torch.empty(number), persistent=False)
        height = max(1, BLOCK // rows.shape[1])
        for begin in range(0, len(rows), height):
            part = slice(begin, min(begin + height, len(rows)))
            block = change(torch.from_numpy(np.array(rows[part], dtype=np.float32)), part)
            if storage == "int8":
                block, self.scales[part] = _rounded(block)
            self.kept[part] = block

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def width(self) -> int:
        """V."""
        return self.kept.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows given: float32, or what the module was turned into."""
        return self.scales.dtype

    @property
    def nbytes(self) -> int:
        """Of what is kept."""
        return self.kept.nbytes + self.scales.nbytes

    def forward(self, ids: Tensor | slice) -> Tensor:
        """Rows by number or slice, (N, V) floats."""
        rows = self.kept[ids].to(self.dtype)
        return rows * self.scales[ids].unsqueeze(1) if len(self.scales) else rows


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(n, V) floats as whole numbers, and what to multiply each row by, (n,)."""
    steps = rows.abs().amax(1, keepdim=True) / _LEVELS
    whole = (rows / steps.clamp(min=torch.finfo(rows.dtype).tiny)).round()
    return whole, rows.norm(dim=1) / whole.norm(dim=1).clamp(min=1)
