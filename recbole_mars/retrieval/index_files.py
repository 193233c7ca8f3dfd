"""A folder that holds a user index: whole or not there, read without pickle, mapped by option."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from recbole_mars.retrieval.faiss_index import KINDS, STORAGES

__all__ = ["read_index", "write_index"]

_FORMAT = 1  # raised when what the files hold changes
_SETTINGS = "index.json"
_FAISS = "index.faiss"
_ARRAYS = ("user_ids", "center", "vectors")
# FAISS below 1.11 cannot map every kind of index; there its part is read into memory.
_MAPPED = getattr(faiss, "IO_FLAG_MMAP_IFC", 0)


def write_index(
    folder: Path,
    settings: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    approximate: faiss.Index | None,
) -> None:
    """Write an index beside its folder, then put it in the place of the one there.

    settings: kind, storage, rerank, users H and width D, whole numbers and words. arrays: user_ids
    (H,) and, where the index has them, center (D,) and vectors (H, D).
    Raises ValueError if the folder holds anything that no index writes.
    """
    folder = folder.resolve()
    if folder.exists():
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
        foreign = sorted(names - {_SETTINGS, _FAISS, *(f"{name}.npy" for name in _ARRAYS)})
        if foreign:
            raise ValueError(
                f"saving an index replaces the whole folder {folder}, but it holds "
                f"{', '.join(foreign[:5])}; name a new or an empty folder"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    fresh, replaced = place / "writing", place / "replaced"
    try:
        fresh.mkdir()
        for name, values in arrays.items():
            np.save(fresh / f"{name}.npy", values, allow_pickle=False)
        if approximate is not None:
            faiss.write_index(approximate, str(fresh / _FAISS))
        sizes = {path.name: path.stat().st_size for path in sorted(fresh.iterdir())}
        described = {"format": _FORMAT, **settings, "files": sizes, "faiss": faiss.__version__}
        (fresh / _SETTINGS).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(replaced)
        try:
            fresh.rename(folder)
        except OSError:
            if replaced.exists():
                replaced.rename(folder)
            raise
    finally:
        shutil.rmtree(place, ignore_errors=True)


def read_index(
    folder: Path, mmap: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray], faiss.Index | None]:
    """What write_index was given. mmap: arrays and FAISS's part stay in their files.

    Raises FileNotFoundError for a missing folder or file, ValueError for files that are not those
    that were written, or of another format.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no user index in {folder}: there is no such folder; make it with UserIndex.save"
        )
    try:
        settings = _read_settings(folder / _SETTINGS)
        for name, size in settings["files"].items():
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{name} is missing")
            if (folder / name).stat().st_size != size:
                found = (folder / name).stat().st_size
                raise ValueError(f"{name} must have {size} bytes, found {found}")
        arrays = {
            name: np.asarray(
                np.load(folder / f"{name}.npy", "r" if mmap else None, allow_pickle=False)
            )
            for name in _ARRAYS
            if f"{name}.npy" in settings["files"]
        }
        approximate = None
        if _FAISS in settings["files"]:
            approximate = faiss.read_index(str(folder / _FAISS), _MAPPED if mmap else 0)
        _check_shapes(settings, arrays, approximate)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{_failed(folder)}: {error}; {_REMEDY}") from error
    except (OSError, ValueError, RuntimeError) as error:  # the last is FAISS's
        raise ValueError(f"{_failed(folder)}: {error}; {_REMEDY}") from error
    return settings, arrays, approximate


_REMEDY = "build the index again and save it with UserIndex.save"
_FIELDS: dict[str, type] = {
    "kind": str,
    "storage": str,
    "rerank": int,
    "users": int,
    "width": int,
    "files": dict,
}


def _failed(folder: Path) -> str:
    return f"the user index in {folder} cannot be loaded"


def _read_settings(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file.name} is missing")
    try:
        settings = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file.name} must be JSON, found {error}") from None
    found = settings.get("format") if isinstance(settings, dict) else type(settings).__name__
    if found != _FORMAT:
        raise ValueError(f"{file.name} must be of format {_FORMAT}, found {found!r}")
    for field, kind in _FIELDS.items():
        if not isinstance(settings.get(field), kind):
            raise ValueError(
                f"{file.name} must hold {field!r} as {kind.__name__}, found {settings.get(field)!r}"
            )
    if settings["kind"] not in KINDS or settings["storage"] not in STORAGES:
        raise ValueError(
            f"{file.name} must name a known kind and storage, "
            f"found {settings['kind']!r} and {settings['storage']!r}"
        )
    plain = (settings["kind"], settings["storage"]) == ("flat", "float32")
    needed = {"user_ids.npy"} | ({"vectors.npy"} if plain or settings["rerank"] else set())
    needed |= set() if plain else {_FAISS}
    allowed = needed | {"center.npy"}
    if not needed <= set(settings["files"]) <= allowed:
        raise ValueError(
            f"{file.name} must list {', '.join(sorted(needed))}, "
            f"found {', '.join(sorted(settings['files'])) or 'none'}"
        )
    return settings


def _check_shapes(
    settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray], approximate: faiss.Index | None
) -> None:
    users, width = settings["users"], settings["width"]
    wanted = {
        "user_ids": ((users,), "int64"),
        "center": ((width,), "float32"),
        "vectors": ((users, width), "float32"),
    }
    for name, values in arrays.items():
        if (values.shape, str(values.dtype)) != wanted[name]:
            shape, dtype = wanted[name]
            raise ValueError(
                f"{name}.npy must be {dtype} {shape}, found {values.dtype} {values.shape}"
            )
    if approximate is not None and (approximate.ntotal, approximate.d) != (users, width):
        raise ValueError(
            f"{_FAISS} must hold {users} users of width {width}, "
            f"found {approximate.ntotal} of width {approximate.d}"
        )
