"""Flat columns on disk: written once, then memory-mapped, so that processes share their pages."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["load_columns", "save_columns"]

_CONTENTS = "contents.json"  # written last: a folder that has it is whole


def save_columns(folder: Path, columns: Mapping[str, np.ndarray], notes: Mapping[str, Any]) -> None:
    """Write columns of numbers, and notes that JSON can hold, as a folder of .npy files.

    It is written under another name and then renamed. A folder that is there already stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    unfinished = place / folder.name
    try:
        unfinished.mkdir()
        for number, values in enumerate(columns.values()):
            np.save(unfinished / f"{number}.npy", values, allow_pickle=False)
        contents = json.dumps({"columns": list(columns), "notes": dict(notes)})
        (unfinished / _CONTENTS).write_text(contents, encoding="utf-8")
        if not folder.exists():
            unfinished.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(place, ignore_errors=True)


def load_columns(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Map what save_columns wrote; nothing is read before it is used.

    Pages are shared by all processes that map the folder; who writes to an array gets a page of
    his own, and the file stays as it is.

    Raises ValueError naming the folder if it is not whole.
    """
    try:
        contents = json.loads((folder / _CONTENTS).read_text(encoding="utf-8"))
        columns = {
            name: np.load(folder / f"{number}.npy", mmap_mode="c", allow_pickle=False)
            for number, name in enumerate(contents["columns"])
        }
        return columns, contents["notes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} must hold {_CONTENTS} and the .npy files it lists, got {error!r}; delete it "
            "and it will be made again"
        ) from error
