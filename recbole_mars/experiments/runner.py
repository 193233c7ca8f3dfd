"""Running an experiment: in its order, never twice, past failures, beside other processes."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import yaml
from filelock import Timeout

from recbole_mars.data.files import write_whole
from recbole_mars.experiments.checks import check_runs
from recbole_mars.experiments.plan import Run, run_settings
from recbole_mars.experiments.progress import Progress, duration
from recbole_mars.experiments.records import Records, make_record
from recbole_mars.experiments.search import Trial, TrialSearch
from recbole_mars.experiments.spec import Experiment
from recbole_mars.plugin.run_inputs import RunInputs, run_inputs
from recbole_mars.plugin.scored_run import ScoredRun, scored_run

__all__ = ["Failure", "Runner", "Train"]


class Train(Protocol):
    """What makes a run; `recbole_mars.plugin.scored_run.scored_run` is one."""

    def __call__(
        self,
        dataset: str,
        settings: Mapping[str, Any],
        *,
        test: bool = True,
        model_folder: Path | None = None,
    ) -> ScoredRun: ...


@dataclass(frozen=True)
class Failure:
    """A run that failed, and why; the whole traceback is in the folder failed/."""

    title: str
    error: Exception


@dataclass(frozen=True)
class _Job:
    """A run or a trial. header: its names, as the record has them."""

    stem: str
    title: str
    dataset: str
    settings: Mapping[str, Any]
    header: Mapping[str, Any]
    kind: str = "records"


class Runner:
    """Runs an experiment into a folder.

    folder: gets records/, scores/, search/, chosen/, failed/ and spec.yaml, and as artifacts/ what
    runs share and what a killed one is continued from. data_path: with the data sets; None: where
    RecBole looks. show: RecBole's keys for what is told meanwhile, such as show_progress.
    keep_models: stems of runs whose models are kept as models/<stem>, for recbole_mars.serving;
    such a run is made again if its model is not there.

    Raises ValueError, before anything runs, for whatever can be known to be wrong by then.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        *,
        data_path: str | None = None,
        train: Train = scored_run,
        tell: Callable[[str], None] = print,
        show: Mapping[str, Any] | None = None,
        keep_models: Collection[str] = (),
    ) -> None:
        self._experiment = experiment
        self._folder = folder
        self._data_path = data_path
        self._train, self._tell = train, tell
        quiet = {"state": "WARNING", "show_progress": False}
        self._machine = {"checkpoint_dir": str(folder / "artifacts"), **quiet, **(show or {})}
        self._records = {kind: Records(folder, kind) for kind in ("records", "search")}
        self._models = {stem: folder / "models" / stem for stem in keep_models}
        self._search = TrialSearch(experiment, folder, self._try)
        self._failed: list[Failure] = []
        self._progress = Progress((), ())

    def describe(self, runs: Sequence[Run]) -> list[str]:
        """A line for each run that says whether it is still to be made; nothing is run."""
        check_runs(self._experiment, runs, self._data_path)
        lines: list[str] = []

        def look(name: Run, job: _Job) -> dict[str, Any] | None:
            record, why = self._find(job, run_inputs(job.dataset, job.settings))
            state = "recorded" if record else f"to do again: {why}" if why else "to do"
            lines.append(f"{name}: {state}")
            return record

        self._search.replay(runs, lambda trial, drawn: look(trial, self._trial_job(trial, drawn)))
        for run in runs:
            try:
                chosen = self._search.known(run)  # None before the search
            except ValueError as damage:
                lines.append(f"{run}: to do again: {damage}")
                continue
            if chosen is None:
                lines.append(f"{run}: to do")
            else:
                look(run, self._job(run, chosen))
        return lines

    def run(self, runs: Sequence[Run]) -> list[Failure]:
        """Make all runs that are not recorded, and the searches that they need.

        Returns those that failed, which stops no other.
        """
        check_runs(self._experiment, runs, self._data_path)
        self._failed = []
        self._folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(self._experiment.content), sort_keys=False)
        write_whole(self._folder / "spec.yaml", text)
        trials = self._search.trials_of(runs)
        jobs = [(trial.stem, trial.dataset, trial.method) for trial in trials]
        jobs += [(run.stem, run.dataset, run.method) for run in runs]
        missing = [t.stem for t in trials if not self._records["search"].has(t.stem)]
        missing += [run.stem for run in runs if not self._records["records"].has(run.stem)]
        self._progress = Progress(jobs, missing)
        busy = [run for run in runs if not self._make(run, wait=False)]
        for run in busy:  # made by another process meanwhile, or left by it
            self._make(run, wait=True)
        return self._failed

    def _make(self, run: Run, wait: bool) -> bool:
        """False if another process is at it."""
        chosen = self._search.chosen(run)
        if chosen is None:
            self._fail(run.stem, str(run), RuntimeError("no trial of its search succeeded"))
            return True
        return self._do(self._job(run, chosen), wait)[0]

    def _job(self, run: Run, chosen: Mapping[str, Any]) -> _Job:
        settings = run_settings(self._experiment, run, self._data_path, chosen)
        return _Job(
            stem=run.stem,
            title=str(run),
            dataset=run.dataset,
            settings={**settings, **self._machine},
            header=self._header(run),
        )

    def _try(self, trial: Trial, drawn: Mapping[str, Any]) -> dict[str, Any] | None:
        """Make a trial, or find it recorded; None if it fails."""
        return self._do(self._trial_job(trial, drawn), wait=True)[1]

    def _trial_job(self, trial: Trial, drawn: Mapping[str, Any]) -> _Job:
        experiment = self._experiment
        assert experiment.search is not None
        settings = run_settings(experiment, trial, self._data_path, drawn)
        header = self._header(trial)
        return _Job(
            stem=trial.stem,
            title=f"{trial}, {', '.join(f'{key} {value}' for key, value in drawn.items())}",
            dataset=trial.dataset,
            settings={**settings, **experiment.search.settings, **self._machine},
            header={**header, "trial": trial.number, "drawn": dict(drawn)},
            kind="search",
        )

    def _header(self, run: Run) -> dict[str, Any]:
        return {
            "experiment": self._experiment.name,
            "groups": list(run.groups),
            "dataset": run.dataset,
            "method": run.method,
            "seed": run.seed,
            "split": run.split,
        }

    def _do(self, job: _Job, wait: bool) -> tuple[bool, dict[str, Any] | None]:
        """Whether the job was dealt with, and its record, unless it failed."""
        records = self._records[job.kind]
        try:
            inputs = run_inputs(job.dataset, job.settings)
            with records.lock(job.stem).acquire(timeout=-1 if wait else 0):
                record, why = self._find(job, inputs)
                if record is not None:
                    return True, self._found(job, record)
                if why:
                    self._tell(f"{job.title}: {why}; run again")
                started = datetime.now().astimezone()
                run = self._make_run(job)
                record = make_record(job.header, inputs, run, started)
                records.write(job.stem, record, run.test)
        except Timeout:
            self._tell(f"{job.title}: in the hands of another process; looked at again later")
            return False, None
        except Exception as error:
            self._fail(job.stem, job.title, error, job.kind)
            return True, None
        self._finished(job, record, "")
        return True, record

    def _find(self, job: _Job, inputs: RunInputs) -> tuple[dict[str, Any] | None, str]:
        """As Records.find; a run whose model is to be kept has none without it."""
        record, why = self._records[job.kind].find(job.stem, inputs)
        folder = self._models.get(job.stem)
        if record is not None and folder is not None and not folder.is_dir():
            return None, f"its model is not in {folder}"
        return record, why

    def _make_run(self, job: _Job) -> ScoredRun:
        """Train; a model to be kept is there afterwards, in the place of an earlier run's."""
        tested, folder = job.kind == "records", self._models.get(job.stem)
        if folder is None:
            return self._train(job.dataset, job.settings, test=tested)
        aside = folder.with_name(f".{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        run = self._train(job.dataset, job.settings, test=tested, model_folder=aside)
        # A record that is there has its own model beside it, whenever this process is killed.
        self._records[job.kind].remove(job.stem)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        return run

    def _found(self, job: _Job, record: dict[str, Any]) -> dict[str, Any]:
        """A record under the names that the experiment has now."""
        if {**record, **job.header} != record:
            record = {**record, **job.header}
            self._records[job.kind].write(job.stem, record, None)
        self._finished(job, record, "already recorded, ")
        return record

    def _finished(self, job: _Job, record: Mapping[str, Any], found: str) -> None:
        seconds = record["seconds"]["total"]
        self._progress.done(job.stem, seconds)
        part = "test" if job.kind == "records" else "valid"
        parts = [f"{part} AUC {record[part].get('auc', float('nan')):.4f}", duration(seconds)]
        end = self._progress.expected_end()
        told = f"{found}{', '.join(parts)}{'; ' + end if end else ''}"
        self._tell(f"{self._progress.position()} {job.title}: {told}")

    def _fail(self, stem: str, title: str, error: Exception, kind: str = "records") -> None:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        file = self._records[kind].write_failure(stem, trace)
        self._failed.append(Failure(title, error))
        self._progress.done(stem)
        last = trace.strip().splitlines()[-1]
        self._tell(f"{self._progress.position()} {title}: FAILED, {last} (see {file})")
