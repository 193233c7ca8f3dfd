"""Gains resampled over test impressions, kept when the scores are not.

The scores of a run are large and stay where it ran; what follows from them goes into
significance.json, from which the tables can be made again. What was computed for other records,
or another number of resamples, is not used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_mars.data.files import write_whole
from recbole_mars.evaluation import PairedResult, auc, paired_bootstrap
from recbole_mars.experiments.paper_report.records import RunRecord, Setting
from recbole_mars.experiments.paper_report.results import Results
from recbole_mars.experiments.score_files import read_columns

__all__ = ["LengthBin", "Resampled"]

_FILE = "significance.json"
_BINS = 8


class LengthBin(NamedTuple):
    """The gain on impressions whose own history has shortest to longest behaviours."""

    shortest: int
    longest: int
    mean: float
    impressions: int
    difference: float
    low: float
    high: float


class Resampled:
    """Paired bootstraps over impressions, of the gain in AUC averaged over the shared seeds."""

    def __init__(self, results: Results, folder: Path, samples: int = 1000) -> None:
        """folder: of the experiment, with scores/<stem of the record>.npz where they were kept.

        Raises ValueError, naming the file, for a significance.json that cannot be read.
        """
        self._results = results
        self._folder = folder
        self._samples = samples
        self._found: dict[str, Any] = {}
        self._loaded: tuple[Path | None, dict[str, np.ndarray]] = (None, {})
        file = folder / _FILE
        try:
            self._stored: Any = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        except ValueError as error:
            raise ValueError(f"{file} must be JSON: {error}; remove it") from None
        if not isinstance(self._stored, dict):
            kind = type(self._stored).__name__
            raise ValueError(f"{file} must hold a JSON object, got {kind}; remove it")

    def gain(self, setting: Setting, method: str, against: str) -> PairedResult | None:
        """None where neither the scores of all shared seeds nor their result were kept.

        Raises ValueError, naming the files, for scores that do not fit their record, or impressions
        that differ between two runs.
        """
        entry = self._entry("gain", setting, method, against)
        return None if entry is None else PairedResult(*entry["gain"])

    def by_length(self, setting: Setting, method: str, against: str) -> list[LengthBin]:
        """Gains by the length of the own history; empty where `gain` would be None."""
        entry = self._entry("by_length", setting, method, against)
        return [] if entry is None else [LengthBin(*bin_) for bin_ in entry["by_length"]]

    def keep(self) -> None:
        """Write everything that was asked for and is known into significance.json."""
        if self._found:
            text = json.dumps(self._found, indent=1, sort_keys=True)
            write_whole(self._folder / _FILE, text + "\n")

    def _entry(self, kind: str, setting: Setting, method: str, against: str) -> Any:
        key = " | ".join([kind, *setting, method, against])
        pairs = self._pairs(setting, method, against)
        if not pairs:
            return None
        records = _fingerprint(pairs, self._samples)
        stored = self._found.get(key) or self._stored.get(key)
        if isinstance(stored, dict) and stored.get("records") == records and kind in stored:
            self._found[key] = stored
            return stored
        if not all(self._scores_file(record).is_file() for pair in pairs for record in pair):
            return None
        columns, scores = self._read(pairs)
        value: Any
        if kind == "gain":
            value = list(paired_bootstrap(columns["labels"], *scores, samples=self._samples))
        elif "lengths" not in columns:
            return None
        else:
            value = [list(b) for b in _by_length(columns, scores, self._samples)]
        self._found[key] = {
            "records": records,
            "seeds": [base.seed for base, _ in pairs],
            "samples": self._samples,
            "impressions": len(columns["labels"]),
            kind: value,
        }
        return self._found[key]

    def _pairs(
        self, setting: Setting, method: str, against: str
    ) -> list[tuple[RunRecord, RunRecord]]:
        """Records of both by shared seed, those with an AUC: the base's first."""
        gain = self._results.gain(setting, method, against)
        before = self._results.runs(setting, against)
        after = self._results.runs(setting, method)
        return [(before[seed], after[seed]) for seed in gain.seeds if method != against]

    def _scores_file(self, record: RunRecord) -> Path:
        return self._folder / "scores" / f"{record.file.stem}.npz"

    def _read(
        self, pairs: Sequence[tuple[RunRecord, RunRecord]]
    ) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Columns that all runs share, and the scores of base and method, each (R, N)."""
        first_file, first = self._scores_file(pairs[0][0]), self._load(pairs[0][0])
        scores: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for pair in pairs:
            for side, record in zip(scores, pair):
                columns = self._load(record)
                for name in ("users", "labels"):
                    if not np.array_equal(first[name], columns[name]):
                        raise ValueError(
                            f"{self._scores_file(record)} must have the {name} of {first_file}, "
                            "impression by impression; remove record and scores of the run made "
                            "from other data, and start the experiment again"
                        )
                side.append(columns["scores"])
        return first, (np.stack(scores[0]), np.stack(scores[1]))

    def _load(self, record: RunRecord) -> dict[str, np.ndarray]:
        file = self._scores_file(record)
        if self._loaded[0] == file:
            return self._loaded[1]
        try:
            columns = read_columns(file, ("users", "labels", "scores"))
        except ValueError as damage:
            raise ValueError(f"{damage}; start the experiment again") from None
        reached = auc(columns["labels"], columns["scores"])
        if not math.isclose(reached, record.test["auc"], abs_tol=1e-6):
            raise ValueError(
                f"{file} must be the scores of {record.file.name}, whose AUC is "
                f"{record.test['auc']:.6f}; theirs is {reached:.6f}; start the experiment again"
            )
        self._loaded = (file, columns)
        return columns


def _fingerprint(pairs: Sequence[tuple[RunRecord, RunRecord]], samples: int) -> str:
    told = [[r.file.stem, r.data_fingerprint, r.commit, r.test["auc"]] for p in pairs for r in p]
    return hashlib.sha256(json.dumps([told, samples]).encode()).hexdigest()[:16]


def _by_length(
    columns: Mapping[str, np.ndarray], scores: tuple[np.ndarray, np.ndarray], samples: int
) -> list[LengthBin]:
    """Bins of about equally many impressions; those with one class have no AUC and are left out."""
    labels, lengths = columns["labels"], columns["lengths"].astype(np.int64)
    ends = np.quantile(lengths, np.linspace(0, 1, _BINS + 1)[1:], method="higher")
    found, shortest = [], int(lengths.min())
    for end in np.unique(ends).astype(int).tolist():
        mine = (lengths >= shortest) & (lengths <= end)
        if len(np.unique(labels[mine])) == 2:
            gain = paired_bootstrap(
                labels[mine], scores[0][:, mine], scores[1][:, mine], samples=samples
            )
            mean, count = float(lengths[mine].mean()), int(mine.sum())
            found.append(LengthBin(shortest, end, mean, count, *gain[:3]))
        shortest = end + 1
    return found
