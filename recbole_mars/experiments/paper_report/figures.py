"""The figures of the page: small, so that several stand side by side, or one below the other.

Orange is the measured method, blue any other, grey a single seed. A figure without data is "".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from recbole_mars.experiments.drawing import PALETTE, draw_estimate, literal, svg
from recbole_mars.experiments.paper_report.records import Setting
from recbole_mars.experiments.paper_report.resampling import LengthBin
from recbole_mars.experiments.paper_report.results import Results
from recbole_mars.experiments.paper_report.sensitivity import shown_value, value_place
from recbole_mars.experiments.paper_report.studies import GROUPS
from recbole_mars.experiments.paper_report.table import tone
from recbole_mars.experiments.tables import number

__all__ = ["activity", "gains", "history_lengths", "seeds", "sensitivity"]

_WIDTH = 4.2
_SERIES = ("measured", "base", "text", "image", "other")


def gains(results: Results, setting: Setting, methods: Sequence[str], against: str) -> str:
    """Gain in AUC of each method over one of them: mean, 95 % interval, seeds, and RelaImpr."""
    found = [(m, results.gain(setting, m, against)) for m in methods if m != against]
    if all(math.isnan(gain.tested.difference) for _, gain in found):
        return ""

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=PALETTE["axis"], linewidth=1)
        for y, (method, gain) in zip(range(len(found))[::-1], found):
            before = results.values(setting, against, "auc")
            after = results.values(setting, method, "auc")
            single = [after[seed] - before[seed] for seed in gain.seeds]
            _draw_seeds(axes, single, y)
            colour, filled = _colour(results, method), tone(gain.tested) != ""
            draw_estimate(axes, *gain.tested[:3], y, colour, filled, size=5.5)
            _note(axes, y, number(gain.rela_impr, "+.2f", " %"), method == results.measured)
        _name_rows(axes, [method for method, _ in found], results.measured)
        axes.set_title(_shown(str(setting), 48))
        axes.set_xlabel(_shown(f"AUC minus AUC of {against}", 48))

    return svg(_id("gains", against, setting, *methods), draw, _size(len(found)))


def seeds(results: Results, setting: Setting, methods: Sequence[str]) -> str:
    """Test AUC of every seed, and their mean as a line."""
    found = [(m, results.values(setting, m, "auc")) for m in methods]
    if not any(values for _, values in found):
        return ""

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for y, (method, values) in zip(range(len(found))[::-1], found):
            reached, colour = list(values.values()), _colour(results, method)
            axes.plot(reached, [y] * len(reached), "o", color=colour, markersize=4.5, alpha=0.55)
            if reached:
                mean = float(np.mean(reached))
                axes.plot([mean, mean], [y - 0.3, y + 0.3], color=colour, linewidth=1.8)
                _note(axes, y, f"{mean:.4f}", method == results.measured)
        _name_rows(axes, [method for method, _ in found], results.measured)
        axes.set_title(_shown(str(setting), 48))
        axes.set_xlabel("test AUC of each seed (line: mean)")

    return svg(_id("seeds", setting), draw, _size(len(found)))


def activity(results: Results, setting: Setting) -> str:
    """Gain over the base by activity, of the measured method and of the best baseline."""
    present = results.methods(setting)
    wanted = [results.measured, results.best_baseline(setting)]
    methods = [method for method in wanted if method in present and method != results.base]
    found = {
        method: [results.gain(setting, method, results.base, metric).tested for metric in GROUPS]
        for method in methods
        if method is not None
    }
    if all(math.isnan(gain.difference) for tested in found.values() for gain in tested):
        return ""

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=PALETTE["axis"], linewidth=1)
        shifts = (0.13, -0.13) if len(found) > 1 else (0.0,)
        for shift, (method, tested) in zip(shifts, found.items()):
            colour = _colour(results, method)
            for y, gain in zip(range(len(GROUPS))[::-1], tested):
                draw_estimate(axes, *gain[:3], y + shift, colour, tone(gain) != "", size=5.5)
                if method == next(iter(found)):
                    _note(axes, y, number(gain.difference, "+.4f"), False)
            axes.plot([], [], "o", color=colour, label=_shown(method, 26))
        _name_rows(axes, ["all users", *list(GROUPS.values())[1:]], "")
        axes.set_title(_shown(str(setting), 48), pad=22)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=2, borderaxespad=0.1)
        axes.set_xlabel(_shown(f"AUC minus AUC of {results.base}", 48))

    return svg(_id("activity", setting), draw, (_WIDTH, 2.4))


def history_lengths(results: Results, setting: Setting, bins: Sequence[LengthBin]) -> str:
    """Gain of the measured method over the base by the length of the own history."""
    if len(bins) < 2:
        return ""

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        lengths = [b.mean for b in bins]
        colour = PALETTE["measured"]
        axes.axhline(0, color=PALETTE["axis"], linewidth=1)
        low, high = [b.low for b in bins], [b.high for b in bins]
        axes.fill_between(lengths, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(lengths, [b.difference for b in bins], "o-", color=colour, markersize=4.5)
        if min(lengths) > 0 and max(lengths) > 10 * min(lengths):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title(_shown(str(setting), 48))
        axes.set_xlabel("behaviours of the user's own before the impression")
        axes.set_ylabel(_shown(f"AUC minus {results.base}'s", 34))

    return svg(_id("lengths", setting), draw, (_WIDTH, 2.5))


def sensitivity(rows: Sequence[dict[str, Any]]) -> str:
    """AUC against the own value of a setting, over its values; rows: of one parameter."""
    places = sorted({value_place(row["value"]) for row in rows})
    if len(places) < 2:
        return ""

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        axes.axhline(0, color=PALETTE["axis"], linewidth=1)
        groups: dict[Setting, list[dict[str, Any]]] = {}
        for row in rows:
            setting = Setting(row["dataset"], row["split"], row["variant"])
            groups.setdefault(setting, []).append(row)
        for i, (setting, mine) in enumerate(groups.items()):
            colour = PALETTE[_SERIES[i % len(_SERIES)]]
            shift = 0.08 * (i - (len(groups) - 1) / 2)
            x = [places.index(value_place(row["value"])) + shift for row in mine]
            y = [0.0 if row["method"] == row["against"] else row["difference"] for row in mine]
            axes.plot(x, y, "o-", color=colour, markersize=4.5, label=_shown(str(setting), 48))
            for at, row in zip(x, mine):
                axes.plot([at, at], [row["low"], row["high"]], color=colour, linewidth=1.2)
                if row["method"] == row["against"]:
                    axes.plot(at, 0, "o", color=colour, markersize=10, fillstyle="none")
        shown = {value_place(row["value"]): shown_value(row["value"]) for row in rows}
        axes.set_xticks(range(len(places)), [_shown(shown[place], 12) for place in places])
        axes.grid(visible=False, axis="x")
        axes.set_title(_shown(rows[0]["parameter"], 48), pad=5 + 12 * len(groups))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1, labelspacing=0.2)
        axes.set_ylabel(_shown(f"AUC minus {rows[0]['against']}'s own", 34))

    count = len({(row["dataset"], row["split"], row["variant"]) for row in rows})
    return svg(_id("sensitivity", rows[0]["parameter"]), draw, (_WIDTH, 2.3 + 0.2 * count))


def _draw_seeds(axes: Axes, values: Sequence[float], y: float) -> None:
    axes.plot(
        values,
        [y - 0.27] * len(values),
        "o",
        color=PALETTE["other"],
        markersize=3,
        markeredgewidth=0,
        alpha=0.7,
    )


def _colour(results: Results, method: str) -> str:
    return PALETTE["measured" if method == results.measured else "base"]


def _note(axes: Axes, y: float, text: str, strong: bool) -> None:
    axes.annotate(
        text.replace("-", "\N{MINUS SIGN}"),
        (1.02, y),
        xycoords=("axes fraction", "data"),
        va="center",
        weight="bold" if strong else "normal",
    )


def _name_rows(axes: Axes, names: Sequence[str], strong: str) -> None:
    places = range(len(names))[::-1]
    labels = axes.set_yticks(places, [_shown(name, 26) for name in names])
    for tick, name in zip(labels, names):
        tick.label1.set_fontweight("bold" if name == strong else "normal")
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


def _shown(text: str, longest: int) -> str:
    """Text that leaves room for the drawing; tables have it in full."""
    return literal(
        text if len(text) <= longest else text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )


def _size(rows: int) -> tuple[float, float]:
    return _WIDTH, 0.85 + 0.27 * rows


def _id(*parts: Any) -> str:
    """What tells a figure's ids from those of others in the page."""
    words = "-".join(" ".join(part) if isinstance(part, Setting) else str(part) for part in parts)
    return "".join(letter if letter.isalnum() else "-" for letter in words)
