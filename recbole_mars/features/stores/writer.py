"""Writing a feature store: beside its folder, in pieces, and moved there as a whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from recbole_mars.features.catalogue.ids import check_ids, name_few
from recbole_mars.features.stores.locking import writing_lock
from recbole_mars.features.stores.quantise import cosine_errors, dequantise, quantise
from recbole_mars.features.stores.reduction import Projection
from recbole_mars.features.stores.scaled_matrix import ScaledMatrix
from recbole_mars.features.stores.store import (
    DATA_FILES,
    FORMAT,
    MANIFEST,
    FeatureStore,
    describe_file,
)

__all__ = [
    "DTYPES",
    "StoreWriter",
    "check_target",
    "put_in_place",
    "restore_replaced",
    "write_store",
]

LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # left by systems that merely looked
DTYPES = ("float16", "float32", "int8")


class StoreWriter:
    """Writes a store of n items piece by piece; the matrix never has to be in memory.

    Used in a `with` statement: `put` rows, then `commit`. The files are written next to `folder`
    and moved there together: a kill leaves the old store or the new one, in its place or where
    `restore_replaced` finds it, and what else it leaves goes with the next write. Writers wait for
    each other by a lock file next to `folder`.

    present: (n,) bool, the rows that have been put and are not all zeros. varied: whether two of
    those differ.

    name: of the features, for errors. ids: n strings without newlines. dimensions: D.
    dtype: "float16", "float32", or "int8" with a scale a row.

    Raises ValueError if ids or dtype are wrong, or `folder` holds files that no store writes.
    """

    def __init__(
        self, name: str, folder: str | Path, ids: Sequence[str], dimensions: int, dtype: str
    ) -> None:
        check_ids(ids, f"the ids of {name!r}")
        if dimensions < 1 or not len(ids):
            raise ValueError(
                f"features {name!r} must have at least a row and a column, "
                f"got ({len(ids)}, {dimensions})"
            )
        self.name = name
        self.ids = tuple(ids)
        self.dtype = dtype
        self.dimensions = dimensions
        self._folder = Path(folder).resolve()
        self._fresh = self._folder.with_name(f".{self._folder.name}.writing")
        self.present = np.zeros(len(ids), dtype=bool)
        self.varied = False
        self._first: np.ndarray | None = None
        self._scales = np.zeros(len(ids), dtype=np.float32) if dtype == "int8" else None
        self._turned = np.zeros(len(ids), dtype=np.float32)  # 1 - cosine, by int8

    def __enter__(self) -> StoreWriter:
        self._lock = writing_lock(self._folder)
        self._lock.acquire()
        try:
            restore_replaced(self._folder)
            check_target(self._folder, self.dtype)
            for leftover in (self._fresh, _replaced(self._folder)):
                shutil.rmtree(leftover, ignore_errors=True)
            self._fresh.mkdir()
            self._matrix = self._make_matrix()
        except BaseException:
            shutil.rmtree(self._fresh, ignore_errors=True)
            self._lock.release()
            raise
        return self

    def _make_matrix(self) -> np.memmap:
        path, shape = self._fresh / "features.npy", (len(self.ids), self.dimensions)
        matrix = np.lib.format.open_memmap(path, mode="w+", dtype=self.dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # on a full disk, writing into the map would kill us
            with open(path, "rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return matrix

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._fresh, ignore_errors=True)
        self._lock.release()

    def put(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Write the vectors, (m, D) floats, of these rows, (m,) integers; all zeros are absent.

        Raises ValueError, naming the items, if values are not finite or do not fit the dtype.
        """
        if vectors.shape != (len(rows), self.dimensions):
            raise ValueError(
                f"features {self.name!r} must have shape ({len(rows)}, {self.dimensions}), "
                f"got {vectors.shape}"
            )
        finite = np.isfinite(vectors).all(axis=1)
        self._refuse(rows[~finite], "must be finite, found NaN or infinity")
        filled = vectors.any(axis=1)
        if filled.any() and not self.varied:
            if self._first is None:
                self._first = vectors[filled][0].copy()
            self.varied = bool((vectors[filled] != self._first).any())
        if self._scales is not None:
            # From what float16 holds, so that a float16 store converts to these very bytes.
            self._check_fit(rows, filled, _cast(vectors, "float16"), "rescale the features")
            vectors = _cast(vectors, "float16").astype(np.float32)
            self._matrix[rows], self._scales[rows] = quantised, scales = quantise(vectors)
            self._turned[rows] = cosine_errors(vectors, dequantise(quantised, scales))
        else:
            stored = _cast(vectors, self.dtype)
            remedy = "rescale the features" if self.dtype == "float32" else "use dtype='float32'"
            self._check_fit(rows, filled, stored, remedy)
            self._matrix[rows] = stored
        self.present[rows] = filled

    def put_from(self, rows: np.ndarray, store: FeatureStore, store_rows: np.ndarray) -> None:
        """Copy rows of another store, as `put` would have written what they were made of.

        Rows of an int8 store go into an int8 store only.
        """
        matrix = store.matrix
        if self._scales is not None and isinstance(matrix, ScaledMatrix):
            self._matrix[rows] = matrix.quantised[store_rows]
            self._scales[rows] = matrix.scales[store_rows]
            assert store.cosine_error is not None
            self._turned[rows] = store.cosine_error[store_rows]
            self.present[rows] = store.present[store_rows]
            self.varied = True
        else:
            self.put(rows, matrix[store_rows])

    def commit(
        self,
        *,
        settings: Mapping[str, Any],
        fingerprint: str,
        present: np.ndarray | None = None,
        provenance: Mapping[str, Any] | None = None,
        sources: np.ndarray | None = None,
        truncated: np.ndarray | None = None,
        broken: Mapping[str, str] | None = None,
        projection: Projection | None = None,
    ) -> FeatureStore:
        """Finish the store, in place of the one that the folder holds, and open it.

        present: (n,) bool, if not the rows with values. sources: (n, 32) uint8, the SHA-256 of
        what each row was made from, zeros for nothing. truncated: (n,) bool, whether the model
        could read only a part of it. broken: id → why its picture did not decode. projection: how
        the vectors were reduced.
        """
        if present is not None:
            self._refuse(
                np.flatnonzero(self.present & ~present),
                "must be zero where present is False, found values",
            )
            self.present = present
        n = len(self.ids)
        self._matrix.flush()
        del self._matrix
        kept = {"present.npy": self.present}
        kept["sources.npy"] = np.zeros((n, 32), np.uint8) if sources is None else sources
        kept["truncated.npy"] = np.zeros(n, bool) if truncated is None else truncated
        if self._scales is not None:
            kept["scales.npy"] = self._scales
            kept["cosine_error.npy"] = self._turned
        if projection is not None:
            projection.save(self._fresh)
        for name, array in kept.items():
            np.save(self._fresh / name, array, allow_pickle=False)
        _write_text(self._fresh / "ids.txt", "".join(f"{item}\n" for item in self.ids))
        if broken:
            lines = [f"{item}\t{_one_line(reason)}\n" for item, reason in broken.items()]
            _write_text(self._fresh / "broken.txt", "".join(lines))
        files = sorted(self._fresh.iterdir())
        manifest = {
            "format": FORMAT,
            "encoder": self.name,
            "settings": dict(settings),
            "provenance": dict(provenance or {}),
            "fingerprint": fingerprint,
            "rows": n,
            "dimensions": self.dimensions,
            "dtype": self.dtype,
            "broken": len(broken or ()),
            "files": {path.name: describe_file(path) for path in files},
            "created_by": f"recbole_mars {_library_version()}",
        }
        text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False)
        _write_text(self._fresh / MANIFEST, text + "\n")
        for path in (*files, self._fresh / MANIFEST):
            _sync(path)
        put_in_place(self._fresh, self._folder)
        return FeatureStore.open(self._folder)

    def _check_fit(
        self, rows: np.ndarray, filled: np.ndarray, stored: np.ndarray, remedy: str
    ) -> None:
        unfit = ~np.isfinite(stored).all(axis=1) | (filled & ~stored.any(axis=1))
        kind = stored.dtype if self._scales is None else f"{self.dtype}, made from {stored.dtype}"
        self._refuse(rows[unfit], f"are too large or too small for {kind}; {remedy}; found so")

    def _refuse(self, rows: np.ndarray, complaint: str) -> None:
        if len(rows):
            offenders = name_few([self.ids[row] for row in rows])
            raise ValueError(f"features {self.name!r} {complaint} for items {offenders}")


def write_store(
    folder: str | Path,
    ids: Sequence[str],
    matrix: np.ndarray,
    present: np.ndarray,
    *,
    encoder: str,
    settings: Mapping[str, Any],
    fingerprint: str,
    dtype: str = "float16",
    **others: Any,
) -> FeatureStore:
    """Write a store from a whole matrix, in place of the one that `folder` holds, and open it.

    matrix: (n, D) floats, zeros where `present`, (n,) bool, is False. The others: as `StoreWriter`
    and its `commit` take them.

    Raises ValueError if values are not finite or do not fit the dtype, shapes or ids are wrong, or
    `folder` holds files that no store writes.
    """
    matrix, present = np.asarray(matrix), np.asarray(present)
    if matrix.ndim != 2 or len(matrix) != len(ids):
        raise ValueError(
            f"features {encoder!r} must have shape ({len(ids)}, D), got {matrix.shape}"
        )
    if present.shape != (len(ids),) or present.dtype != bool:
        raise ValueError(
            f"present of {encoder!r} must be bool of shape ({len(ids)},), "
            f"got {present.dtype} of shape {present.shape}"
        )
    with StoreWriter(encoder, folder, ids, matrix.shape[1], dtype) as writer:
        writer.put(np.arange(len(ids)), matrix)
        return writer.commit(settings=settings, fingerprint=fingerprint, present=present, **others)


def put_in_place(fresh: Path, folder: Path) -> None:
    """Move a whole store to `folder`, in place of what is there; the caller holds its lock.

    A kill leaves the old one, the new one, or the old one where `restore_replaced` finds it.
    """
    if folder.exists():
        folder.rename(_replaced(folder))
    fresh.rename(folder)
    if os.name == "posix":  # so that a power cut does not undo one rename without the other
        parent = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    shutil.rmtree(_replaced(folder), ignore_errors=True)


def restore_replaced(folder: Path) -> None:
    """Put back the store that a writer had moved aside when it was killed."""
    with writing_lock(folder):
        if not folder.exists() and (_replaced(folder) / MANIFEST).is_file():
            _replaced(folder).rename(folder)


def _replaced(folder: Path) -> Path:
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.replaced")


def check_target(folder: Path, dtype: str) -> None:
    """Raise ValueError if a store of this dtype cannot be written, or `folder` holds other files.

    An extraction asks before it encodes for hours.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, got {dtype!r}")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"a feature store needs a folder, found a file: {folder}")
    foreign = sorted({path.name for path in folder.iterdir()} - {*DATA_FILES, MANIFEST, *LITTER})
    if foreign:
        raise ValueError(
            f"writing a feature store replaces the whole folder {folder}, but it holds other "
            f"files: {name_few(foreign)}; name a new or an empty folder"
        )


def _cast(vectors: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        return np.ascontiguousarray(vectors, dtype=dtype)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "replace"))  # ids are checked; a reason may hold anything


def _library_version() -> str:
    try:
        return metadata.version("recbole_mars")
    except metadata.PackageNotFoundError:
        return "of a source tree"
