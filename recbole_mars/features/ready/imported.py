"""Ready-made features: vectors somebody else computed, checked as strictly as our own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recbole_mars.features.catalogue.ids import check_strings, name_few
from recbole_mars.features.ready.atomic_vectors import is_atomic, read_atomic_vectors
from recbole_mars.features.ready.features_folder import FeaturesFolder
from recbole_mars.features.ready.row_ids import read_row_ids
from recbole_mars.features.stores.store import FeatureStore
from recbole_mars.features.stores.table import FeatureTable

__all__ = ["check_against_catalogue", "import_features"]

logger = logging.getLogger(__name__)

BLOCK = 65_536
ROWS = "rows"  # as ids: the items are called '0', '1', ... like their rows
MAGIC = b"\x93NUMPY"
ACCEPTED = """\
- a .npy file of floats (n, D), with ids: a .csv or .tsv table, a text file with one id a line, or \
'rows' where the items are called after their rows (MMRec, LATTICE)
- an atomic file of RecBole's additional_feat_suffix, with a header like \
iid:token<TAB>item_emb:float_seq
- a folder with text_feat.npy or image_feat.npy, and ids.csv or MMRec's i_id_mapping.csv
- a feature store, the folder with manifest.json that an extraction writes"""


def import_features(
    source: str | Path,
    ids: str | Path | Sequence[str] | None = None,
    *,
    name: str | None = None,
    kind: str | None = None,
    id_column: str | None = None,
    vector_column: str | None = None,
) -> FeatureTable:
    """Read ready features; a row of zeros is an item without features.

    source, memory-mapped unless it is text:

    - a .npy file with (n, D) floats. ids: the ids of the rows, a file of them (`read_row_ids`),
      or 'rows' if the items are called '0' to 'n - 1', as in data of MMRec and LATTICE;
    - a file that RecBole loads by `additional_feat_suffix`, such as ml-100k.itememb
      (`read_atomic_vectors`), which holds the ids;
    - a folder with `text_feat.npy` or `image_feat.npy`, the kind, and `ids.csv` or MMRec's
      `i_id_mapping.csv`, unless ids are given (`FeaturesFolder`);
    - the folder of a `FeatureStore`, which keeps its own name.

    name: what the features are, for logs and errors; without it the kind or the file's name.
    kind: which of a folder's features, if it holds several. id_column: the column with the ids,
    if it is not the usual one. vector_column: that of the vectors in an atomic file of several.

    Raises ValueError if the source is none of these, cannot be read, ids and rows do not match,
    an id stands twice, a value is not finite, or an option is given that the source has no use
    for: names the first ids concerned.
    """
    path = Path(source)
    options = {"ids": ids, "kind": kind, "id_column": id_column, "vector_column": vector_column}
    if path.is_dir():
        if (path / "manifest.json").is_file():
            _refuse(path, "a feature store", options, ())
            return FeatureStore.open(path)
        folder = FeaturesFolder.open(path)
        if not folder.kinds:
            raise ValueError(_unknown(path))
        _refuse(path, "a folder of features", options, ("ids", "kind", "id_column"))
        kind = folder.choose(kind)
        name = name or kind
        matrix = _load(folder.kinds[kind], name)
        folder.check(kind, matrix)
        if ids is None:
            ids = folder.ids
        return _from_matrix(folder.kinds[kind], matrix, ids, id_column, name)
    name = name or path.name
    if not path.exists():
        raise ValueError(
            f"cannot read features {name!r} from {path}: there is no such file or folder; "
            f"correct the name"
        )
    if path.suffix in (".npy", ".npz") or _starts_with(path, MAGIC):
        _refuse(path, "a .npy file", options, ("ids", "id_column"))
        return _from_matrix(path, _load(path, name), ids, id_column, name)
    if is_atomic(path):
        _refuse(path, "an atomic file", options, ("id_column", "vector_column"))
        return _checked(path, name, *read_atomic_vectors(path, id_column, vector_column))
    raise ValueError(_unknown(path))


def check_against_catalogue(
    features: FeatureTable, item_ids: Sequence[str], *, allow_unknown: bool = False
) -> None:
    """Check that the features are of this catalogue, and log how much of it they cover.

    Raises ValueError if they hold ids that the catalogue lacks, unless `allow_unknown`.
    """
    check_strings(item_ids, "the ids of the catalogue")
    catalogue = set(item_ids)
    unknown = [item for item in features.ids if item not in catalogue]
    if unknown and not allow_unknown:
        raise ValueError(
            f"features {features.name!r} must be of items in the catalogue, found {len(unknown)} "
            f"of {len(features)} ids that it lacks: {name_few(unknown)}; check that both come "
            f"from one data set, or set allow_unknown=True if the catalogue was filtered"
        )
    has_features = dict(zip(features.ids, features.present.tolist()))
    lacking = [item for item in item_ids if not has_features.get(item, False)]
    logger.info(
        "%d of %d items have features %r%s",
        len(item_ids) - len(lacking),
        len(item_ids),
        features.name,
        f", none have {name_few(lacking)}" if lacking else "",
    )


def _from_matrix(
    path: Path,
    matrix: np.ndarray,
    ids: str | Path | Sequence[str] | None,
    id_column: str | None,
    name: str,
) -> FeatureTable:
    if ids is None:
        raise ValueError(
            f"features {name!r} in {path} need ids: name a file with the ids of the rows, "
            f"or {ROWS!r} if the items are called after their rows"
        )
    rows = len(matrix) if matrix.ndim else 0
    if isinstance(ids, (str, Path)) and ids != ROWS:
        row_ids, where = read_row_ids(ids, id_column), str(ids)
    elif id_column is not None:
        raise ValueError(f"id_column needs a table of ids, got {id_column!r} without; drop it")
    elif isinstance(ids, (str, Path)):
        row_ids, where = tuple(str(row) for row in range(rows)), "the numbers of the rows"
    else:
        row_ids, where = tuple(ids), "the list of ids"
    if matrix.shape[:1] != (len(row_ids),):
        beyond = f"; row {len(row_ids)} is the first without an id" if row_ids else ""
        if rows < len(row_ids):
            beyond = f"; without a row: {name_few(row_ids[rows:])}"
        raise ValueError(
            f"{path} must hold a row per id, found shape {matrix.shape} and {len(row_ids)} ids in "
            f"{where}{beyond}; are they of one catalogue?"
        )
    return _checked(path, name, row_ids, matrix)


def _load(path: Path, name: str) -> np.ndarray:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"cannot read features {name!r} from {path}: {error}; "
            f"save them with numpy.save as an array of floats"
        ) from error
    if not isinstance(matrix, np.ndarray):
        raise ValueError(f"features {name!r} must be a single .npy array, got {path}")
    return matrix


def _checked(path: Path, name: str, ids: tuple[str, ...], matrix: np.ndarray) -> FeatureTable:
    present = np.zeros(len(ids), dtype=bool)
    features = FeatureTable(name, ids, matrix, present)
    for start in range(0, len(ids), BLOCK):  # a block at a time: the matrix may exceed the memory
        block = matrix[start : start + BLOCK]
        broken = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(broken):
            raise ValueError(
                f"features {name!r} must be finite, found NaN or infinity for items "
                f"{name_few([ids[start + row] for row in broken])} in {path}"
            )
        present[start : start + BLOCK] = block.any(axis=1)
    logger.info("%d of %d items have features %r", present.sum(), len(ids), name)
    return features


def _refuse(path: Path, what: str, options: Mapping[str, object], usable: Sequence[str]) -> None:
    idle = [name for name, value in options.items() if value is not None and name not in usable]
    if idle:
        raise ValueError(f"{what} has no use for {', '.join(idle)}, got {path}; drop it")


def _starts_with(path: Path, magic: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic


def _unknown(path: Path) -> str:
    return f"ready features must be one of the following, found otherwise in {path}:\n{ACCEPTED}"
