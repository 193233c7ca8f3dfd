"""A folder of features that is either whole or not there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_mars.data.files import sha256_of_file
from recbole_mars.features.stores.scaled_matrix import ScaledMatrix
from recbole_mars.features.stores.table import FeatureTable

__all__ = ["DATA_FILES", "FORMAT", "MANIFEST", "CorruptStoreError", "FeatureStore", "describe_file"]

FORMAT = 2  # raised when what the files hold changes; older stores are then built anew
MANIFEST = "manifest.json"
NEEDED = ("features.npy", "present.npy", "ids.txt", "sources.npy", "truncated.npy")
QUANTISED = ("scales.npy", "cosine_error.npy")
DATA_FILES = (*NEEDED, *QUANTISED, "broken.txt", "projection.npz")
MANIFEST_FIELDS: dict[str, type] = {
    "encoder": str,
    "settings": dict,
    "provenance": dict,
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

    features.npy: (n, D) float16, float32 or int8; for int8, scales.npy: (n,) float32, what each row
    is multiplied by, and cosine_error.npy: (n,) float32, 1 - cosine to what it was. present.npy:
    (n,) bool. truncated.npy: (n,) bool, whether the model read only a part of the input.
    sources.npy: (n, 32) uint8, the SHA-256 of each item's text or picture file, zeros for none.
    ids.txt: one id a line, in UTF-8, so an id may hold any character but a newline. broken.txt: the
    pictures that did not decode, if any. projection.npz: how the features were reduced, if they
    were. manifest.json: what the features were made from and the checksum of each file.

    folder: where the store is. manifest: what manifest.json says. sources, truncated: as above.
    cosine_error: as above, None if the store is not int8. broken: why an item's input does not
    decode, by id. All are of the files that were opened, whatever becomes of the folder.
    """

    folder: Path
    manifest: dict[str, Any]
    sources: np.ndarray
    truncated: np.ndarray
    cosine_error: np.ndarray | None
    broken: dict[str, str]

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
            matrix = _read_matrix(folder)
            present = np.load(folder / "present.npy", allow_pickle=False)
            text = (folder / "ids.txt").read_bytes().decode("utf-8")
            # Not splitlines: it would also split at the other separators that an id may hold.
            ids = tuple(text.split("\n")[:-1])
            error_file = "cosine_error.npy" if manifest["dtype"] == "int8" else None
            store = cls(
                manifest["encoder"],
                ids,
                matrix,
                present,
                folder,
                manifest,
                np.load(folder / "sources.npy", mmap_mode="r", allow_pickle=False),
                np.load(folder / "truncated.npy", allow_pickle=False),
                np.load(folder / error_file, allow_pickle=False) if error_file else None,
                _read_broken(folder) if "broken.txt" in manifest["files"] else {},
            )
            described = (manifest["rows"], manifest["dimensions"], manifest["dtype"])
            stored = matrix.quantised if isinstance(matrix, ScaledMatrix) else matrix
            if (*stored.shape, stored.dtype) != described:
                raise ValueError(
                    f"features.npy is {stored.dtype} {stored.shape}, the manifest says {described}"
                )
        except (OSError, ValueError) as error:
            raise CorruptStoreError(
                f"the feature store in {folder} is corrupt: {error}; "
                f"extracting again rebuilds it, and so does deleting the folder first"
            ) from error
        return store


def _read_broken(folder: Path) -> dict[str, str]:
    lines = (folder / "broken.txt").read_bytes().decode("utf-8").split("\n")[:-1]
    return dict(line.rsplit("\t", 1) for line in lines)  # an id may hold a tab, a reason not


def _read_matrix(folder: Path) -> np.ndarray | ScaledMatrix:
    matrix = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
    if matrix.dtype != np.int8:
        return matrix
    return ScaledMatrix(matrix, np.load(folder / "scales.npy", allow_pickle=False))


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
    needed = {*NEEDED, *(QUANTISED if manifest["dtype"] == "int8" else ())}
    if not needed <= set(files) <= set(DATA_FILES):
        raise ValueError(f"{MANIFEST} must describe a store's files, found {sorted(files)}")
    for name, described in files.items():
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
        found = describe_file(folder / name)
        if found != described:
            raise ValueError(f"{name} was changed: its size or checksum is not the manifest's")
    return manifest


def describe_file(path: Path) -> dict[str, Any]:
    """Size and checksum of a file, as the manifest says them."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
