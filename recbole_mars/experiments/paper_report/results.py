"""The results of an experiment: its records in order, and methods compared over shared seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from recbole_mars.evaluation import PairedResult, Summary, paired_t_test, rela_impr, summarise
from recbole_mars.experiments.paper_report.dmae_paper import DMAE_PAPER
from recbole_mars.experiments.paper_report.mars_paper import MARS_PAPER
from recbole_mars.experiments.paper_report.published import Paper, compact
from recbole_mars.experiments.paper_report.records import RunRecord, Setting, read_records
from recbole_mars.experiments.plan import planned_runs, run_settings
from recbole_mars.experiments.spec import Experiment, load_experiment

__all__ = ["LOWEST_BASE_AUC", "Gain", "Results", "read_results"]

# RelaImpr divides by AUC - 0.5: below this, it tells the noise of the base.
LOWEST_BASE_AUC = 0.51

_BASES = ("base", "basemodel", "din", "plaindin", "none")
_MEASURED = "mars"
_PAPERS = {"dmae": DMAE_PAPER}  # by the measured method; MARS's for any other
_UNKNOWN = PairedResult(math.nan, math.nan, math.nan, math.nan)


class Gain(NamedTuple):
    """A method against another over the seeds that both have: means, gain and paired t-test."""

    seeds: tuple[int, ...]
    before: float
    after: float
    tested: PairedResult

    @property
    def rela_impr(self) -> float:
        """In percent (MARS, eq. 20); nan if the other is hardly better than chance."""
        usable = self.before >= LOWEST_BASE_AUC
        return rela_impr(self.after, self.before) if usable else math.nan


@dataclass(frozen=True)
class Results:
    """Records with what is known of their plan.

    base: the method that all gains refer to. measured: the method that is judged, "" if it was
    not run. order: all methods, as tables list them. wanted: seeds by setting and method. trials:
    of the search for hyper-parameters, 0 if there was none. folder: as it was given. planned: what
    spec.yaml fixes by setting and method, without what its search chooses. paper: whose figures
    stand beside ours. groups: that spec.yaml names, () without one. failed: runs and trials whose
    last start failed, as their files are named.
    """

    name: str
    folder: Path
    records: tuple[RunRecord, ...]
    base: str
    measured: str
    order: tuple[str, ...]
    wanted: Mapping[tuple[Setting, str], frozenset[int]]
    trials: int = 0
    planned: Mapping[tuple[Setting, str], Mapping[str, Any]] = field(default_factory=dict)
    paper: Paper = MARS_PAPER
    groups: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def settings(self, group: str = "") -> list[Setting]:
        """Settings with records (of a group), in the order of the records."""
        found = (r.setting for r in self.records if not group or _in_group(r, group))
        return list(dict.fromkeys(found))

    def methods(self, setting: Setting, group: str = "") -> list[str]:
        """Methods with records in a setting (and of a group), in order."""
        found = {
            r.method
            for r in self.records
            if r.setting == setting and (not group or _in_group(r, group))
        }
        return [method for method in self.order if method in found]

    def baselines(self, setting: Setting) -> list[str]:
        """The paper's baselines that were run in a setting."""
        return [m for m in self.methods(setting) if compact(m) in self.paper.baselines]

    def best_baseline(self, setting: Setting) -> str | None:
        """The baseline with the highest mean validation AUC; None if none is known."""
        return self.best(setting, self.baselines(setting))

    def best(self, setting: Setting, methods: Sequence[str]) -> str | None:
        """The one of these with the highest mean validation AUC over the seeds that all share.

        Only those with as many seeds as any of them compete; None if no seed is left.
        """
        told = {method: self.values(setting, method, "valid_auc") for method in methods}
        most = max(map(len, told.values()), default=0)
        known = {method: values for method, values in told.items() if len(values) == most}
        seeds = set.intersection(*map(set, known.values())) if known else set()
        if not seeds:
            return None
        sums = {m: sum(values[s] for s in sorted(seeds)) for m, values in known.items()}
        return max(sums, key=lambda method: sums[method])

    def runs(self, setting: Setting, method: str) -> dict[int, RunRecord]:
        """Records of a method by seed, in ascending order of seeds."""
        mine = [r for r in self.records if r.setting == setting and r.method == method]
        return {r.seed: r for r in sorted(mine, key=lambda r: r.seed)}

    def values(self, setting: Setting, method: str, metric: str) -> dict[int, float]:
        """A metric of the test set, or a field of the record, by seed; only where it is defined."""
        runs = self.runs(setting, method).items()
        found = {s: r.test[metric] if metric in r.test else getattr(r, metric) for s, r in runs}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}

    def summary(self, setting: Setting, method: str, metric: str) -> Summary:
        """Mean and spread over all seeds of a method; (nan, nan, 0) if it is nowhere defined."""
        values = list(self.values(setting, method, metric).values())
        return summarise(values) if values else Summary(math.nan, math.nan, 0)

    def gain(self, setting: Setting, method: str, against: str, metric: str = "auc") -> Gain:
        """A method against another over the seeds for which both have the metric."""
        before = self.values(setting, against, metric)
        after = self.values(setting, method, metric)
        seeds = tuple(seed for seed in before if seed in after)
        if not seeds or method == against:
            mean = summarise([before[s] for s in seeds]).mean if seeds else math.nan
            return Gain(seeds, mean, mean, _UNKNOWN)
        old, new = [before[s] for s in seeds], [after[s] for s in seeds]
        return Gain(seeds, summarise(old).mean, summarise(new).mean, paired_t_test(old, new))

    def changed(self, setting: Setting, method: str, against: str) -> dict[str, Any]:
        """Configuration keys in which a method differs from another, with its values.

        Of a key that is newer than one of two records, the plan tells, if there is one.
        """
        mine, other = (_config(self.runs(setting, name)) for name in (method, against))
        plans = [self.planned.get((setting, name)) for name in (method, against)]
        keys = [key for key in {**other, **mine} if key != "seed"]
        return {key: mine.get(key) for key in keys if _differs(key, mine, other, plans)}

    def changed_key(self, setting: Setting, method: str, against: str) -> str | None:
        """The only key that differs or, if several do, the only one of MARS; None if unclear."""
        changed = list(self.changed(setting, method, against))
        ours = [key for key in changed if key.startswith("mars_")]
        keys = changed if len(changed) == 1 else ours
        return keys[0] if len(keys) == 1 else None

    def value_of(self, setting: Setting, method: str, key: str) -> Any:
        """A method's configuration value, None if its record does not tell."""
        return _config(self.runs(setting, method)).get(key)


def read_results(folder: Path) -> Results:
    """The records of a folder, with what its spec.yaml says of base, order and runs wanted.

    Without spec.yaml every method of a setting is wanted with the seeds that any of them has.
    Raises ValueError for bad records, as `read_records` does, for a bad spec.yaml, as
    `load_experiment` does, and if no base is named and no method is called like one.
    """
    records = read_records(folder)
    spec = folder / "spec.yaml"
    plan = load_experiment(spec) if spec.is_file() else None
    seen = dict.fromkeys(record.method for record in records)
    listed = list(plan.methods) if plan else []
    named = (plan.measured if plan else "") or _MEASURED
    paper = _PAPERS.get(compact(named), MARS_PAPER)
    usual = (name for name in seen if compact(name) in _BASES)
    base = plan.base if plan and plan.base in seen else next(usual, "")
    if not base:
        raise ValueError(
            f"spec.yaml must name the method to compare with as `base`, and it must have been run; "
            f"got {plan.base if plan else None!r}, the records have {', '.join(seen)}"
        )
    others = [name for name in seen if name not in listed]
    others.sort(key=lambda name: _usual_place(paper, name))
    return Results(
        name=plan.name if plan else folder.resolve().name,
        folder=folder,
        records=tuple(sorted(records, key=lambda record: _place(plan, paper, record.setting))),
        base=base,
        measured=next((name for name in seen if compact(name) == compact(named)), ""),
        order=tuple(dict.fromkeys([base, *listed, *others])),
        wanted=_wanted(plan) if plan else _alike(records),
        trials=plan.search.trials if plan and plan.search else 0,
        planned=_planned(plan) if plan else {},
        paper=paper,
        groups=tuple(group.name for group in plan.groups) if plan else (),
        failed=tuple(sorted(file.stem for file in (folder / "failed").glob("*.txt"))),
    )


def _wanted(plan: Experiment) -> dict[tuple[Setting, str], frozenset[int]]:
    """Seeds by setting and method."""
    seeds: dict[tuple[Setting, str], set[int]] = {}
    for run in planned_runs(plan):
        seeds.setdefault((Setting(run.dataset, run.split, ""), run.method), set()).add(run.seed)
    return {key: frozenset(values) for key, values in seeds.items()}


def _planned(plan: Experiment) -> dict[tuple[Setting, str], dict[str, Any]]:
    """Settings by setting and method; those of the search are known to its runs only."""
    searched: set[str] = set()
    for space in [plan.search.space, *plan.search.more.values()] if plan.search else []:
        searched.update(space)
    return {
        (Setting(run.dataset, run.split, ""), run.method): {
            key: value
            for key, value in run_settings(plan, run, None).items()
            if key not in searched
        }
        for run in planned_runs(plan)
    }


def _alike(records: Iterable[RunRecord]) -> dict[tuple[Setting, str], frozenset[int]]:
    seeds: dict[Setting, set[int]] = {}
    for record in records:
        seeds.setdefault(record.setting, set()).add(record.seed)
    return {(r.setting, r.method): frozenset(seeds[r.setting]) for r in records}


def _in_group(record: RunRecord, group: str) -> bool:
    return any(compact(name) == compact(group) for name in record.groups)


def _place(plan: Experiment | None, paper: Paper, setting: Setting) -> tuple[Any, ...]:
    """Where a setting stands: as the plan lists data sets and splits, else as the paper does."""
    datasets = list(plan.datasets) if plan else []
    splits = list(plan.splits) if plan else []
    name, printed = paper.name_of(setting.dataset), list(paper.statistics)
    return (
        datasets.index(setting.dataset) if setting.dataset in datasets else len(datasets),
        printed.index(name) if name else len(printed),
        setting.dataset,
        splits.index(setting.split) if setting.split in splits else len(splits),
        setting,
    )


def _usual_place(paper: Paper, method: str) -> tuple[int, str]:
    """Baselines in the paper's order, then the measured method, then all others by name."""
    places = [*paper.baselines, compact(paper.measured)]
    short = compact(method)
    return (places.index(short) if short in places else len(places)), method


def _differs(
    key: str,
    mine: Mapping[str, Any],
    other: Mapping[str, Any],
    plans: Sequence[Mapping[str, Any] | None],
) -> bool:
    """plans: what is planned for either, None where it is not known."""
    if key in mine and key in other:
        return bool(mine[key] != other[key])
    first, second = plans
    return first is None or second is None or first.get(key) != second.get(key)


def _config(runs: Mapping[int, RunRecord]) -> Mapping[str, Any]:
    return next(iter(runs.values())).config if runs else {}
