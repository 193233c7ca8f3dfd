"""Drawing for a page: colours, style, and figures as SVG text or PNG bytes.

In the SVG every colour is a CSS variable with the colour as its fallback, and text is text: a
page can give it a dark theme and its own font. The same drawing gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

__all__ = ["PALETTE", "STYLE", "draw_estimate", "literal", "saved", "svg"]

# Okabe and Ito's colours for all kinds of sight, their purple darkened, and the page's greys.
PALETTE = {
    "base": "#0072b2",
    "measured": "#d55e00",
    "text": "#009e73",
    "image": "#b8569b",
    "other": "#8b949e",
    "ink": "#24292f",
    "axis": "#98a0a9",
    "grid": "#e4e8ec",
    "paper": "#ffffff",
}
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), PALETTE["ink"]
    ),
    "axes.edgecolor": PALETTE["axis"],
    "grid.color": PALETTE["grid"],
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.fonttype": "none",
    "svg.hashsalt": "recbole_mars",
}


def svg(name: str, draw: Callable[[FigureBase], None], size: tuple[float, float]) -> str:
    """A figure of a size in inches as an SVG element; name: makes its ids unique in a page."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
    unset = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    text = saved(figure, format="svg", metadata=unset).decode()
    text = text[text.index("<svg") :]  # a page has no room for the XML prologue
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for role, colour in PALETTE.items():
        text = text.replace(colour, f"var(--{role}, {colour})")
    return text


def saved(figure: Figure, **options: Any) -> bytes:
    """What matplotlib's `savefig` writes with these options, in the page's style."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):  # ticks are made as late as this
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def literal(text: str) -> str:
    """Text that matplotlib shows as it is: two dollar signs would start a formula."""
    return text.replace("$", r"\$")


def draw_estimate(
    axes: Axes,
    value: float,
    low: float,
    high: float,
    y: float,
    colour: str,
    filled: bool = True,
    size: float = 6,
) -> None:
    """A dot, hollow unless filled, on the bar of its interval; nan leaves either out."""
    axes.plot([low, high], [y, y], color=colour, linewidth=1.6)
    face = colour if filled else PALETTE["paper"]
    axes.plot([value], [y], "o", color=colour, markerfacecolor=face, markersize=size)
