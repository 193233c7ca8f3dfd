"""An int8 matrix with a scale a row, read as the floats that it stands for."""

from __future__ import annotations

import numpy as np

from recbole_mars.features.stores.quantise import dequantise

__all__ = ["ScaledMatrix"]


class ScaledMatrix:
    """Rows of int8 (n, D), perhaps memory-mapped, that indexing turns into float32.

    quantised: (n, D) int8. scales: (n,) float32, what each row is multiplied by.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, quantised: np.ndarray, scales: np.ndarray) -> None:
        if scales.shape != quantised.shape[:1]:
            raise ValueError(f"scales must be one a row of {quantised.shape}, got {scales.shape}")
        self.quantised = quantised
        self.scales = scales

    @property
    def shape(self) -> tuple[int, ...]:
        return self.quantised.shape

    def __len__(self) -> int:
        return len(self.quantised)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Rows by number or slice, (m, D) float32."""
        return dequantise(self.quantised[rows], self.scales[rows])
