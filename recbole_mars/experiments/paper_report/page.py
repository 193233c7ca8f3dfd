"""The page of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from recbole_mars.experiments.page import (
    BADGES,
    document,
    figure_element,
    table_element,
    typeset,
)
from recbole_mars.experiments.paper_report.results import Results
from recbole_mars.experiments.paper_report.sections import Section
from recbole_mars.experiments.paper_report.summary import (
    doubts,
    negatives,
    overall_verdict,
    reproduction,
    summary,
)

__all__ = ["render_page"]


def render_page(results: Results, sections: Sequence[Section]) -> str:
    """The whole page as HTML, in the order of the sections; it refers to nothing outside."""
    judged = overall_verdict(results)
    headline, *details = summary(results)
    title = escape(results.name)
    body = f"""<h1>{title}</h1>
<div class="card verdict" style="--tone: var(--{judged})">
<p class="badge">{BADGES[judged]}</p>
<p class="headline">{_text(headline)}</p>
{_list(details)}
</div>
{_warning(doubts(results))}
{"".join(_section(section) for section in sections)}
<h2>What did not help</h2>
{_negatives(sections)}
<h2>Do it again</h2>
<div class="card scroll">{table_element(["", ""], reproduction(results))}</div>"""
    return document(title, body, wide=True)


def _section(section: Section) -> str:
    table = section.table
    parts = [f"<h2>{_text(table.title)}</h2>\n"]
    if not table.rows:
        note = table.note if not table.parts and "n/a" in table.note else "Nothing recorded yet."
        return parts[0] + f'<p class="quiet">{_text(note)}</p>\n'
    drawn = [svg for svg in section.figures if svg]
    if drawn:
        elements = (figure_element(svg, escape(table.title)) for svg in drawn)
        parts.append(f'<div class="grid">{"".join(elements)}</div>\n')
        parts.append(f'<p class="quiet">{_text(section.caption)}</p>\n')
    cards = "".join(
        '<div class="card">'
        + (f"<h3>{_text(part.heading)}</h3>" if part.heading else "")
        + '<div class="scroll">'
        + typeset(table_element(part.header, part.rows, part.tones, part.foreign))
        + "</div></div>\n"
        for part in table.parts
    )
    narrow = len(table.parts) > 1 and all(len(part.header) <= 3 for part in table.parts)
    if narrow and not section.folded:
        cards = f'<div class="grid">{cards}</div>'
    if section.folded:
        cards = f"<details><summary>As a table</summary>{cards}</details>\n"
    toned = any(any(part.tones) for part in table.parts)
    note = table.note + " Triangles: p below 0.05 over seeds, each test by itself." * toned
    return "".join([*parts, cards, f'<p class="quiet">{_text(note)}</p>\n'])


def _negatives(sections: Sequence[Section]) -> str:
    rows = [dict(r) for s in sections if s.table.name == "table-2" for r in s.table.rows]
    found = negatives(rows)
    if not found:
        return '<p class="quiet">Every method of Table 2 is a significant gain, or none is.</p>\n'
    return (
        '<div class="card"><p>Of Table 2, whatever is no significant gain over the base '
        f"(p &lt; 0.05, not corrected):</p>{_list(found)}</div>\n"
    )


def _warning(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    return (
        f'<div class="card warning"><p class="badge">Before comparing</p>{_list(sentences)}</div>'
    )


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _text(text: str) -> str:
    return typeset(escape(text))
