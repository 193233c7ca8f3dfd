"""A table as readers see it and as a program reads it, and how numbers look in it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recbole_mars.evaluation import PairedResult, Summary
from recbole_mars.experiments.tables import markdown_table, number, verdict

__all__ = [
    "NOT_RUN",
    "NO_SCORES",
    "Part",
    "Table",
    "gain_cell",
    "mean_cell",
    "p_cell",
    "percent",
    "to_csv",
    "to_markdown",
    "tone",
]

NO_SCORES = "n/a (scores not kept)"
NOT_RUN = "the measured method"  # instead of its name
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Part:
    """One setting's part of a table, as text.

    tones: of each row "better", "worse" or "". foreign: how many columns, the last, are the
    paper's.
    """

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    tones: Sequence[str] = ()
    foreign: int = 0


@dataclass(frozen=True)
class Table:
    """name: of the CSV file. rows: tidy, with raw numbers, nan or None where undefined."""

    name: str
    title: str
    note: str
    rows: Sequence[Mapping[str, object]]
    parts: Sequence[Part] = field(default_factory=tuple)


def to_markdown(table: Table) -> str:
    """Title, parts and note."""
    lines = [f"## {table.title}", ""]
    if not table.rows and "n/a" not in table.note:
        return "\n".join([*lines, "Nothing recorded yet.", ""])
    for part in table.parts:
        if part.heading:
            lines += [f"### {part.heading}", ""]
        lines += [markdown_table(part.rows, part.header), ""]
    return "\n".join([*lines, table.note, ""])


def to_csv(table: Table) -> str:
    """The tidy rows; floats as Python writes them, so that they are read back the same."""
    buffer = io.StringIO()
    names = list(dict.fromkeys(name for row in table.rows for name in row))
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_raw(row.get(name)) for name in names] for row in table.rows)
    return buffer.getvalue()


def mean_cell(summary: Summary, form: str = ".4f") -> str:
    """Mean ± standard deviation over the seeds; the mean alone for one seed."""
    spread = "" if math.isnan(summary.std) else f" ± {summary.std:{form}}"
    return number(summary.mean, form) + spread


def gain_cell(gain: PairedResult) -> str:
    """A difference and its 95 % interval."""
    if math.isnan(gain.low):
        return number(gain.difference, "+.4f")
    return f"{gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


def p_cell(p: float, corrected: float = math.nan) -> str:
    """A p value, with a star if it stays below 0.05 after a correction."""
    text = "<0.001" if p < 0.001 else number(p, ".3f")
    return text + (" *" if corrected < _SIGNIFICANT else "")


def percent(value: float, digits: int = 2) -> str:
    return number(value, f"+.{digits}f", " %")


def tone(gain: PairedResult) -> str:
    """ "better" or "worse" if p < 0.05, else ""."""
    judged = verdict(gain)
    return judged if judged in ("better", "worse") else ""


def _raw(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
