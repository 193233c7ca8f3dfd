"""The runs of an experiment, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_mars.experiments.spec import Experiment

__all__ = ["Run", "in_no_group", "parse_only", "planned_runs", "run_settings"]


@dataclass(frozen=True)
class Run:
    """One run by its names; groups: all that it belongs to."""

    dataset: str
    split: str
    method: str
    seed: int
    groups: tuple[str, ...]

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"{self.dataset}.{self.split}.{self.method}.{self.seed}".replace(" ", "_")

    def __str__(self) -> str:
        return f"{self.dataset} {self.split} {self.method} seed {self.seed}"


def planned_runs(
    experiment: Experiment, only: Mapping[str, Sequence[str]] | None = None
) -> list[Run]:
    """All runs, the first group first; in a group seed by seed, split by split, data set by data
    set, method by method, so that what is there first can be compared already.

    only: values wanted by "dataset", "split", "method", "seed" or "group", as `parse_only` reads
    them. Raises ValueError if nothing is left.
    """
    groups: dict[tuple[str, str, str, int], list[str]] = {}
    for group in experiment.groups:
        for seed in group.seeds:
            for split in group.splits:
                for dataset in group.datasets:
                    for name in group.methods:
                        method = experiment.methods[name]
                        if seed in method.seeds and dataset in method.datasets:
                            key = (dataset, split, name, seed)
                            groups.setdefault(key, []).append(group.name)
    runs = [Run(*key, groups=tuple(names)) for key, names in groups.items()]
    for name, wanted in (only or {}).items():
        if name == "group":
            runs = [run for run in runs if set(run.groups) & set(wanted)]
        else:
            runs = [run for run in runs if str(getattr(run, name)) in wanted]
    if not runs:
        raise ValueError(f"no run is left by {dict(only or {})}; name fewer things with --only")
    return runs


def in_no_group(experiment: Experiment) -> list[str]:
    """Methods that no group names, which are not run."""
    named = {name for group in experiment.groups for name in group.methods}
    return [name for name in experiment.methods if name not in named]


def parse_only(text: str | None, experiment: Experiment) -> dict[str, list[str]]:
    """Read "dataset=ml-1m,method=MARS"; a name given twice means both values.

    Raises ValueError for anything that the experiment does not have.
    """
    known: dict[str, list[str]] = {
        "dataset": list(experiment.datasets),
        "split": list(experiment.splits),
        "method": list(experiment.methods),
        "seed": [str(seed) for seed in experiment.seeds],
        "group": [group.name for group in experiment.groups],
    }
    found: dict[str, list[str]] = {}
    for part in text.split(",") if text else []:
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in known:
            raise ValueError(f"--only must name {', '.join(known)} as name=value, got {part!r}")
        if value not in known[name]:
            raise ValueError(f"--only: {name} must be one of {known[name]}, got {value!r}")
        found.setdefault(name, []).append(value)
    return found


def run_settings(
    experiment: Experiment, run: Run, data_path: str | None, chosen: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The configuration of a run: what comes later in this order wins.

    The experiment's settings, the data set's, the split, the method's that this one is like, the
    values chosen by the search, the method's own, the seed. "{data_path}" in any text becomes
    data_path ("dataset", as RecBole has it, if that is None).
    """
    method = experiment.methods[run.method]
    settings = {**experiment.settings, **experiment.datasets[run.dataset]}
    settings["eval_args"] = dict(experiment.splits[run.split])
    if method.like is not None:
        settings.update(experiment.methods[method.like].settings)
    settings.update(chosen or {})
    settings.update(method.settings)
    settings["seed"] = run.seed
    if data_path is not None:
        settings["data_path"] = data_path
    return {key: _placed(value, data_path or "dataset") for key, value in settings.items()}


def _placed(value: Any, data_path: str) -> Any:
    if isinstance(value, str):
        return value.replace("{data_path}", data_path)
    if isinstance(value, dict):
        return {key: _placed(part, data_path) for key, part in value.items()}
    return [_placed(part, data_path) for part in value] if isinstance(value, list) else value
