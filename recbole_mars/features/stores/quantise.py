"""Vectors in a quarter of float32's bytes: int8 with a scale per row, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["cosine_errors", "dequantise", "quantise"]

LEVELS = 127  # -128 is not used: it has no opposite
SMALLEST = float(np.finfo(np.float32).tiny)  # smaller scales would lose digits
LARGEST = float(np.finfo(np.float32).max)
HIGHEST = float(np.nextafter(np.float32(LARGEST / LEVELS), np.float32(0)))  # 127 s stays finite
BLOCK = 1 << 22  # values at a time: the matrix may exceed the memory


def quantise(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round each row to 255 even steps: q = round(x / s) with s = max |x| / 127, halves to even.

    matrix: (n, D) finite floats. Returns q, (n, D) int8, and s, (n,) float32. A row of zeros has
    the scale 0. Then |x - s q| <= s / 2, and rounding s q again gives the same q.

    Scales never fall below the smallest normal float32, 2^-126, so smaller values round to zero.
    q depends on the last digit of x: for the same bytes from float32 and from a float16 store of
    it, round to float16 first, `quantise(matrix.astype(np.float16))`.

    Raises ValueError if the matrix is not of this shape and kind, or its values are not finite or
    beyond float32.
    """
    if matrix.ndim != 2 or not matrix.shape[1] or not np.issubdtype(matrix.dtype, np.floating):
        raise ValueError(
            f"matrix must hold floats of shape (n, D) with D >= 1, "
            f"got {matrix.dtype} of shape {matrix.shape}"
        )
    quantised = np.empty(matrix.shape, dtype=np.int8)
    scales = np.empty(len(matrix), dtype=np.float32)
    for rows in _blocks(matrix):
        block = matrix[rows].astype(np.float64)
        largest = np.abs(block).max(axis=1)
        unfit = np.flatnonzero(~(largest <= LARGEST))  # NaN is not <= either
        if len(unfit):
            raise ValueError(
                f"matrix must be finite and fit float32, found otherwise in row "
                f"{rows.start + unfit[0]}; repair or rescale the features"
            )
        scale = np.clip(largest / LEVELS, SMALLEST, HIGHEST).astype(np.float32)
        # The scale is rounded, so the largest value may come out as 127.00001: rounding mends it.
        quantised[rows] = np.rint(block / scale.astype(np.float64)[:, None])
        scales[rows] = np.where(largest > 0, scale, 0)
    return quantised, scales


def dequantise(quantised: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """s q: (n, D) int8 and (n,) float32 to (n, D) float32. Raises ValueError for other input."""
    if quantised.dtype != np.int8 or quantised.ndim != 2:
        raise ValueError(
            f"quantised must be int8 of shape (n, D), "
            f"got {quantised.dtype} of shape {quantised.shape}"
        )
    if scales.dtype != np.float32 or scales.shape != quantised.shape[:1]:
        raise ValueError(
            f"scales must be float32 of shape ({len(quantised)},), one a row, "
            f"got {scales.dtype} of shape {scales.shape}"
        )
    return quantised * scales[:, None]


def cosine_errors(matrix: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """How far the direction of each row has turned: 1 - cos, computed as |x/|x| - y/|y||² / 2.

    matrix, restored: (n, D) finite floats. Returns (n,) float64; 0 for a row of zeros in `matrix`,
    1 for a row that only `restored` has lost.

    Raises ValueError if the shapes differ.
    """
    if matrix.shape != restored.shape or matrix.ndim != 2:
        raise ValueError(
            f"matrix and restored must have one shape (n, D), "
            f"got {matrix.shape} and {restored.shape}"
        )
    errors = np.empty(len(matrix))
    for rows in _blocks(matrix):
        before, after = _directions(matrix[rows]), _directions(restored[rows])
        # No difference of cosines: 1 - cos would lose half of the digits of a small error.
        turned = np.square(before - after).sum(axis=1) / 2
        errors[rows] = np.where(before.any(axis=1), np.where(after.any(axis=1), turned, 1.0), 0.0)
    return errors


def _directions(rows: np.ndarray) -> np.ndarray:
    """The rows with norm 1, in float64; rows of zeros stay."""
    rows = rows.astype(np.float64)
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows /= np.where(largest > 0, largest, 1.0)  # the squares of extreme values leave float64
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1.0)


def _blocks(matrix: np.ndarray) -> Iterator[slice]:
    height = max(1, BLOCK // max(1, matrix.shape[1]))
    for start in range(0, len(matrix), height):
        yield slice(start, min(start + height, len(matrix)))
