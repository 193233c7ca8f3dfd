"""Writing an experiment's results as Markdown, CSV and one page."""

from __future__ import annotations

import os
from pathlib import Path

from recbole_mars.data.files import write_whole
from recbole_mars.experiments.paper_report.page import render_page
from recbole_mars.experiments.paper_report.resampling import Resampled
from recbole_mars.experiments.paper_report.results import read_results
from recbole_mars.experiments.paper_report.sections import make_sections
from recbole_mars.experiments.paper_report.summary import doubts, reproduction, summary
from recbole_mars.experiments.paper_report.table import to_csv, to_markdown

__all__ = ["write_paper_report"]


def write_paper_report(folder: str | os.PathLike[str], samples: int = 1000) -> Path:
    """Write results.md, report.html and tables/*.csv from what is recorded so far.

    folder: results/<name>, with records/, and spec.yaml and scores/ if they are there. What scores
    give is kept in significance.json, with which everything is made again without them. samples:
    of each bootstrap. Returns the path of the page, which needs nothing but itself.

    Everything is rendered before anything is written; the same records give the same bytes.
    Raises ValueError, naming the file, for records, scores or a spec that cannot be used.
    """
    place = Path(folder)
    results = read_results(place)
    resampled = Resampled(results, place, samples)
    sections = make_sections(results, resampled)
    tables = [section.table for section in sections]
    told = ["summary", *summary(results)], ["before comparing", *doubts(results)]
    lines = [f"# {results.name}", ""]
    for title, *sentences in told:
        if sentences:
            lines += [f"## {title.capitalize()}", "", *(f"- {said}" for said in sentences), ""]
    shown = [to_markdown(section.table) for section in sections if section.in_markdown]
    again = [f"- {name}: {value}" for name, value in reproduction(results)]
    contents = {
        "results.md": "\n".join([*lines, *shown, "## Do it again", "", *again, ""]),
        "report.html": render_page(results, sections),
        **{f"tables/{table.name}.csv": to_csv(table) for table in tables if table.rows},
    }
    (place / "tables").mkdir(exist_ok=True)
    for name, content in contents.items():
        write_whole(place / name, content)
    for file in (place / "tables").glob("*.csv"):
        if f"tables/{file.name}" not in contents:  # of groups that are no more
            file.unlink()
    resampled.keep()
    return place / "report.html"
