"""Unit vectors: with them a dot product is the cosine of MARS, eq. 15 and 16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["Matrix", "mean_row", "unit_rows"]

Matrix = Union[np.ndarray, "torch.Tensor"]


def unit_rows(embeddings: Matrix, center: np.ndarray | None = None) -> np.ndarray:
    """Scale every row to length 1, after subtracting the centre if there is one.

    embeddings: (N, D) array or tensor of any float type. center: (D,).
    Returns (N, D) float32. A row of zeros stands for "no embedding" and stays zero, with a centre
    too; so does a row that is no further from the centre than rounding, for it has no direction.
    Raises ValueError if embeddings are not a finite matrix.
    """
    rows = _float32(embeddings)
    if rows.ndim != 2:
        raise ValueError(f"embeddings must be a matrix (N, D), got shape {rows.shape}")
    lengths = _lengths(rows)
    if not np.isfinite(lengths).all():
        bad = int(np.flatnonzero(~np.isfinite(lengths))[0])
        raise ValueError(
            f"embeddings must be finite, row {bad} is not; check the training that made them"
        )
    shortest = np.zeros(len(rows))
    if center is not None:
        rows = np.where(lengths[:, None] > 0, rows - center, 0)
        shortest, lengths = 1e-6 * lengths, _lengths(rows)
    unit = np.zeros_like(rows)
    np.divide(rows, lengths[:, None], out=unit, where=(lengths > shortest)[:, None])
    return unit


def mean_row(embeddings: Matrix) -> np.ndarray:
    """Mean of the rows that are not zero, (D,) float32; zeros if there is none."""
    rows = _float32(embeddings)
    known = rows.any(axis=1)
    return rows.sum(axis=0) / max(1, int(known.sum()))


def _float32(embeddings: Matrix) -> np.ndarray:
    if isinstance(embeddings, np.ndarray):
        return np.asarray(embeddings, dtype=np.float32)
    return embeddings.detach().cpu().float().numpy()


def _lengths(rows: np.ndarray) -> np.ndarray:
    # Squares of small or large float32 values would leave its range.
    return np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
