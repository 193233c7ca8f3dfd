"""Comparing models over seeds: runs that are never repeated, tables, figures and a report."""

from recbole_mars.experiments.compare import compare, summarise_seeds
from recbole_mars.experiments.comparison import ComparisonData, RunCurves
from recbole_mars.experiments.report import write_report
from recbole_mars.experiments.tables import markdown_table, side_by_side

__all__ = [
    "ComparisonData",
    "RunCurves",
    "compare",
    "markdown_table",
    "side_by_side",
    "summarise_seeds",
    "write_report",
]
