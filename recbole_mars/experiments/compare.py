"""Plain DIN and MARS on the same data and seeds, run by run, then side by side."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recbole_mars.data.files import write_whole
from recbole_mars.evaluation import (
    GROUP_NAMES,
    UndefinedMetricError,
    auc,
    bootstrap_interval,
    log_loss,
    paired_bootstrap,
    paired_t_test,
    rela_impr,
    summarise,
)
from recbole_mars.experiments.comparison import ComparisonData, RunCurves
from recbole_mars.experiments.report import write_report
from recbole_mars.experiments.tables import markdown_table, side_by_side
from recbole_mars.plugin.scored_run import run_fingerprint, scored_run
from recbole_mars.plugin.stage_one_view import view_stage_one

__all__ = ["Record", "compare", "summarise_seeds"]

BASE, MEASURED = "DIN", "MARS"
_AUGMENTATION = {BASE: "none", MEASURED: "mars"}


@dataclass(frozen=True)
class Record:
    """One finished run. users, groups (activity), labels and scores: (T,) of the test set."""

    name: str
    seed: int
    train_loss: list[float]
    valid_auc: list[float]
    best_valid_auc: float
    seconds: float
    users: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def rows(self, group: str) -> np.ndarray:
        """Mask of the impressions of "all", "low", "mid" or "high"."""
        if group == "all":
            return np.ones(len(self.labels), dtype=bool)
        return self.groups == GROUP_NAMES.index(group)

    def metrics(self) -> dict[str, float]:
        """auc, log_loss, auc_low, auc_mid, auc_high of the test set; nan where undefined."""
        found = {"auc": _auc_or_nan(self.labels, self.scores)}
        found["log_loss"] = log_loss(self.labels, self.scores)
        for group in GROUP_NAMES:
            mine = self.rows(group)
            found[f"auc_{group}"] = _auc_or_nan(self.labels[mine], self.scores[mine])
        return found

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of the metrics that are defined."""
        found = {"log_loss": bootstrap_interval(self.labels, self.scores, "log_loss")}
        for group in ("all", *GROUP_NAMES):
            mine = self.rows(group)
            if len(np.unique(self.labels[mine])) == 2:
                name = "auc" if group == "all" else f"auc_{group}"
                found[name] = bootstrap_interval(self.labels[mine], self.scores[mine])
        return found


def compare(
    dataset: str,
    settings: Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    seeds: Sequence[int] = (2020,),
    command: str,
    version: str,
    tell: Callable[[str], None] = print,
) -> list[Record]:
    """Train DIN and MARS with every seed, print them side by side and write a report.

    settings: RecBole configuration that both share. folder gets runs/ (one record a run, never
    run again while settings, data, features and version stay the same), config.yaml,
    metrics.json, report.html and overview.png. command and version are told in the report.
    Returns the records.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    records = []
    for seed in seeds:
        for name, augmentation in _AUGMENTATION.items():
            tell(f"\n== {name}, seed {seed} ==")
            run_settings = {**settings, "seed": seed, "augmentation": augmentation}
            records.append(_run_once(name, dataset, run_settings, target / "runs", version, tell))
    base, measured = records[:2]
    gains = {group: _gain(base, measured, group) for group in ("all", *GROUP_NAMES)}
    runs = [
        RunCurves(
            record.name,
            record.seed,
            record.train_loss,
            record.valid_auc,
            record.metrics(),
            record.intervals(),
            record.seconds,
        )
        for record in (base, measured)
    ]
    tell(f"\nTest set of {dataset}, seed {seeds[0]}, with 95 % bootstrap intervals\n")
    tell(side_by_side(runs, gains))
    if len(seeds) > 1:
        tell("\n" + summarise_seeds(records))
    view = view_stage_one(dataset, {**settings, "seed": seeds[0], "augmentation": "mars"})
    data = ComparisonData(
        dataset=dataset,
        command=command,
        version=version,
        runs=runs,
        gains=gains,
        settings=view.settings,
        statistics={
            **view.statistics,
            **{f"seconds for {r.name}": round(r.seconds) for r in (base, measured)},
        },
        history_before=view.history_before,
        history_after=view.history_after,
        text_points_before=view.text_points[0],
        text_points_after=view.text_points[1],
        image_points_before=view.image_points[0],
        image_points_after=view.image_points[1],
        donor_similarities=view.donor_similarities,
        random_similarities=view.random_similarities,
        alignment_curves=view.curves,
    )
    write_whole(target / "config.yaml", yaml.safe_dump(view.settings))
    metrics = {
        "runs": [_plain(record) for record in records],
        "gains": {group: gain and gain._asdict() for group, gain in gains.items()},
        "statistics": data.statistics,
        "command": command,
        "version": version,
    }
    write_whole(target / "metrics.json", json.dumps(metrics, indent=2, default=float) + "\n")
    page = write_report(data, target)
    tell(f"\nReport: {page}")
    return records


def summarise_seeds(records: Sequence[Record]) -> str:
    """Markdown table of means, spread and paired significance over the seeds."""
    by_name = {n: [r for r in records if r.name == n] for n in _AUGMENTATION}
    rows = []
    for metric in ("auc", "auc_low", "auc_mid", "auc_high", "log_loss"):
        base, measured = ([r.metrics()[metric] for r in by_name[n]] for n in (BASE, MEASURED))
        test = paired_t_test(base, measured)
        cells = [f"{s.mean:.4f} ± {s.std:.4f}" for s in (summarise(base), summarise(measured))]
        gain = (
            f"{rela_impr(float(np.mean(measured)), float(np.mean(base))):+.2f} %"
            if "auc" in metric
            else ""
        )
        interval = f"[{test.low:+.4f}, {test.high:+.4f}]"
        rows.append(
            [metric, *cells, f"{test.difference:+.4f} {interval}", f"{test.p_value:.3f}", gain]
        )
    seeds = len(by_name[BASE])
    header = [
        "test metric",
        BASE,
        MEASURED,
        "difference [95 %]",
        f"p (paired t, {seeds} seeds)",
        "RelaImpr",
    ]
    return markdown_table(rows, header)


def _run_once(
    name: str,
    dataset: str,
    settings: Mapping[str, Any],
    folder: Path,
    version: str,
    tell: Callable[[str], None],
) -> Record:
    words = json.dumps(
        [
            version,
            run_fingerprint("MARS", dataset, settings),
            sorted((k, str(v)) for k, v in settings.items()),
        ]
    )
    stem = f"{name}-{settings['seed']}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    file = folder / f"{stem}.npz"
    if file.is_file():
        tell(f"already recorded in {file}")
        return _read_record(file)
    run = scored_run("MARS", dataset, settings)
    record = Record(
        name=name,
        seed=int(settings["seed"]),
        train_loss=run.train_loss,
        valid_auc=run.valid_score,
        best_valid_auc=run.best_valid_score,
        seconds=run.seconds,
        users=run.users,
        groups=run.groups,
        labels=run.labels,
        scores=run.scores,
    )
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".tmp.npz")
    np.savez_compressed(unfinished, **asdict(record))
    os.replace(unfinished, file)
    tell(f"test AUC {record.metrics()['auc']:.4f} after {record.seconds:.0f} s")
    return record


def _read_record(file: Path) -> Record:
    with np.load(file, allow_pickle=False) as stored:
        values = dict(stored)
    return Record(
        name=str(values["name"]),
        seed=int(values["seed"]),
        train_loss=values["train_loss"].tolist(),
        valid_auc=values["valid_auc"].tolist(),
        best_valid_auc=float(values["best_valid_auc"]),
        seconds=float(values["seconds"]),
        **{name: values[name] for name in ("users", "groups", "labels", "scores")},
    )


def _gain(base: Record, measured: Record, group: str) -> Any:
    mine = base.rows(group)
    if len(np.unique(base.labels[mine])) < 2:
        return None
    return paired_bootstrap(base.labels[mine], base.scores[mine], measured.scores[mine])


def _plain(record: Record) -> dict[str, Any]:
    return {
        "name": record.name,
        "seed": record.seed,
        "test": record.metrics(),
        "intervals": record.intervals(),
        "best_valid_auc": record.best_valid_auc,
        "valid_auc": record.valid_auc,
        "train_loss": record.train_loss,
        "seconds": record.seconds,
    }


def _auc_or_nan(labels: np.ndarray, scores: np.ndarray) -> float:
    try:
        return auc(labels, scores) if len(labels) else float("nan")
    except UndefinedMetricError:
        return float("nan")
