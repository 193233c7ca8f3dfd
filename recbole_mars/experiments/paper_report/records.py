"""The records of an experiment's runs, checked as they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_mars.experiments.plan import Run
from recbole_mars.experiments.score_files import read_columns

__all__ = ["METRICS", "RunRecord", "Setting", "read_records"]

METRICS = (
    *("auc", "log_loss", "auc_low", "auc_mid", "auc_high", "auc_cold"),
    *("user_auc", "request_auc"),
)


class Setting(NamedTuple):
    """What compared methods share: data, split, and a variant of the base, "" if there is one."""

    dataset: str
    split: str
    variant: str

    def __str__(self) -> str:
        return ", ".join(part for part in self if part)


@dataclass(frozen=True)
class RunRecord:
    """One finished run.

    test: metrics of the test set, nan where undefined. epoch_seconds: of training and validation,
    in the mean. valid_auc, seconds, epoch_seconds, peak_memory_mb, epochs and best_epoch are nan,
    commit, version, data_fingerprint and machine "" where unknown.
    statistics: of the data set, empty if not recorded.
    """

    file: Path
    setting: Setting
    method: str
    seed: int
    groups: tuple[str, ...]
    test: Mapping[str, float]
    valid_auc: float
    seconds: float
    epoch_seconds: float
    epochs: float
    best_epoch: float
    peak_memory_mb: float
    config: Mapping[str, Any]
    statistics: Mapping[str, float]
    commit: str
    version: str
    data_fingerprint: str
    machine: str


def read_records(folder: Path) -> list[RunRecord]:
    """The records of folder/records/*.json, by the names of their files.

    Raises ValueError, naming the file, for one that is no JSON object, that lacks "dataset",
    "split", "method", "seed" or "test", holds a value of the wrong kind, is not of the run that its
    file is named after, or has no AUC though its scores have one, and if there are none.
    """
    files = sorted((folder / "records").glob("*.json"))
    if not files:
        raise ValueError(
            f"{folder / 'records'} must hold a JSON record of each run, found none; "
            "run the experiment first"
        )
    return [_read(file) for file in files]


class _Fields:
    """The values of one record, each checked when it is asked for."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            values = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} must be JSON: {error}; start the experiment again") from None
        if not isinstance(values, dict):
            kind = type(values).__name__
            raise ValueError(
                f"{file} must hold a JSON object, got {kind}; start the experiment again"
            )
        self._values = values

    def _wrong(self, name: str, need: str, found: object) -> ValueError:
        return ValueError(
            f"{self._file}: {name} must be {need}, got {found!r}; start the experiment again"
        )

    def word(self, name: str, required: bool = False) -> str:
        value = self._values.get(name)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or (required and not value):
            raise self._wrong(name, "a word", value)
        return value

    def described(self, name: str) -> str:
        """A word, or whatever else it is as words."""
        value = self._values.get(name)
        if isinstance(value, dict):
            return ", ".join(f"{key}: {part}" for key, part in value.items())
        return "" if value is None else str(value)

    def words(self, name: str) -> tuple[str, ...]:
        value = self._values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise self._wrong(name, "a list of words", value)
        return tuple(value)

    def mapping(self, name: str, required: bool = False) -> dict[str, Any]:
        value = self._values.get(name)
        if value is None and not required:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(name, "a mapping", value)
        return value

    def seed(self) -> int:
        value = self._values.get("seed")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong("seed", "a whole number", value)
        return value

    def number(self, name: str) -> float:
        """The number at "a" or "a.b", nan where there is none."""
        value: Any = self._values
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else value
        if value is None:
            return math.nan
        is_real = isinstance(value, Real) and not isinstance(value, bool)
        if not is_real or not math.isfinite(value):
            raise self._wrong(name, "a number or null", value)
        return float(value)

    def share(self, name: str) -> float:
        value = self.number(name)
        if not (math.isnan(value) or 0 <= value <= 1):
            raise self._wrong(name, "in 0..1", value)
        return value


def _read(file: Path) -> RunRecord:
    fields = _Fields(file)
    fields.mapping("test", required=True)
    fields.mapping("valid")
    statistics = fields.mapping("statistics")
    test = {
        name: fields.number(f"test.{name}") if name == "log_loss" else fields.share(f"test.{name}")
        for name in METRICS
    }
    setting = Setting(
        fields.word("dataset", required=True),
        fields.word("split", required=True),
        fields.word("variant"),
    )
    epochs = fields.number("epochs")
    method, seed = fields.word("method", required=True), fields.seed()
    _check_name(file, setting, method, seed)
    if math.isnan(test["auc"]):
        _check_undefined(file)
    return RunRecord(
        file=file,
        setting=setting,
        method=method,
        seed=seed,
        groups=fields.words("groups"),
        test=test,
        valid_auc=fields.share("valid.auc"),
        seconds=fields.number("seconds.total"),
        epoch_seconds=fields.number("seconds.training") / epochs if epochs else math.nan,
        epochs=epochs,
        best_epoch=fields.number("best_epoch"),
        peak_memory_mb=fields.number("peak_memory_mb"),
        config=fields.mapping("config"),
        statistics={name: fields.number(f"statistics.{name}") for name in statistics},
        commit=fields.described("commit"),
        version=fields.described("version"),
        data_fingerprint=fields.described("data_fingerprint"),
        machine=fields.described("machine"),
    )


def _check_name(file: Path, setting: Setting, method: str, seed: int) -> None:
    variant = f".{setting.variant}" if setting.variant else ""
    stem = Run(setting.dataset, setting.split, method, seed, ()).stem + variant.replace(" ", "_")
    if file.stem != stem:
        raise ValueError(
            f"{file} must be named after its run, {method} with seed {seed} on {setting}, as "
            f"{stem}.json; remove it, or start the experiment again, which mends it"
        )


def _check_undefined(file: Path) -> None:
    """A test set of one class has no AUC; every other one has."""
    scores = file.parent.parent / "scores" / f"{file.stem}.npz"
    if not scores.is_file():
        return
    try:
        labels = read_columns(scores, ("labels",))["labels"]
    except ValueError as damage:
        raise ValueError(f"{damage}; start the experiment again") from None
    if len(np.unique(labels)) == 2:
        raise ValueError(
            f"{file}: test.auc must be a number, since {scores} have clicks and non-clicks; "
            "start the experiment again"
        )
