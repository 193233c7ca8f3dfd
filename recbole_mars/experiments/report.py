"""One page that shows a comparison of two models: what came out, why, and how to repeat it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from recbole_mars.data.files import write_whole
from recbole_mars.experiments import figures, tables
from recbole_mars.experiments.comparison import ComparisonData, RunCurves

__all__ = ["write_report"]


def write_report(data: ComparisonData, folder: str | Path) -> Path:
    """Write report.html, which needs nothing else, and overview.png; returns the page's path.

    Both are rendered before either is written, and each replaces an older one in one step.
    """
    folder = Path(folder)
    contents = {
        "overview.png": figures.png(figures.overview(data)),
        "report.html": _page(data).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_whole(folder / name, content)
    return folder / "report.html"


@dataclass(frozen=True)
class _Section:
    heading: str
    draw: Callable[[ComparisonData], str]
    caption: str
    without: str


_SECTIONS = (
    _Section(
        "Who gains",
        figures.gains,
        "Left: the test AUC of both models. Right: their difference, with its value: the "
        "new model ranks clicks better right of zero, worse left of it. Bars are 95 % intervals "
        "over test impressions; what reaches across zero may be chance. Users are grouped by their "
        "number of training behaviours.",
        "No figure: no AUC is defined.",
    ),
    _Section(
        "Stage 1: where text and images lie",
        figures.alignment,
        "Each item is a dot (its text) and a triangle (its image) with a line between them, seen "
        "along the two directions in which the panel's points differ most; the panels have "
        "different scales. Short lines mean aligned modalities. The numbers are taken in the full "
        "space: the kernel of eq. 5 is 1 for pairs that coincide, and matched pairs should be "
        "closer than mismatched ones. Two tight clumps would be collapse, not alignment.",
        "No figure: it needs items with both text and image.",
    ),
    _Section(
        "Stage 1: training",
        figures.alignment_curves,
        "What stage 1 minimises, and its parts. The total should fall and the kernel of matched "
        "pairs rise towards 1. The level of the entropy term means nothing, its gradient does.",
        "No figure: stage 1 was not trained.",
    ),
    _Section(
        "Stage 2: whose behaviours are borrowed",
        figures.donors,
        "How similar low-active users are to the donors found for them, against high-active users "
        "drawn at random. The further apart the two, the more retrieval selects; where they "
        "overlap it is no better than chance.",
        "No figure: nothing was retrieved.",
    ),
    _Section(
        "Stage 2: what it does to histories",
        figures.histories,
        "How many behaviours the model sees for a low-active user, before and after borrowing. "
        "Dashed lines are medians.",
        "No figure: no history was augmented.",
    ),
    _Section(
        "Training of both models",
        figures.training_curves,
        "A loss that falls while the validation AUC sinks is overfitting. The ring marks the epoch "
        "with the best validation AUC.",
        "No figure: no epoch was recorded.",
    ),
)

_BADGES = {
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
@media print { body { background: none; } figure, .card { break-inside: avoid; } }
"""


def _page(data: ComparisonData) -> str:
    base, measured = map(escape, tables.model_names(data.runs))
    title = f"{measured} against {base} on {escape(data.dataset)}"
    judged = tables.verdict(tables.gain_of(data.runs, data.gains, "all"))
    said = tables.headline(data.runs, data.gains)
    doubts = " ".join(tables.reservations(data.runs, data.gains))
    comparison = _table(*tables.comparison_rows(data.runs, data.gains))
    sections = "".join(_figure(section, data) for section in _SECTIONS)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<div class="card verdict" style="--tone: var(--{judged})">
<p class="badge">{_BADGES[judged]}</p>
<p class="headline">{_typeset(escape(said))}</p>
<p class="quiet">{_typeset(escape(doubts))}</p>
</div>
<h2>Side by side</h2>
<div class="card">
{_typeset(comparison)}
<p class="quiet">In brackets: 95 % intervals, by bootstrap over test impressions; those of the
difference and p are paired. AUC: higher is better. Log loss: lower is better. RelaImpr: the gain
in AUC above the 0.5 of random scores (MARS, eq. 20). Three groups are tested at once, so a single
p below 0.05 among them is weak evidence. Of several seeds the means are shown.</p>
</div>
{sections}
<h2>The runs</h2>
<div class="card">{_table(*_run_rows(data.runs))}</div>
<h2>The data, and what it took</h2>
{_facts(data.statistics)}
<h2>Do it again</h2>
<div class="card"><pre><code>{escape(data.command)}</code></pre></div>
<details class="card"><summary>Configuration ({len(data.settings)} settings)</summary>
{_table(["setting", "value"], [[name, str(value)] for name, value in data.settings.items()])}
</details>
<p class="quiet">Written by recbole_mars {escape(data.version)}.</p>
</main>
</body>
</html>
"""


def _figure(section: _Section, data: ComparisonData) -> str:
    svg = section.draw(data)
    heading = f"<h2>{section.heading}</h2>\n"
    if not svg:
        return f'{heading}<p class="quiet">{section.without}</p>\n'
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{section.heading}" ', 1)
    return f"{heading}<figure>{svg}<figcaption>{section.caption}</figcaption></figure>\n"


def _run_rows(runs: Sequence[RunCurves]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what each run reached, and when."""
    rows = []
    for run in runs:
        curve = np.asarray(run.valid_auc, dtype=float)
        best = int(np.nanargmax(curve)) if np.isfinite(curve).any() else None
        rows.append(
            [
                run.name,
                str(run.seed),
                tables.number(run.test.get("auc", math.nan), ".4f"),
                "n/a" if best is None else f"{curve[best]:.4f}",
                str(max(len(run.train_loss), len(run.valid_auc))),
                "n/a" if best is None else str(best + 1),
                f"{run.seconds:,.1f}",
            ]
        )
    header = ["", "seed", "test AUC", "best validation AUC", "epochs", "best epoch", "seconds"]
    return header, rows


def _facts(values: Mapping[str, object]) -> str:
    if not values:
        return '<p class="quiet">Nothing was counted.</p>'
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(_value(value))}</dd></div>\n"
        for name, value in values.items()
    )
    return f'<dl class="card facts">\n{facts}</dl>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row" class="{"part" if first[:1] == " " else ""}">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>\n"
        for first, *rest in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _value(value: object) -> str:
    """A whole number with thousands apart, another with four digits, anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    number = float(value)
    if math.isnan(number):
        return "n/a"
    if isinstance(value, Integral) or abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.4g}"


def _typeset(text: str) -> str:
    """Hyphens before numbers, which a terminal needs, as minus signs."""
    return re.sub(r"(?<!\w)-(?=[\d ])", "\N{MINUS SIGN}", text)
