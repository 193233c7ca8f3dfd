"""From the records of an experiment to its tables, figures and page, beside the paper's figures."""

from recbole_mars.experiments.paper_report.statistics import dataset_statistics
from recbole_mars.experiments.paper_report.write import write_paper_report

__all__ = ["dataset_statistics", "write_paper_report"]
