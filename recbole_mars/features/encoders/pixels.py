"""Picture vectors without any download: colours, layout and contours, reduced by a PCA."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from recbole_mars.features.catalogue.image import load_image, map_images

__all__ = ["PixelEncoder"]

logger = logging.getLogger(__name__)

CELLS = 4
ORIENTATIONS = 9


class PixelEncoder:
    """Colours, layout and contours of a picture, reduced by a principal component analysis.

    A picture is scaled to size x size pixels and described by an 8 x 8 RGB thumbnail, an HSV
    histogram of 8 x 4 x 4 bins, and, on 4 x 4 cells, gradients by orientation in 9 bins. Columns
    are standardised, the three parts weigh the same, rows of the result are unit vectors.

    dimensions: columns at most; there are no more than pictures, less one.
    size: at least 8. seed: of the randomised decomposition; a seed gives one result.
    """

    name = "pixels"

    def __init__(self, dimensions: int = 64, size: int = 32, seed: int = 0) -> None:
        if dimensions < 1:
            raise ValueError(f"dimensions must be >= 1, got {dimensions}")
        if size < 8 or size % 8:
            raise ValueError(f"size must be a multiple of 8, got {size}; 32 suits covers")
        self.dimensions = dimensions
        self.size = size
        self.seed = seed

    def settings(self) -> dict[str, Any]:
        # version: raise it when this file computes something else
        return {
            "version": 1,
            "dimensions": self.dimensions,
            "size": self.size,
            "seed": self.seed,
        }

    def encode(self, inputs: Sequence[Path], progress: bool = False) -> np.ndarray:
        """Encode picture files, (n, D) float32.

        D is less than `dimensions` if there are few pictures, and the log says so. Raises
        ValueError if a file does not decode, or if the pictures do not differ.
        """
        described = map_images(self._describe, inputs, progress, "pixels")
        parts = [np.stack(part) for part in zip(*described)]
        if not any(np.ptp(part, axis=0).any() for part in parts):
            raise ValueError(
                f"encoder {self.name!r} needs at least two different pictures, "
                f"got {len(inputs)} that do not differ; check the picture files"
            )
        columns = np.concatenate([_standardise(part) for part in parts], axis=1)
        dimensions = min(self.dimensions, len(columns) - 1, columns.shape[1])
        if dimensions < self.dimensions:
            logger.info(
                "%d pictures admit %d dimensions, not %d",
                len(columns),
                dimensions,
                self.dimensions,
            )
        pca = PCA(dimensions, svd_solver="randomized", random_state=self.seed)
        vectors = pca.fit_transform(columns)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-6)

    def _describe(self, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        small = load_image(path).resize((self.size, self.size), Image.Resampling.BOX)
        thumbnail = np.asarray(small.resize((8, 8), Image.Resampling.BOX), dtype=np.float32)
        return thumbnail.ravel(), _colour_histogram(small), _gradient_histogram(small)


def _colour_histogram(image: Image.Image) -> np.ndarray:
    """Square roots of shares, so that rare colours count, 8 hues x 4 saturations x 4 values."""
    hue, saturation, value = np.moveaxis(np.asarray(image.convert("HSV"), dtype=np.int64), 2, 0)
    bins = (hue // 32) * 16 + (saturation // 64) * 4 + value // 64
    counts = np.bincount(bins.ravel(), minlength=128)
    return np.sqrt(counts / counts.sum()).astype(np.float32)


def _gradient_histogram(image: Image.Image) -> np.ndarray:
    """Gradient strength by orientation, modulo a half turn, in every cell."""
    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
    down, right = np.gradient(grey)
    turn = np.arctan2(down, right) / np.pi % 1.0
    orientation = np.minimum((turn * ORIENTATIONS).astype(np.int64), ORIENTATIONS - 1)
    cell = np.arange(len(grey)) * CELLS // len(grey)
    bins = (cell[:, None] * CELLS + cell) * ORIENTATIONS + orientation
    strength = np.bincount(
        bins.ravel(), weights=np.hypot(down, right).ravel(), minlength=CELLS**2 * ORIENTATIONS
    )
    return np.sqrt(strength).astype(np.float32)


def _standardise(columns: np.ndarray) -> np.ndarray:
    """Columns to mean 0 and deviation 1, then scaled so that every part has variance 1."""
    centred = columns - columns.mean(axis=0)
    deviation = centred.std(axis=0)
    scaled = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-6)
    return scaled / np.sqrt(columns.shape[1])
