"""Ready-made features: a matrix somebody else computed, checked as strictly as our own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recbole_mars.features.ids import name_few, read_csv
from recbole_mars.features.table import FeatureTable

__all__ = ["check_against_catalogue", "import_features"]

logger = logging.getLogger(__name__)

BLOCK = 65_536


def import_features(matrix_file: str | Path, ids_file: str | Path, *, name: str) -> FeatureTable:
    """Read a ready feature matrix, memory-mapped; a row of zeros is an item without features.

    matrix_file: a .npy file with (n, D) floats. ids_file: a .csv file with a column `item_id` and
    perhaps `row`, the row of the matrix it names, else line by line; or any other text file with
    one id a line. name: what the features are, for logs and errors.

    Raises ValueError if a file cannot be read, ids and rows do not match, an id stands twice, or a
    value is not finite.
    """
    try:
        matrix = np.load(matrix_file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"cannot read features {name!r} from {matrix_file}: {error}; "
            f"save them with numpy.save as an array of floats"
        ) from error
    if not isinstance(matrix, np.ndarray):
        raise ValueError(f"features {name!r} must be a single .npy array, got {matrix_file}")
    ids = _read_ids(Path(ids_file))
    if matrix.shape[:1] != (len(ids),):
        raise ValueError(
            f"{matrix_file} must hold a row per id, found shape {matrix.shape} and {len(ids)} ids "
            f"in {ids_file}; are they of one catalogue?"
        )
    present = np.zeros(len(ids), dtype=bool)
    features = FeatureTable(name, ids, matrix, present)
    for start in range(0, len(ids), BLOCK):  # a block at a time: the matrix may exceed the memory
        block = matrix[start : start + BLOCK]
        broken = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(broken):
            raise ValueError(
                f"features {name!r} must be finite, found NaN or infinity for items "
                f"{name_few([ids[start + row] for row in broken])} in {matrix_file}"
            )
        present[start : start + BLOCK] = block.any(axis=1)
    logger.info("%d of %d items have features %r", present.sum(), len(ids), name)
    return features


def check_against_catalogue(
    features: FeatureTable, item_ids: Sequence[str], *, allow_unknown: bool = False
) -> None:
    """Check that the features are of this catalogue, and log how much of it they cover.

    Raises ValueError if they hold ids that the catalogue lacks, unless `allow_unknown`.
    """
    catalogue = set(item_ids)
    unknown = [item for item in features.ids if item not in catalogue]
    if unknown and not allow_unknown:
        raise ValueError(
            f"features {features.name!r} must be of items in the catalogue, found {len(unknown)} "
            f"of {len(features)} ids that it lacks: {name_few(unknown)}; check that both come "
            f"from one data set, or set allow_unknown=True if the catalogue was filtered"
        )
    _, present = features.select(item_ids)
    logger.info("%d of %d items have features %r", present.sum(), len(present), features.name)


def _read_ids(path: Path) -> tuple[str, ...]:
    if path.suffix.lower() != ".csv":
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read {path} as a list of ids in UTF-8: {error}") from error
        return tuple(lines if lines[-1] else lines[:-1])
    rows = read_csv(path, ["item_id"])
    if not rows or "row" not in rows[0]:
        return tuple(row["item_id"] for row in rows)
    at = {row["row"]: row["item_id"] for row in rows}
    if set(at) != {str(k) for k in range(len(rows))}:
        raise ValueError(
            f"the column 'row' of {path} must hold each of 0..{len(rows) - 1} once; "
            f"drop the column if the lines are in the order of the matrix"
        )
    return tuple(at[str(k)] for k in range(len(rows)))
