"""Experiments over data sets, methods and seeds: never repeated, told in tables and figures."""

from recbole_mars.experiments.compare import compare, summarise_seeds
from recbole_mars.experiments.comparison import ComparisonData, RunCurves
from recbole_mars.experiments.plan import Run, planned_runs
from recbole_mars.experiments.report import write_report
from recbole_mars.experiments.runner import Failure, Runner
from recbole_mars.experiments.spec import Experiment, load_experiment, read_experiment
from recbole_mars.experiments.tables import markdown_table, side_by_side

__all__ = [
    "ComparisonData",
    "Experiment",
    "Failure",
    "Run",
    "RunCurves",
    "Runner",
    "compare",
    "load_experiment",
    "markdown_table",
    "planned_runs",
    "read_experiment",
    "side_by_side",
    "summarise_seeds",
    "write_report",
]
