"""What the page is made of: each table with its figures, in the order in which one reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recbole_mars.experiments.paper_report import figures, studies
from recbole_mars.experiments.paper_report.comparisons import (
    ablations,
    best_baselines,
    compared_settings,
    comparison,
    overall,
)
from recbole_mars.experiments.paper_report.published import compact
from recbole_mars.experiments.paper_report.resampling import Resampled
from recbole_mars.experiments.paper_report.results import Results
from recbole_mars.experiments.paper_report.sensitivity import sensitivity
from recbole_mars.experiments.paper_report.table import Table

__all__ = ["Section", "make_sections"]

# The group that a table is of.
_OF_GROUPS = {"table-3": "table-3", "figure-4": "padding", "sensitivity": "sensitivity"}
_OWN_SECTION = ("table2", "table3", "padding", "sensitivity")
_GAINS = (
    "Mean difference over seeds with its 95 % interval (paired t; filled: p < 0.05, not "
    "corrected), single seeds in grey, RelaImpr at the right."
)


@dataclass(frozen=True)
class Section:
    """A table and its figures. caption: of all figures. folded: the table is shown on demand."""

    table: Table
    figures: Sequence[str] = ()
    caption: str = ""
    folded: bool = False
    in_markdown: bool = True


def make_sections(results: Results, resampled: Resampled) -> list[Section]:
    """Sections of what was planned; those without records have a table without rows."""
    base, measured = results.base, results.measured
    planned = {compact(name) for name in results.groups}
    missing = {table for table, group in _OF_GROUPS.items() if compact(group) not in planned}
    if not any(compact(name) in results.paper.baselines for name in results.order):
        missing.add("best-baseline")
    missing = missing if planned else set()  # without a spec nobody knows
    found = [
        Section(studies.data_sets(results)),
        Section(overall(results, resampled), _gains(results, "table-2", base), _GAINS),
        Section(best_baselines(results, resampled)),
        Section(ablations(results, resampled), _gains(results, "table-3", measured), _GAINS),
        _padding(results, resampled),
        _activity(results),
        _history_lengths(results, resampled),
        _sensitivity(results),
        *_others(results, resampled),
        Section(studies.costs(results)),
        Section(studies.grid(results)),
        Section(
            studies.runs(results),
            [figures.seeds(results, s, results.methods(s, "table-2")) for s in results.settings()],
            "Every dot is one training with its own seed.",
            folded=True,
            in_markdown=False,
        ),
    ]
    return [s for s in found if s.table.rows or s.table.name not in missing]


def _gains(results: Results, group: str, against: str) -> list[str]:
    return [
        figures.gains(results, setting, results.methods(setting, group), against)
        for setting in compared_settings(results, group, against)
    ]


def _padding(results: Results, resampled: Resampled) -> Section:
    title = "Figure 4: padding strategies"
    table = comparison(results, "figure-4", title, "padding", results.base, resampled)
    caption = f"{_GAINS} The paper's Figure 4 is a picture without numbers: nothing to set beside."
    return Section(table, _gains(results, "padding", results.base), caption)


def _activity(results: Results) -> Section:
    drawn = [figures.activity(results, setting) for setting in results.settings("table-2")]
    caption = (
        f"{results.measured} in orange with its values at the right, the best baseline on "
        "validation in blue; 95 % intervals of the paired t over seeds, filled: p < 0.05."
    )
    return Section(studies.activity(results), drawn, caption)


def _history_lengths(results: Results, resampled: Resampled) -> Section:
    drawn = [
        figures.history_lengths(
            results, setting, resampled.by_length(setting, results.measured, results.base)
        )
        for setting in results.settings("table-2")
    ]
    caption = "The band is a 95 % interval, by paired bootstrap over the impressions of a point."
    return Section(studies.history_lengths(results, resampled), drawn, caption, folded=True)


def _sensitivity(results: Results) -> Section:
    table = sensitivity(results)
    names = dict.fromkeys(str(row["parameter"]) for row in table.rows)
    drawn = [
        figures.sensitivity([dict(row) for row in table.rows if row["parameter"] == name])
        for name in names
    ]
    caption = (
        f"Rings: {results.measured}'s own value. Bars: 95 % intervals of the paired t over seeds. "
        "The values are evenly spaced."
    )
    return Section(table, drawn, caption, folded=True)


def _others(results: Results, resampled: Resampled) -> list[Section]:
    """Groups that have no place of their own, each against the base."""
    names = dict.fromkeys(name for record in results.records for name in record.groups)
    found = []
    for name in names:
        if compact(name) not in _OWN_SECTION:
            stem = f"group-{compact(name)}"
            table = comparison(results, stem, f"Also: {name}", name, results.base, resampled)
            found.append(Section(table, _gains(results, name, results.base), _GAINS))
    return found
