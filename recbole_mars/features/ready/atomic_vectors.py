"""Vectors in RecBole's atomic files, which `additional_feat_suffix` loads."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recbole_mars.features.catalogue.catalogue_file import split_types, tabbed_lines

__all__ = ["is_atomic", "read_atomic_vectors"]


def is_atomic(path: Path) -> bool:
    """Whether the first line of a file names columns with RecBole's types."""
    try:
        _, header = next(tabbed_lines(path), (0, [""]))
    except (OSError, UnicodeDecodeError):
        return False
    return all(split_types(header)[1])


def read_atomic_vectors(
    path: str | Path, id_column: str | None = None, vector_column: str | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Read a file like ml-100k.itememb, line by line: n ids and an (n, D) float32 matrix.

    path: fields between tabs, numbers of a vector between spaces, UTF-8, below a header like
    `iid:token<TAB>item_emb:float_seq`. id_column: the column of type `token` with the ids, if
    there are several. vector_column: the one of type `float_seq`, if there are several.

    Raises ValueError, with line and id, if a line does not fit the header, a vector is empty or
    of another length than the first, a number is none, not finite or beyond float32, or an id is
    empty or stands twice.
    """
    path = Path(path)
    values = array("f")  # grows in place: a list of arrays would be copied as a whole
    line_of: dict[str, int] = {}
    dimensions = 0
    try:
        lines = tabbed_lines(path)
        _, header = next(lines, (0, []))
        id_at = _column(path, header, "token", "id_column", id_column)
        vector_at = _column(path, header, "float_seq", "vector_column", vector_column)
        for number, line in lines:
            if len(line) != len(header):
                raise ValueError(
                    f"{path}, line {number}, starting with {line[0][:40]!r}: need {len(header)} "
                    f"fields as in the header, found {len(line)}; put tabs between fields"
                )
            item = line[id_at]
            where = f"{path}, line {number}, item {item!r}"
            if not item or item in line_of:
                found = f"it stands in line {line_of[item]}, too" if item else "found none"
                raise ValueError(f"{where}: need an id of its own, {found}; drop one line")
            vector = _vector(where, line[vector_at])
            dimensions = dimensions or len(vector)
            if len(vector) != dimensions:
                raise ValueError(
                    f"{where}: need {dimensions} numbers as in the first vector, "
                    f"found {len(vector)}; write all vectors anew"
                )
            line_of[item] = number
            values.frombytes(vector.tobytes())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path} as an atomic file in UTF-8: {error}") from error
    if not line_of:
        raise ValueError(f"{path} must hold at least one vector, found only a header")
    return tuple(line_of), np.frombuffer(values, dtype=np.float32).reshape(-1, dimensions)


def _column(path: Path, header: Sequence[str], kind: str, option: str, name: str | None) -> int:
    """Where the column of this type is: the one called `name`, or the only one."""
    names, types = split_types(header)
    at = [k for k, found in enumerate(types) if found == kind and name in (None, names[k])]
    if len(at) != 1:
        called = "" if name is None else f" called {name!r}"
        raise ValueError(
            f"{path} must have one column of type {kind!r}{called}, found {len(at)} "
            f"in the header {list(header)}; name it by {option}"
        )
    return at[0]


def _vector(where: str, text: str) -> np.ndarray:
    try:
        if "_" in text:  # Python reads 1_0 as 10
            raise ValueError("could not convert '_'")
        numbers = np.array([float(number) for number in text.split(" ") if number])
    except ValueError as error:
        raise ValueError(
            f"{where}: need numbers between spaces, found otherwise: {error}; repair the vector"
        ) from None
    if not len(numbers):
        raise ValueError(f"{where}: need at least one number, found none; drop the line")
    with np.errstate(over="ignore"):
        vector = numbers.astype(np.float32)
    if not np.isfinite(vector).all():
        first = numbers[np.flatnonzero(~np.isfinite(vector))[0]]
        raise ValueError(
            f"{where}: need finite numbers that fit float32, found {first}; repair the vector"
        )
    return vector
