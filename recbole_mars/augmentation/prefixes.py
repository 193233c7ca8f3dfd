"""The prefix of every query row, computed once and kept on disk.

Dimension letters: Q query rows, V borrowed rows in total.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["PrefixTable"]

_ARRAYS = ("rows", "pointers", "values", "donor_similarities")
_SUMMARY = "prefixes.json"


@dataclass(frozen=True)
class PrefixTable:
    """Borrowed rows for query rows, in compressed sparse row form.

    rows: (Q,) int64, ascending: the targets whose histories get a prefix.
    pointers: (Q + 1,) int64. values: (V,) int32 or int64: the prefix of rows[i] is
    values[pointers[i] : pointers[i + 1]], rows of the log in the order in which they stand.
    donor_similarities: (Q,) float32, cosine of the nearest donor (eq. 15), nan if there is none.
    threshold: the cosine that theta came to; -1 where everything is borrowed.

    Raises ValueError if the arrays do not fit together.
    """

    rows: np.ndarray
    pointers: np.ndarray
    values: np.ndarray
    donor_similarities: np.ndarray
    threshold: float

    def __post_init__(self) -> None:
        if np.any(np.diff(self.rows) <= 0):
            raise ValueError("rows must ascend; sort them, with their prefixes")
        if len(self.pointers) != len(self.rows) + 1 or len(self.donor_similarities) != len(
            self.rows
        ):
            raise ValueError(
                f"{len(self.rows)} rows need one pointer more and as many donor_similarities, "
                f"got {len(self.pointers)} and {len(self.donor_similarities)}"
            )
        if (
            self.pointers[0] != 0
            or self.pointers[-1] != len(self.values)
            or np.any(np.diff(self.pointers) < 0)
        ):
            raise ValueError(f"pointers must rise from 0 to the {len(self.values)} values")

    @property
    def mean_length(self) -> float:
        """Mean length of the prefixes; 0 for an empty table."""
        return len(self.values) / max(1, len(self.rows))

    @property
    def empty_share(self) -> float:
        """Share of the query rows with an empty prefix; 0 for an empty table."""
        return int((np.diff(self.pointers) == 0).sum()) / max(1, len(self.rows))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the arrays as .npy files and a summary as JSON, which makes the table complete."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / _SUMMARY).unlink(missing_ok=True)
        for name in _ARRAYS:
            with open(target / f"{name}.npy.tmp", "wb") as file:
                np.save(file, getattr(self, name), allow_pickle=False)
            os.replace(target / f"{name}.npy.tmp", target / f"{name}.npy")
        summary = {
            "threshold": self.threshold,
            "queries": len(self.rows),
            "mean_length": self.mean_length,
            "empty_share": self.empty_share,
        }
        (target / f"{_SUMMARY}.tmp").write_text(json.dumps(summary, indent=2) + "\n")
        os.replace(target / f"{_SUMMARY}.tmp", target / _SUMMARY)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> PrefixTable:
        """Read what save wrote; raises ValueError if the folder holds no complete table."""
        source = Path(folder)
        if not (source / _SUMMARY).is_file():
            raise ValueError(f"no complete prefix table in {source}; build and save it again")
        threshold = json.loads((source / _SUMMARY).read_text())["threshold"]
        arrays = {name: np.load(source / f"{name}.npy", allow_pickle=False) for name in _ARRAYS}
        return cls(**arrays, threshold=threshold)
