"""Folders of matrices with the ids beside them: `text_feat.npy`, `image_feat.npy`, `ids.csv`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FeaturesFolder"]

DESCRIPTION = "features.json"
MATRIX_ENDING = "_feat.npy"
IDS_FILES = ("ids.csv", "i_id_mapping.csv")


@dataclass(frozen=True)
class FeaturesFolder:
    """What a folder offers: `<kind>_feat.npy` for each kind, and perhaps features.json.

    folder: also a data folder of MMRec. kinds: kind → its matrix. ids: the file that says which
    row is of which item, if any. description: what features.json says, {} without it:
    `{"text": {"file": ..., "dim": ...}, "ids": {"file": ...}, "rows": ...}`, all optional.
    """

    folder: Path
    kinds: dict[str, Path]
    ids: Path | None
    description: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> FeaturesFolder:
        """Look into a folder; raises ValueError if features.json is damaged or names no file."""
        found = sorted(folder.glob(f"*{MATRIX_ENDING}"))
        kinds = {path.name[: -len(MATRIX_ENDING)]: path for path in found}
        ids = next((folder / name for name in IDS_FILES if (folder / name).is_file()), None)
        description = _read(folder / DESCRIPTION) if (folder / DESCRIPTION).is_file() else {}
        for kind, entry in description.items():
            if isinstance(entry, dict) and "file" in entry:
                path = folder / str(entry["file"])
                if path.parent != folder or not path.is_file():
                    raise ValueError(
                        f"{folder / DESCRIPTION} must name files beside it, found "
                        f"{entry['file']!r} for {kind!r}, which is not there"
                    )
                if kind == "ids":
                    ids = path
                else:
                    kinds[kind] = path
        return cls(folder, kinds, ids, description)

    def choose(self, kind: str | None) -> str:
        """The kind asked for, or the only one; raises ValueError if there is no such kind."""
        if kind is None and len(self.kinds) == 1:
            return next(iter(self.kinds))
        if kind not in self.kinds:
            raise ValueError(
                f"kind must be one of {sorted(self.kinds)}, the features that {self.folder} holds, "
                f"got {kind!r}"
            )
        return kind

    def check(self, kind: str, matrix: np.ndarray) -> None:
        """Raise ValueError if features.json describes a matrix of another shape."""
        entry = self.description.get(kind)
        dimensions = entry.get("dim") if isinstance(entry, dict) else None
        described = (self.description.get("rows"), dimensions)
        if any(said not in (None, real) for said, real in zip(described, matrix.shape)):
            raise ValueError(
                f"{self.kinds[kind]} must have the shape that {DESCRIPTION} gives, {described}, "
                f"found {matrix.shape}; take both from one source"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path} as JSON: {error}; repair or delete it") from error
    if not isinstance(description, dict):
        raise ValueError(f"{path} must hold an object, found {description!r}; repair or delete it")
    return description
