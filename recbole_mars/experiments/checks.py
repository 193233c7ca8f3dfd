"""What can be known to be wrong with runs before the first of them starts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from recbole_mars.experiments.plan import Run, run_settings
from recbole_mars.experiments.spec import Experiment
from recbole_mars.plugin.run_inputs import FILE_KEYS, run_inputs

__all__ = ["check_runs"]


def check_runs(experiment: Experiment, runs: Sequence[Run], data_path: str | None) -> None:
    """Resolve the configuration of every run, and that of a trial of its search.

    Raises ValueError, naming the run, for unknown keys and values, files that are missing, and two
    methods, splits or data sets that are the same.
    """
    names: dict[str, Run] = {}
    seen: set[tuple[str, str, str]] = set()
    for run in runs:
        if (run.dataset, run.split, run.method) in seen:
            continue
        seen.add((run.dataset, run.split, run.method))
        method, search = experiment.methods[run.method], experiment.search
        space = {} if search is None else search.space_of(method.like or method.name)
        try:
            inputs = run_inputs(run.dataset, run_settings(experiment, run, data_path))
            if search is not None:
                first = {key: values[0] for key, values in space.items()}
                settings = run_settings(experiment, run, data_path, first)
                run_inputs(run.dataset, {**settings, **search.settings})
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
