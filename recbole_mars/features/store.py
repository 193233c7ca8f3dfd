"""A folder of features that is either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from recbole_mars.features.ids import name_few
from recbole_mars.features.table import FeatureTable

__all__ = ["FORMAT", "CorruptStoreError", "FeatureStore", "check_target", "writing_lock"]

FORMAT = 1  # raised when what the files hold changes; older stores are then built anew
MANIFEST = "manifest.json"
DATA_FILES = ("features.npy", "present.npy", "ids.txt", "broken.txt")
MANIFEST_FIELDS: dict[str, type] = {
    "encoder": str,
    "settings": dict,
    "fingerprint": str,
    "rows": int,
    "dimensions": int,
    "dtype": str,
    "broken": int,
    "files": dict,
    "created_by": str,
}


class CorruptStoreError(ValueError):
    """The files of a feature store are not those that were written."""


@dataclass(frozen=True, eq=False)
class FeatureStore(FeatureTable):
    """Features in a folder: memory-mapped, checked against checksums, replaced as a whole.

    features.npy: (n, D) float16 or float32. present.npy: (n,) bool. ids.txt: one id a line, in
    UTF-8, so an id may hold any character but a newline. broken.txt: the pictures that did not
    decode, if any. manifest.json: what the features were made from and the checksum of each file.

    folder: where the store is. manifest: what manifest.json says.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def write(
        cls,
        folder: str | Path,
        ids: Sequence[str],
        matrix: np.ndarray,
        present: np.ndarray,
        *,
        encoder: str,
        settings: Mapping[str, Any],
        fingerprint: str,
        dtype: str = "float16",
        broken: Mapping[str, str] | None = None,
    ) -> FeatureStore:
        """Write a store, in place of the one that `folder` holds, and open it.

        The files are written next to `folder` and moved there together: a kill leaves the old
        store, none, or the new one, and what else it leaves goes with the next write. Writers
        wait for each other by a lock file next to `folder`.

        ids: n strings without newlines. matrix: (n, D) floats, zeros where `present`, (n,) bool,
        is False. dtype: float16 or float32. broken: id → why its picture did not decode.

        Raises ValueError if values are not finite or do not fit the dtype, shapes or ids are
        wrong, or `folder` holds files that no store writes.
        """
        table = FeatureTable(encoder, tuple(ids), np.asarray(matrix), np.asarray(present))
        folder = Path(folder).resolve()
        fresh = folder.with_name(f".{folder.name}.writing")
        replaced = folder.with_name(f".{folder.name}.replaced")
        with writing_lock(folder):
            check_target(folder, dtype)
            stored = _as_stored(table, dtype)
            for leftover in (fresh, replaced):
                shutil.rmtree(leftover, ignore_errors=True)
            try:
                fresh.mkdir()
                np.save(fresh / "features.npy", stored, allow_pickle=False)
                np.save(fresh / "present.npy", table.present, allow_pickle=False)
                _write_text(fresh / "ids.txt", "".join(f"{item}\n" for item in table.ids))
                if broken:
                    lines = [f"{item}\t{reason}\n" for item, reason in broken.items()]
                    _write_text(fresh / "broken.txt", "".join(lines))
                manifest = {
                    "format": FORMAT,
                    "encoder": encoder,
                    "settings": dict(settings),
                    "fingerprint": fingerprint,
                    "rows": stored.shape[0],
                    "dimensions": stored.shape[1],
                    "dtype": dtype,
                    "broken": len(broken or ()),
                    "files": {path.name: _describe(path) for path in sorted(fresh.iterdir())},
                    "created_by": f"recbole_mars {_library_version()}",
                }
                text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False)
                _write_text(fresh / MANIFEST, text + "\n")
                if folder.exists():
                    folder.rename(replaced)
                fresh.rename(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)
            return cls.open(folder)

    @classmethod
    def open(cls, folder: str | Path) -> FeatureStore:
        """Open the store in `folder`, having checked every byte of it.

        Raises FileNotFoundError if there is no such folder, CorruptStoreError if the store is
        incomplete, damaged, or of another format version.
        """
        folder = Path(folder).resolve()
        if not folder.is_dir():
            raise FileNotFoundError(f"no feature store in {folder}: there is no such folder")
        try:
            manifest = _read_manifest(folder)
            matrix = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
            present = np.load(folder / "present.npy", allow_pickle=False)
            text = (folder / "ids.txt").read_bytes().decode("utf-8")
            # Not splitlines: it would also split at the other separators that an id may hold.
            ids = tuple(text.split("\n")[:-1])
            store = cls(manifest["encoder"], ids, matrix, present, folder, manifest)
            described = (manifest["rows"], manifest["dimensions"], manifest["dtype"])
            if (*matrix.shape, matrix.dtype) != described:
                raise ValueError(
                    f"features.npy is {matrix.dtype} {matrix.shape}, the manifest says {described}"
                )
        except (OSError, ValueError) as error:
            raise CorruptStoreError(
                f"the feature store in {folder} is corrupt: {error}; "
                f"extracting again rebuilds it, and so does deleting the folder first"
            ) from error
        return store


def writing_lock(folder: Path) -> FileLock:
    """The lock that a writer of `folder` holds; it ends with its process, however that ends.

    Taking it again within a thread that holds it is allowed.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    return _lock_of_holder(path, os.getpid(), threading.get_ident())


@cache  # one lock object can be taken twice, two of one file cannot
def _lock_of_holder(path: Path, process: int, thread: int) -> FileLock:
    return FileLock(path)


def check_target(folder: Path, dtype: str) -> None:
    """Raise ValueError if a store of this dtype cannot be written, or `folder` holds other files.

    An extraction asks before it encodes for hours.
    """
    if dtype not in ("float16", "float32"):
        raise ValueError(f"dtype must be 'float16' or 'float32', got {dtype!r}")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"a feature store needs a folder, found a file: {folder}")
    foreign = sorted({path.name for path in folder.iterdir()} - {*DATA_FILES, MANIFEST})
    if foreign:
        raise ValueError(
            f"writing a feature store replaces the whole folder {folder}, but it holds other "
            f"files: {name_few(foreign)}; name a new or an empty folder"
        )


def _as_stored(table: FeatureTable, dtype: str) -> np.ndarray:
    """The matrix in the stored dtype, or ValueError naming the items whose values cannot be."""
    _refuse(table, ~np.isfinite(table.matrix).all(axis=1), "must be finite, found NaN or infinity")
    filled = table.matrix.any(axis=1)
    _refuse(table, filled & ~table.present, "must be zero where present is False, found values")
    with np.errstate(over="ignore", under="ignore"):
        stored = np.ascontiguousarray(table.matrix, dtype=dtype)
    unfit = ~np.isfinite(stored).all(axis=1) | (filled & ~stored.any(axis=1))
    remedy = "use dtype='float32'" if dtype == "float16" else "rescale the features"
    _refuse(table, unfit, f"are too large or too small for {dtype}; {remedy}; found so")
    return stored


def _refuse(table: FeatureTable, bad: np.ndarray, complaint: str) -> None:
    if bad.any():
        offenders = [table.ids[row] for row in np.flatnonzero(bad)]
        raise ValueError(f"features {table.name!r} {complaint} for items {name_few(offenders)}")


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, once it is well-formed and every file is as it says; else ValueError."""
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"it has no {MANIFEST}")
    manifest = json.loads((folder / MANIFEST).read_bytes())
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise ValueError(f"{MANIFEST} must be of format {FORMAT}, found {found!r}")
    for field, kind in MANIFEST_FIELDS.items():
        if not isinstance(manifest.get(field), kind):
            raise ValueError(f"{MANIFEST} must hold {field!r} as {kind.__name__}")
    files = manifest["files"]
    if not {"features.npy", "present.npy", "ids.txt"} <= set(files) <= set(DATA_FILES):
        raise ValueError(f"{MANIFEST} must describe a store's files, found {sorted(files)}")
    for name, described in files.items():
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
        found = _describe(folder / name)
        if found != described:
            raise ValueError(f"{name} must be {described}, found {found}")
    return manifest


def _describe(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


def _library_version() -> str:
    try:
        return metadata.version("recbole_mars")
    except metadata.PackageNotFoundError:
        return "of a source tree"
