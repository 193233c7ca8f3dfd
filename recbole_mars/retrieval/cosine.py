"""Unit vectors: with them a dot product is the cosine of MARS, eq. 15 and 16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Union

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["Matrix", "mean_row", "unit_blocks", "unit_rows"]

Matrix = Union[np.ndarray, "torch.Tensor"]
_BLOCK = 1 << 14  # rows that are copied at once


def unit_rows(embeddings: Matrix, center: np.ndarray | None = None) -> np.ndarray:
    """Scale every row to length 1, after subtracting the centre if there is one.

    embeddings: (N, D) array or tensor of any float type. center: (D,).
    Returns (N, D) float32. A row of zeros stands for "no embedding" and stays zero, with a centre
    too; so does a row that is no further from the centre than rounding, for it has no direction.
    Raises ValueError if embeddings are not a finite matrix.
    """
    _check_matrix(embeddings)
    rows = _float32(embeddings)
    lengths = _lengths(rows)
    _check_finite(lengths)
    shortest = np.zeros(len(rows))
    if center is not None:
        rows = np.where(lengths[:, None] > 0, rows - center, 0)
        shortest, lengths = 1e-6 * lengths, _lengths(rows)
    unit = np.zeros_like(rows)
    np.divide(rows, lengths[:, None], out=unit, where=(lengths > shortest)[:, None])
    return unit


def unit_blocks(
    embeddings: Matrix, center: np.ndarray | None = None, places: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """unit_rows of a part after the other: a large matrix or memmap is never copied whole.

    embeddings: (N, D). center: (D,). places: (n,), the rows to take, in this order; None: all.
    Yields float32 blocks that together have n rows. Raises ValueError as unit_rows does.
    """
    _check_matrix(embeddings)
    for begin in range(0, len(embeddings) if places is None else len(places), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        if places is None:
            rows = _float32(embeddings[block])
            _check_finite(_lengths(rows), begin)
        else:
            rows = _float32(embeddings[places[block]])
        yield unit_rows(rows, center)


def mean_row(embeddings: Matrix) -> np.ndarray:
    """Mean of the rows that are not zero, (D,) float32; zeros if there is none.

    Raises ValueError if embeddings are not a matrix.
    """
    _check_matrix(embeddings)
    total, known = np.zeros(embeddings.shape[1]), 0
    for begin in range(0, len(embeddings), _BLOCK):
        rows = _float32(embeddings[begin : begin + _BLOCK])
        total += rows.sum(axis=0)
        known += int(rows.any(axis=1).sum())
    return (total / max(1, known)).astype(np.float32)


def _check_matrix(embeddings: Matrix) -> None:
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings must be a matrix (N, D), got shape {tuple(embeddings.shape)}")


def _check_finite(lengths: np.ndarray, first: int = 0) -> None:
    if not np.isfinite(lengths).all():
        bad = first + int(np.flatnonzero(~np.isfinite(lengths))[0])
        raise ValueError(
            f"embeddings must be finite, row {bad} is not; check the training that made them"
        )


def _float32(embeddings: Matrix) -> np.ndarray:
    if isinstance(embeddings, np.ndarray):
        return np.asarray(embeddings, dtype=np.float32)
    return embeddings.detach().cpu().float().numpy()


def _lengths(rows: np.ndarray) -> np.ndarray:
    # Squares of small or large float32 values would leave its range.
    return np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
