"""Hyper-parameters chosen by validation AUC only, with the same number of trials for each method.

Each data set and split has its own search, since one's validation rows may be another's test rows.
Trials use a seed that is none of the reported ones, and never see the test set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recbole_mars.data.files import write_whole
from recbole_mars.experiments.plan import Run
from recbole_mars.experiments.spec import Experiment
from recbole_mars.plugin.tuning import Sampler

__all__ = ["Trial", "TrialSearch"]

_Try = Callable[["Trial", Mapping[str, Any]], "dict[str, Any] | None"]


@dataclass(frozen=True)
class Trial(Run):
    """One trial of a search; number: from 1."""

    number: int = 1

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"{self.dataset}.{self.split}.{self.method}.trial-{self.number}".replace(" ", "_")

    def __str__(self) -> str:
        return f"{self.dataset} {self.split} {self.method} trial {self.number}"


class TrialSearch:
    """The searches that an experiment's runs need.

    folder: gets chosen/<data set>.<split>.<method>.yaml, a configuration file. attempt: makes a
    trial with drawn values, or finds it recorded, and returns its record; None: it failed.
    """

    def __init__(self, experiment: Experiment, folder: Path, attempt: _Try) -> None:
        self._experiment, self._folder, self._attempt = experiment, folder, attempt
        self._chosen: dict[Run, dict[str, Any] | None] = {}

    def trials_of(self, runs: Sequence[Run]) -> list[Trial]:
        """All trials that have to be made before these runs, once each."""
        search = self._experiment.search
        if search is None:
            return []
        tuned = dict.fromkeys(self._tuned(run) for run in runs)
        return [self._trial(run, n) for run in tuned for n in range(1, search.trials + 1)]

    def chosen(self, run: Run) -> dict[str, Any] | None:
        """The values for a run, searched now if need be; None if all trials failed."""
        if self._experiment.search is None:
            return {}
        tuned = self._tuned(run)
        if tuned not in self._chosen:
            self._chosen[tuned] = self._run(tuned)
        return self._chosen[tuned]

    def known(self, run: Run) -> dict[str, Any] | None:
        """The values that an earlier search wrote down, or None; nothing is run."""
        if self._experiment.search is None:
            return {}
        file = self._file(self._tuned(run))
        return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None

    def _run(self, tuned: Run) -> dict[str, Any] | None:
        search = self._experiment.search
        assert search is not None
        sampler = Sampler(search.space_of(tuned.method), search.seed)
        scores: list[float] = []
        drawn: list[dict[str, Any]] = []
        for number in range(1, search.trials + 1):
            values = sampler.ask()
            record = self._attempt(self._trial(tuned, number), values)
            score = record["valid"].get("auc") if record else None
            sampler.tell(score)
            if score is not None:
                scores.append(score)
                drawn.append(values)
        if not scores:
            return None
        best = max(range(len(scores)), key=lambda place: scores[place])  # the first of equals
        file = self._file(tuned)
        file.parent.mkdir(parents=True, exist_ok=True)
        budget = f"best of {search.trials} trials by validation AUC, {scores[best]:.4f}"
        text = f"# {tuned.method} on {tuned.dataset}, {tuned.split}: {budget}; seed {search.seed}\n"
        write_whole(file, text + yaml.safe_dump(drawn[best], sort_keys=False))
        return drawn[best]

    def _tuned(self, run: Run) -> Run:
        """The run's setting under the method that is searched: its own, or the one it is like."""
        assert self._experiment.search is not None
        method = self._experiment.methods[run.method].like or run.method
        return Run(run.dataset, run.split, method, self._experiment.search.seed, ())

    def _trial(self, tuned: Run, number: int) -> Trial:
        return Trial(tuned.dataset, tuned.split, tuned.method, tuned.seed, (), number)

    def _file(self, tuned: Run) -> Path:
        name = f"{tuned.dataset}.{tuned.split}.{tuned.method}.yaml".replace(" ", "_")
        return self._folder / "chosen" / name
