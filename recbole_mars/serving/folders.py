"""Folders that appear whole, and that know if a file of theirs was changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "MANIFEST",
    "DamagedFolder",
    "foreign_name",
    "link_folder",
    "read_manifest",
    "whole_folder",
]

MANIFEST = "manifest.json"  # written last: a folder that has it is whole
_FORMAT = 1
_PIECE = 1 << 20


class DamagedFolder(ValueError):
    """A folder is not what its manifest says; the message names the file and the difference."""


@contextmanager
def whole_folder(target: Path, notes: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to write to, which becomes target at once when the block ends, or not at all.

    Beside what the block wrote it then holds a manifest: size and SHA-256 of every file, and the
    notes, which JSON can hold and which the block may still complete. All is on the disk before
    the rename. Raises FileExistsError if target is there.
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already; name another folder or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield aside
        files = {
            path.relative_to(aside).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": _digest(path),
            }
            for path in sorted(aside.rglob("*"))
            if path.is_file()
        }
        text = json.dumps({"format": _FORMAT, "files": files, "notes": dict(notes)}, indent=1)
        (aside / MANIFEST).write_text(text, encoding="utf-8")
        _open_to_whom_the_manifest_is(aside)
        for path in (aside, *aside.rglob("*")):
            sync(path)
        os.chmod(aside, 0o755)  # mkdtemp's are private
        os.rename(aside, target)
        sync(target.parent)
    except OSError as error:
        if error.errno is not None or type(error) is not OSError:
            raise
        # numpy says of a full disk only how many numbers it wrote.
        raise OSError(f"{target} cannot be written, the disk may be full: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _open_to_whom_the_manifest_is(folder: Path) -> None:
    """Some libraries make files that only their owner can read."""
    mode = (folder / MANIFEST).stat().st_mode
    for path in folder.rglob("*"):
        status = path.stat()
        # What is linked is of another folder too, and perhaps of another owner.
        if path.is_file() and status.st_nlink == 1 and status.st_mode != mode:
            os.chmod(path, mode)


def read_manifest(folder: Path, verify: bool = True) -> dict[str, Any]:
    """The notes of a folder that whole_folder wrote.

    verify: read every file and compare its checksum; False compares sizes only.
    Raises FileNotFoundError without a manifest, DamagedFolder for files that are missing, too many
    or other than they were written, or a manifest of another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {MANIFEST}: it is no finished folder of ours")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        wanted, found_format = manifest["files"], manifest["format"]
        notes = dict(manifest["notes"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFolder(f"{path} is damaged: {error!r}; take another version") from None
    if found_format != _FORMAT:
        raise DamagedFolder(f"{path} has format {found_format}, this version reads {_FORMAT}")
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    for name in sorted(there.symmetric_difference([*wanted, MANIFEST])):
        what = "is missing" if name in wanted else "does not belong there"
        raise DamagedFolder(f"{folder / name} {what}; take another version of the folder")
    for name, entry in wanted.items():
        file = folder / name
        size = file.stat().st_size
        if size != entry["bytes"]:
            raise DamagedFolder(f"{file} must have {entry['bytes']} bytes, has {size}")
        if verify and _digest(file) != entry["sha256"]:
            raise DamagedFolder(f"{file} was changed: its SHA-256 is not that of the manifest")
    return notes


def link_folder(source: Path, target: Path, copy: bool = False) -> None:
    """Put the files of a whole folder into another, empty one, without copying where links work.

    Its manifest stays behind: the files are to be parts of another whole. copy: always, for a
    source that others may write to.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        if path == source / MANIFEST:
            continue
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if copy or not _linked(path, place):
            shutil.copyfile(path, place)


def foreign_name(folder: Path, own: str) -> str | None:
    """The first name in a folder that holds none of ours; None if it does, is empty or not there.

    own: pattern of the names that we give.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if any(re.fullmatch(own, name) for name in names):
        return None
    return next((name for name in names if name != "lost+found"), None)


def _linked(path: Path, place: Path) -> bool:
    try:
        os.link(path, place)
    except OSError:  # another file system, or one without links
        return False
    return True


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
