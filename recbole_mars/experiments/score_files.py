"""The scores of a run as a file holds them, checked as they are read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

__all__ = ["COLUMNS", "OPTIONAL", "read_columns"]

COLUMNS = {
    "users": np.int32,
    "groups": np.int8,
    "labels": np.int8,
    "scores": np.float32,
    "lengths": np.int32,
}
OPTIONAL = {"cold": np.int8, "requests": np.int64}  # missing where they were not known
# Whatever zipfile and NumPy raise, depending on which byte is wrong.
_DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, SyntaxError, MemoryError, OverflowError),
)


def read_columns(file: Path, needed: Iterable[str] = tuple(COLUMNS)) -> dict[str, np.ndarray]:
    """The columns of a .npz file, each (T,), T > 0 impressions; those not needed may be missing.

    Raises ValueError, naming the file, for one that is damaged: if it cannot be read, lacks a
    column, has columns of different lengths, or values that no run gives.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in (*COLUMNS, *OPTIONAL) if name in stored.files}
    except _DAMAGE as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    except AttributeError:  # an .npy file's array
        raise ValueError(f"{file} is damaged: it is no .npz file") from None
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ValueError(f"{file} is damaged: it has no {', '.join(missing)}")
    for name, column in columns.items():
        if column.dtype.kind not in "biuf" or column.ndim != 1 or not column.size:
            raise ValueError(f"{file} is damaged: its {name} are no column of numbers")
    if len({column.shape for column in columns.values()}) != 1:
        raise ValueError(f"{file} is damaged: its columns differ in length")
    for name, column in columns.items():
        if name == "scores":
            sound, need = (column >= 0) & (column <= 1), "in 0..1"  # False for NaN
        elif name == "lengths":
            sound, need = column >= 0, ">= 0"
        else:
            known = {"labels": [0, 1], "groups": [0, 1, 2], "cold": [0, 1]}.get(name)
            if known is None:
                continue
            sound, need = np.isin(column, known), f"in {known}"
        if not sound.all():
            wrong = column[~sound][0]
            raise ValueError(f"{file} is damaged: its {name} must be {need}, one is {wrong}")
    return columns
