"""One page that shows a comparison of two models: what came out, why, and how to repeat it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from recbole_mars.data.files import write_whole
from recbole_mars.experiments import figures, tables
from recbole_mars.experiments.comparison import ComparisonData, RunCurves
from recbole_mars.experiments.page import BADGES, document, figure_element, table_element, typeset

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


def _page(data: ComparisonData) -> str:
    base, measured = map(escape, tables.model_names(data.runs))
    title = f"{measured} against {base} on {escape(data.dataset)}"
    judged = tables.verdict(tables.gain_of(data.runs, data.gains, "all"))
    said = tables.headline(data.runs, data.gains)
    doubts = " ".join(tables.reservations(data.runs, data.gains))
    comparison = table_element(*tables.comparison_rows(data.runs, data.gains))
    sections = "".join(_figure(section, data) for section in _SECTIONS)
    body = f"""<h1>{title}</h1>
<div class="card verdict" style="--tone: var(--{judged})">
<p class="badge">{BADGES[judged]}</p>
<p class="headline">{typeset(escape(said))}</p>
<p class="quiet">{typeset(escape(doubts))}</p>
</div>
<h2>Side by side</h2>
<div class="card">
{typeset(comparison)}
<p class="quiet">In brackets: 95 % intervals, by bootstrap over test impressions; those of the
difference and p are paired. AUC: higher is better. Log loss: lower is better. RelaImpr: the gain
in AUC above the 0.5 of random scores (MARS, eq. 20). Three groups are tested at once, so a single
p below 0.05 among them is weak evidence. Of several seeds the means are shown.</p>
</div>
{sections}
<h2>The runs</h2>
<div class="card">{table_element(*_run_rows(data.runs))}</div>
<h2>The data, and what it took</h2>
{_facts(data.statistics)}
<h2>Do it again</h2>
<div class="card"><pre><code>{escape(data.command)}</code></pre></div>
<details class="card"><summary>Configuration ({len(data.settings)} settings)</summary>
{table_element(["setting", "value"], [[name, str(value)] for name, value in data.settings.items()])}
</details>
<p class="quiet">Written by recbole_mars {escape(data.version)}.</p>"""
    return document(title, body)


def _figure(section: _Section, data: ComparisonData) -> str:
    heading = f"<h2>{section.heading}</h2>\n"
    svg = section.draw(data)
    if not svg:
        return f'{heading}<p class="quiet">{section.without}</p>\n'
    return heading + figure_element(svg, section.heading, section.caption)


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
