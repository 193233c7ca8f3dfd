"""Pages that need nothing but themselves: their style, and elements that several of them use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

__all__ = ["BADGES", "document", "figure_element", "table_element", "typeset"]

# What a verdict is called, by its colour's name in the style.
BADGES = {
    "better": "Significant gain",
    "worse": "Significant loss",
    "open": "No significant difference",
    "undefined": "No conclusion",
}

_STYLE = """
:root { color-scheme: light dark; --ink: #24292f; --quiet: #57606a; --paper: #ffffff;
  --page: #f6f7f9; --line: #d9dee3; --better: #1a7f4b; --worse: #b3261e; --open: #57606a;
  --undefined: #57606a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --quiet: #9ba5af; --paper: #171b20;
  --page: #0f1215; --line: #2d343b; --better: #4cc38a; --worse: #ff8a80; --open: #9ba5af;
  --undefined: #9ba5af; --base: #56b4e9; --measured: #f08c3e; --text: #2fc79a; --image: #e08fc7;
  --other: #8b949e; --axis: #6a737d; --grid: #262c33; } }
* { box-sizing: border-box; }
body { margin: 0; overflow-wrap: anywhere; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 58rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.25rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; }
p { margin: .5rem 0; }
.card, figure { margin: 0; padding: 1.1rem 1.25rem; overflow-x: auto; background: var(--paper);
  border: 1px solid var(--line); border-radius: 10px; }
.card + .card { margin-top: .75rem; }
.verdict { border-left: 5px solid var(--tone); }
.badge { color: var(--tone); font-weight: 650; font-size: .85rem; letter-spacing: .02em; }
.headline { font-size: 1.2rem; line-height: 1.45; margin: .2rem 0 .6rem; }
.quiet, figcaption { color: var(--quiet); font-size: .875rem; }
figcaption { margin-top: .7rem; }
figure svg { display: block; width: 100%; min-width: 34rem; height: auto; }
figure svg text { font-family: inherit !important; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .8rem .4rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; }
tbody th { font-weight: 400; }
.part { padding-left: 1.1rem; color: var(--quiet); }
details td { white-space: normal; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr));
  gap: .9rem 1.5rem; }
dt { color: var(--quiet); font-size: .8rem; line-height: 1.35; }
dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .875rem; }
summary { cursor: pointer; }
details[open] summary { margin-bottom: .6rem; }
main.wide { max-width: 75rem; }
h3 { font-size: .95rem; margin: 0 0 .5rem; }
ul { margin: .4rem 0; padding-left: 1.2rem; }
li { margin: .3rem 0; }
.grid { display: grid; gap: .75rem; align-items: start; margin-bottom: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.grid > .card { margin: 0; }
.grid figure { padding: .8rem; }
.grid figure svg { min-width: 18rem; }
.scroll { overflow-x: auto; }
.scroll th, .scroll td { white-space: nowrap; padding-right: .65rem; }
.scroll tr > :first-child { position: sticky; left: 0; background: var(--paper); }
.warning { border-left: 5px solid var(--worse); --tone: var(--worse); margin-top: .75rem; }
th.foreign, td.foreign { color: var(--quiet); font-style: italic; }
tr.better > th::before { content: "\\25B2\\2009"; color: var(--better); font-size: .75em; }
tr.worse > th::before { content: "\\25BC\\2009"; color: var(--worse); font-size: .75em; }
@media print { body { background: none; } figure, .card { break-inside: avoid; } }
"""


def document(title: str, body: str, wide: bool = False) -> str:
    """A whole page in our style. title, body: HTML. wide: room for tables of many columns."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main{_class("wide" if wide else "")}>
{body}
</main>
</body>
</html>
"""


def figure_element(svg: str, label: str, caption: str = "") -> str:
    """A drawing, what it is called for those who cannot see it, and its caption; all HTML."""
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure>{svg}{below}</figure>\n"


def table_element(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    tones: Sequence[str] = (),
    foreign: int = 0,
) -> str:
    """A table of plain text; a first cell that begins with a space is set in, as a part.

    tones: a class for each row, may be "". foreign: how many columns, the last, are set apart.
    """
    own = len(header) - foreign
    head = "".join(
        f'<th scope="col"{_foreign(i >= own)}>{escape(cell)}</th>' for i, cell in enumerate(header)
    )
    body = "".join(
        f"<tr{_class(tones[n]) if tones else ''}>"
        f'<th scope="row" class="{"part" if first[:1] == " " else ""}">{escape(first)}</th>'
        + "".join(
            f"<td{_foreign(i >= own)}>{escape(cell)}</td>" for i, cell in enumerate(rest, start=1)
        )
        + "</tr>\n"
        for n, (first, *rest) in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def typeset(text: str) -> str:
    """Hyphens before numbers, which a terminal needs, as minus signs."""
    return re.sub(r"(?<!\w)-(?=[\d ])", "\N{MINUS SIGN}", text)


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _foreign(is_foreign: bool) -> str:
    return _class("foreign" if is_foreign else "")
