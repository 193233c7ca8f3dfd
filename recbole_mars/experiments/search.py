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
        numbers = range(1, search.trials + 1)
        return [self._trial(tuned, n) for tuned in self._searched(runs) for n in numbers]

    def chosen(self, run: Run) -> dict[str, Any] | None:
        """The values for a run, searched now if need be; None if all trials failed."""
        if self._experiment.search is None:
            return {}
        tuned = self._tuned(run)
        if tuned not in self._chosen:
            self._chosen[tuned] = self._run(tuned)
        return self._chosen[tuned]

    def known(self, run: Run) -> dict[str, Any] | None:
        """The values that an earlier search wrote down, or None; nothing is run.

        Raises ValueError if they are damaged, which a search mends.
        """
        if self._experiment.search is None:
            return {}
        file = self._file(self._tuned(run))
        if not file.is_file():
            return None
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{file} is damaged: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{file} is damaged: it must hold keys and values, got {values!r}")
        return values

    def replay(self, runs: Sequence[Run], find: _Try) -> None:
        """Show `find` every trial with the values it would draw; nothing is run.

        find: returns the record of a trial, or None if there is none.
        """
        for tuned in self._searched(runs) if self._experiment.search else ():
            self._draw(tuned, find)

    def _run(self, tuned: Run) -> dict[str, Any] | None:
        search = self._experiment.search
        assert search is not None
        found = self._draw(tuned, self._attempt)
        if not found:
            return None
        score, values = max(found, key=lambda pair: pair[0])  # the first of equals
        file = self._file(tuned)
        file.parent.mkdir(parents=True, exist_ok=True)
        failed = search.trials - len(found)
        trials = f"{len(found)} of {search.trials} trials ({failed} failed)"
        budget = f"best of {trials if failed else f'{search.trials} trials'}"
        text = (
            f"# {tuned.method} on {tuned.dataset}, {tuned.split}: {budget} by validation AUC, "
            f"{score:.4f}; seed {search.seed}\n"
        )
        write_whole(file, text + yaml.safe_dump(values, sort_keys=False))
        return values

    def _draw(self, tuned: Run, attempt: _Try) -> list[tuple[float, dict[str, Any]]]:
        """The trials that have a validation AUC: it, and the values drawn."""
        search = self._experiment.search
        assert search is not None
        sampler = Sampler(search.space_of(tuned.method), search.seed)
        found = []
        for number in range(1, search.trials + 1):
            values = sampler.ask()
            record = attempt(self._trial(tuned, number), values)
            score = record["valid"].get("auc") if record else None
            sampler.tell(score)
            if score is not None:
                found.append((score, values))
        return found

    def _searched(self, runs: Sequence[Run]) -> list[Run]:
        return list(dict.fromkeys(self._tuned(run) for run in runs))

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
