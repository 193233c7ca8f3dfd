"""Columns of impressions as checked numpy vectors: the one place that refuses bad input."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["float_column", "id_column", "label_column", "require_equal_lengths"]


def id_column(name: str, values: Any) -> np.ndarray:
    """A non-empty vector of an array, list or tensor on any device, in its own type.

    Raises ValueError if it is empty or not one-dimensional.
    """
    if hasattr(values, "detach"):  # a tensor, without importing torch for it
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.double()  # numpy has no bfloat16
    column = np.asarray(values)
    if column.ndim != 1 or not len(column):
        raise ValueError(f"{name} must be a non-empty vector, got shape {column.shape}")
    return column


def float_column(name: str, values: Any) -> np.ndarray:
    """A non-empty float64 vector. Raises ValueError as above and for NaN."""
    column = id_column(name, values).astype(np.float64)
    missing = int(np.isnan(column).sum())
    if missing:
        raise ValueError(f"{name} must not hold NaN, got {missing} of {len(column)}")
    return column


def label_column(values: Any) -> np.ndarray:
    """A non-empty boolean vector. Raises ValueError as above and for labels other than 0 and 1."""
    column = float_column("labels", values)
    strange = column[(column != 0) & (column != 1)]
    if len(strange):
        raise ValueError(f"labels must be 0 or 1, got {strange[0]}; set a rating threshold first")
    return column == 1


def require_equal_lengths(**columns: np.ndarray) -> None:
    """Raises ValueError, naming every length, unless all columns are equally long."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns must have one length, got {lengths}")
