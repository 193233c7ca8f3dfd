"""What can be known to be wrong with runs before the first of them starts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from recbole_mars.experiments.plan import Run, run_settings
from recbole_mars.experiments.spec import Experiment
from recbole_mars.plugin.run_inputs import FILE_KEYS, run_inputs

__all__ = ["check_runs"]


def check_runs(experiment: Experiment, runs: Sequence[Run], data_path: str | None) -> None:
    """Resolve the configuration of every run, and of its search with each value once.

    Raises ValueError, naming the run, for unknown keys and values, files that are missing, and two
    methods, splits or data sets that are the same.
    """
    names: dict[str, Run] = {}
    seen: set[tuple[str, str, str]] = set()
    searched: set[tuple[str, str, str]] = set()
    for run in runs:
        if (run.dataset, run.split, run.method) in seen:
            continue
        seen.add((run.dataset, run.split, run.method))
        method, search = experiment.methods[run.method], experiment.search
        tuned = replace(run, method=method.like or method.name)
        space = {} if search is None else search.space_of(tuned.method)
        try:
            inputs = run_inputs(run.dataset, run_settings(experiment, run, data_path))
            if search is not None:
                chosen = _covering(space)
                run_inputs(run.dataset, run_settings(experiment, run, data_path, chosen[0]))
                setting = (run.dataset, run.split, tuned.method)
                for drawn in chosen if setting not in searched else ():
                    settings = run_settings(experiment, tuned, data_path, drawn)
                    run_inputs(run.dataset, {**settings, **search.settings})
                searched.add(setting)
        except ValueError as error:
            raise ValueError(f"{run.dataset} {run.split} {run.method}: {error}") from None
        config = {key: v for key, v in inputs.config.items() if key not in (*FILE_KEYS, "seed")}
        fixed = sorted(key for key in space if method.like and key in method.settings)
        same = json.dumps([config, inputs.fingerprint, fixed], sort_keys=True)
        twin = names.setdefault(same, run)
        if twin is not run:
            raise ValueError(
                f"{run.dataset} {run.split} {run.method} and {twin.dataset} {twin.split} "
                f"{twin.method} have the same settings and data; a method may be in several groups "
                "under one name"
            )


def _covering(space: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """As few combinations as hold each value once, at least one."""
    count = max((len(values) for values in space.values()), default=1)
    return [{key: v[place % len(v)] for key, v in space.items()} for place in range(count)]
