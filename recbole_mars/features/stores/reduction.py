"""Fewer dimensions: principal components, whitened or not.

D: width of the features. W: width after reduction. n: items.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_mars.data.files import write_whole

__all__ = ["Projection"]

logger = logging.getLogger(__name__)

FILE = "projection.npz"
VANISHING = 1e-10  # of the largest variance: below, a direction is rounding
BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Projection:
    """Principal components: z = V (x - m), and when whitening z_k / sqrt(λ_k).

    mean m: (D,). components V: (W, D), orthonormal rows by falling variance, the largest entry of
    each positive. variances λ: (W,), of the items' features along the components, divided by
    n - 1. total_variance: summed over all D directions. whiten: whether to scale to variance 1.

    Arrays are float64. Raises ValueError if shapes do not fit or variances are not positive.
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    total_variance: float
    whiten: bool

    def __post_init__(self) -> None:
        width = (*self.variances.shape, *self.mean.shape)
        if self.mean.ndim != 1 or self.variances.ndim != 1 or self.components.shape != width:
            raise ValueError(
                f"a projection must have mean (D,), components (W, D) and variances (W,), got "
                f"{self.mean.shape}, {self.components.shape} and {self.variances.shape}"
            )
        arrays = (self.mean, self.components, self.variances)
        if not all(np.isfinite(array).all() for array in arrays) or not (self.variances > 0).all():
            raise ValueError(
                "a projection must have finite values and variances > 0, found others; fit it anew"
            )

    @classmethod
    def fit(cls, blocks: Iterable[np.ndarray], width: int, whiten: bool = False) -> Projection:
        """The exact components of all rows of the blocks, which pass by once.

        blocks: (n_i, D) finite floats, of any heights; leave out the zeros that stand for items
        without features. width: W at most; a direction of vanishing variance is dropped, and so
        is what n - 1 or D do not admit, and the log says so. Memory: D² float64.

        Raises ValueError if width < 1, there are fewer than two rows, all rows are equal, shapes
        differ or values are not finite.
        """
        if width < 1:
            raise ValueError(f"width must be >= 1, got {width}; choose 256, for example")
        moments = _Moments()
        for block in blocks:
            for rows in _pieces(block, moments.dimensions):
                moments.add(rows)
        if moments.count < 2:
            raise ValueError(
                f"a projection needs at least 2 items with features, got {moments.count}; "
                f"keep the features as they are"
            )
        mean, variances, components = moments.directions()
        # Equal rows have variances, too: of the rounding of their mean.
        rounding = (1e-14 * np.abs(mean).max()) ** 2
        rank = int((variances > max(VANISHING * variances[0], rounding)).sum())
        if not rank:
            raise ValueError(
                f"features must vary to have components, those of all {moments.count} items are "
                f"equal; check the encoder"
            )
        if rank < width:
            logger.info(
                "%d items with %d dimensions admit %d components, not %d",
                moments.count,
                moments.dimensions,
                rank,
                width,
            )
        kept = slice(min(rank, width))
        components = _fix_signs(components[kept])
        return cls(mean, components, variances[kept].copy(), float(variances.sum()), bool(whiten))

    @property
    def width(self) -> int:
        """W, the length of a reduced vector."""
        return len(self.components)

    @property
    def explained(self) -> float:
        """The share of the variance that the components keep, 0..1."""
        return min(1.0, float(self.variances.sum()) / self.total_variance)

    def apply(self, matrix: np.ndarray) -> np.ndarray:
        """Reduce (n, D) floats to (n, W) float32.

        A row of zeros is an item at the origin, not a missing one: leave missing items out.
        Raises ValueError if D differs or a value is not finite.
        """
        scale = 1.0 / np.sqrt(self.variances) if self.whiten else np.ones(self.width)
        loadings = (self.components * scale[:, None]).T
        reduced = np.empty((len(matrix), self.width), dtype=np.float32)
        start = 0
        for rows in _pieces(matrix, len(self.mean)):
            reduced[start : start + len(rows)] = (rows - self.mean) @ loadings
            start += len(rows)
        return reduced

    def save(self, folder: str | Path) -> Path:
        """Write projection.npz into a folder, made if need be, and return its path."""
        path = Path(folder) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(
            content,
            mean=self.mean,
            components=self.components,
            variances=self.variances,
            total_variance=np.float64(self.total_variance),
            whiten=np.bool_(self.whiten),
        )
        write_whole(path, content.getbuffer())
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Projection:
        """Read what `save` wrote; raises ValueError if there is none or it is damaged."""
        path = Path(folder) / FILE
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(
                    stored["mean"],
                    stored["components"],
                    stored["variances"],
                    float(stored["total_variance"]),
                    bool(stored["whiten"]),
                )
        except Exception as error:  # a damaged archive raises errors of many kinds
            raise ValueError(
                f"cannot read a projection from {path}: {error}; fit and save it anew"
            ) from error


class _Moments:
    """Mean and scatter of rows that pass by.

    Rows are kept until they outnumber their dimensions: up to there they take less memory than
    the scatter matrix, and their singular values are more exact. Then the scatter of each block
    about its own mean is added up (Chan et al., 1979), which a large mean does not harm.
    """

    def __init__(self) -> None:
        self.count = 0
        self.dimensions: int | None = None
        self._kept: list[np.ndarray] | None = []
        self._added = 0
        self._mean = np.zeros(0)
        self._scatter = np.zeros((0, 0))

    def add(self, rows: np.ndarray) -> None:
        """rows: (n, D) float64."""
        if self.dimensions is None:
            self.dimensions = rows.shape[1]
        self.count += len(rows)
        if self._kept is None:
            self._add_scatter(rows)
            return
        self._kept.append(rows)
        if self.count > self.dimensions:
            self._mean = np.zeros(self.dimensions)
            self._scatter = np.zeros((self.dimensions, self.dimensions))
            self._add_scatter(np.concatenate(self._kept))
            self._kept = None

    def directions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean (D,), all variances (k,), falling, and their directions (k, D)."""
        if self._kept is not None:
            rows = np.concatenate(self._kept)
            mean = rows.mean(axis=0)
            _, values, components = np.linalg.svd(rows - mean, full_matrices=False)
            return mean, values**2 / (self.count - 1), components
        values, vectors = np.linalg.eigh(self._scatter)
        variances = np.maximum(values[::-1], 0.0) / (self.count - 1)
        return self._mean, variances, vectors[:, ::-1].T

    def _add_scatter(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        centred, shift = rows - mean, mean - self._mean
        count = self._added + len(rows)
        self._scatter += centred.T @ centred
        self._scatter += np.outer(shift, shift) * (self._added * len(rows) / count)
        self._mean += shift * (len(rows) / count)
        self._added = count


def _pieces(matrix: np.ndarray, dimensions: int | None) -> Iterator[np.ndarray]:
    """The rows in float64, some at a time: the matrix may exceed the memory.

    Raises ValueError unless it holds finite floats in D columns, of any D if `dimensions` is None.
    """
    if (
        matrix.ndim != 2
        or not matrix.shape[1]
        or (dimensions is not None and matrix.shape[1] != dimensions)
        or not np.issubdtype(matrix.dtype, np.floating)
    ):
        raise ValueError(
            f"features must be floats of shape (n, {dimensions or 'D'}), "
            f"got {matrix.dtype} of shape {matrix.shape}; are they of one encoder?"
        )
    for start in range(0, len(matrix), BLOCK):
        rows = matrix[start : start + BLOCK].astype(np.float64)
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(broken):
            raise ValueError(
                f"features must be finite, found NaN or infinity in row {start + broken[0]}; "
                f"encode the item again or leave it out"
            )
        yield rows


def _fix_signs(components: np.ndarray) -> np.ndarray:
    """The rows with their largest entry positive, the first of them if several are as large."""
    sizes = np.abs(components)
    # Equal but for rounding is equal: which one is the first must not hang on the last digit.
    first = np.argmax(sizes >= sizes.max(axis=1, keepdims=True) * (1 - 1e-6), axis=1)
    signs = np.sign(components[np.arange(len(components)), first])
    return np.ascontiguousarray(components * signs[:, None])
