"""One JSON file a run, with its test scores beside it; what is recorded is not run again.

records/<stem>.json     what docs/experiments.md lists; never absolute paths, never NaN
scores/<stem>.npz       of each test impression: users, groups, labels, scores, lengths
search/<stem>.json      a trial of a search: as a record, without anything of the test set
failed/<stem>.txt       why a run failed
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from recbole_mars import __version__
from recbole_mars.data.files import write_whole
from recbole_mars.evaluation import Impressions
from recbole_mars.experiments.paper_report.statistics import dataset_statistics
from recbole_mars.experiments.provenance import commit, machine
from recbole_mars.experiments.score_files import COLUMNS, OPTIONAL, read_columns
from recbole_mars.plugin.run_inputs import RunInputs
from recbole_mars.plugin.scored_run import ScoredRun

__all__ = ["Records", "load_scores", "make_record"]

_NEEDED = {
    "dataset": str,
    "split": str,
    "method": str,
    "seed": int,
    "valid": dict,
    "seconds": dict,
    "config": dict,
    "data_fingerprint": str,
}
_TOLERANCE = 1e-6


class Records:
    """The records of a results folder, by their stems.

    kind: "records", or "search" for trials, which have no test scores.
    """

    def __init__(self, folder: Path, kind: str = "records") -> None:
        self._root, self._kind = folder, kind

    def has(self, stem: str) -> bool:
        """Whether there is a file, right or wrong."""
        return self._file(stem).is_file()

    def find(self, stem: str, inputs: RunInputs) -> tuple[dict[str, Any] | None, str]:
        """The record of a run of these inputs, and else why there is none ("": it was never run).

        Scores that are not there, as in a fresh checkout, are no reason; damaged ones are, and
        metrics that do not follow from them.
        """
        file = self._file(stem)
        if not file.is_file():
            return None, ""
        try:
            record = _read(file, tested=self._kind == "records")
            scores = self._scores(stem)
            if self._kind == "records" and scores.is_file():
                _check_metrics(scores, record["test"])
        except ValueError as damage:
            return None, str(damage)
        changes = inputs.changes_since(record["config"], record["data_fingerprint"])
        if changes:
            return None, f"{file} was made before a change of {'; '.join(changes)}"
        return record, ""

    def write(self, stem: str, record: Mapping[str, Any], test: Impressions | None) -> None:
        """Keep a record and its scores, the record last: what has one is complete."""
        if test is not None:
            kinds = {**COLUMNS, **OPTIONAL}
            known = {name: getattr(test, name) for name in kinds}
            columns = {n: c.astype(kinds[n]) for n, c in known.items() if c is not None}
            packed = io.BytesIO()
            np.savez_compressed(packed, **columns)
            self._write(self._scores(stem), packed.getvalue())
        text = json.dumps(record, indent=1, allow_nan=False)
        self._write(self._file(stem), text + "\n")
        self._failure(stem).unlink(missing_ok=True)

    def remove(self, stem: str) -> None:
        """Forget a run, if it is recorded."""
        self._file(stem).unlink(missing_ok=True)

    def write_failure(self, stem: str, reason: str) -> Path:
        """Keep why a run failed, until it succeeds."""
        self._write(self._failure(stem), reason)
        return self._failure(stem)

    def lock(self, stem: str) -> FileLock:
        """What the process that makes this run holds."""
        file = self._root / "artifacts" / "locks" / f"{self._kind}-{stem}.lock"
        file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(file)

    def _file(self, stem: str) -> Path:
        return self._root / self._kind / f"{stem}.json"

    def _scores(self, stem: str) -> Path:
        return self._root / "scores" / f"{stem}.npz"

    def _failure(self, stem: str) -> Path:
        return self._root / "failed" / f"{stem}.txt"

    @staticmethod
    def _write(file: Path, content: str | bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)


def make_record(
    header: Mapping[str, Any], inputs: RunInputs, run: ScoredRun, started: datetime
) -> dict[str, Any]:
    """All that is kept of a run but the scores; header: its names, from experiment to split.

    Metrics that are undefined are left out; peak_memory_mb is null where it is not known.
    """
    record = {
        **header,
        "test": run.test.metrics() if run.test is not None else None,
        "valid": run.valid.metrics(),
        "seconds": run.seconds,
        "epochs": run.epochs,
        "best_epoch": run.best_epoch,
        "resumed": run.resumed,
        "peak_memory_mb": run.peak_memory_mb.get("process"),
        "peak_gpu_memory_mb": run.peak_memory_mb.get("gpu"),
        "curves": {"train_loss": run.train_loss, "valid_auc": run.valid_score},
        "statistics": _statistics(run),
        "config": inputs.config,
        "data_fingerprint": inputs.fingerprint,
        "commit": commit(),
        "version": __version__,
        "started": started.isoformat(timespec="seconds"),
        "machine": machine(),
    }
    return {key: value for key, value in record.items() if key != "test" or value is not None}


def _statistics(run: ScoredRun) -> dict[str, float]:
    """Of the data set; shares of items with features only where the run read some."""
    present = run.text_present, run.image_present
    found = dataset_statistics(run.log, *present)
    unknown = {"text_share", "image_share"} if all(one is None for one in present) else set()
    return {name: value for name, value in found.items() if name not in unknown}


def load_scores(file: Path) -> Impressions:
    """Read back the test impressions. Raises ValueError for a damaged file."""
    return Impressions(**read_columns(file))


def _check_metrics(file: Path, told: Mapping[str, float]) -> None:
    found = load_scores(file).metrics()
    for name in {**found, **told}:
        value, said = found.get(name), told.get(name)
        if value is None or said is None or not math.isclose(value, said, abs_tol=_TOLERANCE):
            raise ValueError(
                f"{file} or its record is damaged: {name} of the scores is {_shown(value)}, "
                f"the record says {_shown(said)}"
            )


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6f}"


def _read(file: Path, tested: bool) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    needed = {**_NEEDED, "test": dict} if tested else _NEEDED
    for key, kind in needed.items():
        if not isinstance(record, dict) or not isinstance(record.get(key), kind):
            raise ValueError(f"{file} is damaged: it has no {key}")
    for part in ("test", "valid") if tested else ("valid",):
        for name, value in record[part].items():
            top = math.inf if name == "log_loss" else 1
            if not _is_number(value) or not 0 <= value <= top:
                raise ValueError(f"{file} is damaged: {part}.{name} is {value!r}")
    if not _is_number(record["seconds"].get("total")):
        raise ValueError(f"{file} is damaged: it has no seconds.total")
    return record


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)
