"""Plain DIN and MARS on the same data and seeds, run by run, then side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recbole_mars.data.files import write_whole
from recbole_mars.evaluation import (
    GROUP_NAMES,
    Impressions,
    paired_bootstrap,
    paired_t_test,
    rela_impr,
    summarise,
)
from recbole_mars.experiments.comparison import ComparisonData, RunCurves
from recbole_mars.experiments.plan import planned_runs
from recbole_mars.experiments.records import load_scores
from recbole_mars.experiments.report import write_report
from recbole_mars.experiments.runner import Runner
from recbole_mars.experiments.spec import read_experiment
from recbole_mars.experiments.tables import GROUP_METRICS, markdown_table, side_by_side
from recbole_mars.plugin.item_cards import item_cards
from recbole_mars.plugin.stage_one_view import view_stage_one

__all__ = ["Record", "compare", "summarise_seeds"]

BASE, MEASURED = "DIN", "MARS"
_SPLIT = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "labeled"}  # MARS's default
_AUGMENTATION = {BASE: "none", MEASURED: "mars"}


@dataclass(frozen=True)
class Record:
    """One finished run: the name of its files, what its record holds, and the scored test set."""

    stem: str
    content: Mapping[str, Any]
    test: Impressions

    @property
    def name(self) -> str:
        return str(self.content["method"])

    @property
    def seconds(self) -> float:
        """From reading the data to the last score."""
        return float(self.content["seconds"]["total"])

    def metrics(self) -> dict[str, float]:
        """auc, log_loss, auc_low, auc_mid, auc_high of the test set; nan where undefined."""
        return {
            name: self.content["test"].get(name, float("nan"))
            for name in ("log_loss", *GROUP_METRICS.values())
        }

    def curves(self) -> RunCurves:
        """What a report shows of this run."""
        return RunCurves(
            self.name,
            self.content["seed"],
            self.content["curves"]["train_loss"],
            self.content["curves"]["valid_auc"],
            self.metrics(),
            self.test.intervals(),
            self.seconds,
        )


def compare(
    dataset: str,
    settings: Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    seeds: Sequence[int] = (2020,),
    command: str,
    version: str,
    tell: Callable[[str], None] = print,
    keep_model: bool = False,
) -> list[Record]:
    """Train DIN and MARS with every seed, print them side by side and write a report.

    settings: RecBole configuration that both share. folder gets the records (never made again
    while settings, data and features stay the same), config.yaml, metrics.json, report.html and
    overview.png. command and version are told in the report. keep_model: keep MARS of the first
    seed too, for recbole_mars.serving; metrics.json names its folder, and items.json has the items'
    titles and pictures. Returns the records.

    Raises what a run raised, after the others have been made.
    """
    target = Path(folder)
    settings = {**settings, "checkpoint_dir": str(target / "artifacts")}
    records = _records(dataset, settings, target, seeds, tell, keep_model)
    base, measured = records[:2]
    gains = {group: _gain(base, measured, group) for group in ("all", *GROUP_NAMES)}
    runs = [record.curves() for record in (base, measured)]
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
    metrics: dict[str, Any] = {
        "runs": [_plain(record) for record in records],
        "gains": {group: gain and gain._asdict() for group, gain in gains.items()},
        "statistics": data.statistics,
        "command": command,
        "version": version,
    }
    if keep_model:
        metrics["model"] = f"models/{measured.stem}"
        _write_cards(dataset, settings, target)
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


def _records(
    dataset: str,
    settings: Mapping[str, Any],
    folder: Path,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    keep_model: bool,
) -> list[Record]:
    """The records of both models with the first seed, then with the others."""
    shown = {"state": "INFO", "show_progress": True}
    apart = ("eval_args", "seed", "dataset", "data_path", *shown)
    experiment = read_experiment(
        {
            "settings": {k: v for k, v in settings.items() if k not in apart},
            "datasets": {dataset: {}},
            "splits": {"split": settings.get("eval_args", _SPLIT)},
            "methods": {name: {"augmentation": way} for name, way in _AUGMENTATION.items()},
            "seeds": list(seeds),
        }
    )
    show = {key: settings.get(key, default) for key, default in shown.items()}
    planned = planned_runs(experiment)
    data_path = settings.get("data_path")
    kept = [run.stem for run in planned if run.method == MEASURED][: int(keep_model)]
    runner = Runner(experiment, folder, data_path=data_path, tell=tell, show=show, keep_models=kept)
    for failure in runner.run(planned):
        raise failure.error
    return [
        Record(
            run.stem,
            json.loads((folder / "records" / f"{run.stem}.json").read_text(encoding="utf-8")),
            load_scores(folder / "scores" / f"{run.stem}.npz"),
        )
        for run in planned
    ]


def _write_cards(dataset: str, settings: Mapping[str, Any], folder: Path) -> None:
    """items.json: title and picture by item, pictures by their place from the folder on."""
    cards = {
        item: {
            "title": card.title,
            "picture": None if card.picture is None else os.path.relpath(card.picture, folder),
        }
        for item, card in item_cards(dataset, settings).items()
    }
    write_whole(folder / "items.json", json.dumps(cards, indent=0) + "\n")


def _gain(base: Record, measured: Record, group: str) -> Any:
    mine = base.test.rows(group)
    labels = base.test.labels[mine]
    if len(np.unique(labels)) < 2:
        return None
    return paired_bootstrap(labels, base.test.scores[mine], measured.test.scores[mine])


def _plain(record: Record) -> dict[str, Any]:
    return {
        "name": record.name,
        "seed": record.content["seed"],
        "test": record.metrics(),
        "intervals": record.test.intervals(),
        "valid": record.content["valid"],
        **record.content["curves"],
        "seconds": record.seconds,
    }
