"""How the measured method answers to one of its settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from recbole_mars.evaluation import Summary
from recbole_mars.experiments.paper_report.comparisons import compared, gain_cells
from recbole_mars.experiments.paper_report.records import Setting
from recbole_mars.experiments.paper_report.results import Results
from recbole_mars.experiments.paper_report.table import Part, Table, mean_cell

__all__ = ["sensitivity", "shown_value", "value_place"]


def sensitivity(results: Results) -> Table:
    """The measured method with one setting at other values, against its own value of it.

    Which setting that is follows from the configurations. Methods of the group that differ in
    several are named in the note.
    """
    measured = results.measured
    rows: list[dict[str, Any]] = []
    parts, unclear = [], []
    for setting in results.settings("sensitivity") if measured else []:
        methods: dict[str, list[str]] = {}
        for method in results.methods(setting, "sensitivity"):
            if method in (measured, results.base):
                continue
            key = results.changed_key(setting, method, measured)
            if key is None:
                changed = results.changed(setting, method, measured)
                unclear.append(f"{method} ({', '.join(changed) or 'nothing'})")
            else:
                methods.setdefault(key, []).append(method)
        found = [
            {"parameter": key, "value": results.value_of(setting, method, key), **row}
            for key, listed in methods.items()
            for method in [measured, *listed]
            for row in [compared(results, setting, method, measured)]
        ]
        found.sort(key=lambda row: (row["parameter"], value_place(row["value"])))
        rows += found
        if found:
            parts.append(_part(setting, found))
    note = (
        f"One setting at a time, against {measured} with its own value of it. These are side "
        "studies: p is not corrected for their number."
    )
    if unclear:
        differing = "; ".join(dict.fromkeys(unclear))
        note += f" Left out, since not exactly one setting differs: {differing}."
    return Table("sensitivity", "Sensitivity", note, rows, parts)


def value_place(value: Any) -> tuple[int, float, str]:
    """Words first, then numbers in order."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return 1, float(value), ""
    return 0, 0.0, shown_value(value)


def shown_value(value: Any) -> str:
    """A value of a configuration in words; "default" if the record does not tell it."""
    if value is None or isinstance(value, str):
        return value or "default"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _part(setting: Setting, rows: Sequence[dict[str, Any]]) -> Part:
    header = ["parameter", "value", "seeds", "AUC", "RelaImpr", "difference [95 %]", "p, seeds"]
    lines = []
    for row in rows:
        auc = Summary(row["auc_mean"], row["auc_sd"], row["seeds"])
        own = " (own)" if row["method"] == row["against"] else ""
        line = [row["parameter"], shown_value(row["value"]) + own, str(row["seeds"])]
        lines.append([*line, mean_cell(auc), *gain_cells(row)])
    return Part(str(setting), header, lines)
