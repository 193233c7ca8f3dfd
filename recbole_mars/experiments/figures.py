"""The figures of a comparison, as SVG for the page and as one PNG overview.

The same data gives the same bytes. A figure without data is the empty string.

Dimension letters: N items, D width.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator

from recbole_mars.experiments import tables
from recbole_mars.experiments.comparison import ComparisonData, model_names
from recbole_mars.experiments.drawing import (
    PALETTE,
    STYLE,
    draw_estimate,
    literal,
    saved,
    svg,
)

_Draw = Callable[[FigureBase, ComparisonData], None]

__all__ = [
    "alignment",
    "alignment_curves",
    "donors",
    "gains",
    "histories",
    "overview",
    "png",
    "training_curves",
]

_GROUP_ROWS = (3.0, 2.0, 1.0, 0.0)
_ITEMS_SHOWN = 200
_CURVES = {
    "loss": "Total loss (eq. 14)",
    "ctr": "Click loss (eq. 2)",
    "align": "Kernel of matched pairs (eq. 6)",
    "entropy": "Entropy term (eq. 7)",
    "auc": "Validation AUC",
    "valid_auc": "Validation AUC",
}


def gains(data: ComparisonData) -> str:
    """AUC of both models and the gain, for all users and by activity, with 95 % intervals."""
    return _svg("gains", _draw_results, data, (7.4, 2.6)) if _has_results(data) else ""


def training_curves(data: ComparisonData) -> str:
    """Training loss and validation AUC by epoch, a line for each run."""
    return _svg("training", _draw_training, data, (7.4, 2.6)) if _training_panels(data) else ""


def alignment_curves(data: ComparisonData) -> str:
    """What stage 1 minimises and watches, by epoch."""
    rows = -(-len(_alignment_panels(data)) // 3)
    return _svg("stage-1", _draw_alignment_curves, data, (7.4, 0.3 + 1.7 * rows)) if rows else ""


def alignment(data: ComparisonData) -> str:
    """Text and image vectors of the same items before and after training, in the plane.

    Each panel shows the two principal directions of its own points.
    """
    return _svg("alignment", _draw_alignment, data, (7.4, 4.1)) if _has_points(data) else ""


def donors(data: ComparisonData) -> str:
    """Cosines of low-active users with their donors and with random high-active users."""
    return _svg("donors", _draw_donors, data, (7.4, 2.6)) if _has_donors(data) else ""


def histories(data: ComparisonData) -> str:
    """Lengths of low-active users' histories before and after borrowing."""
    return _svg("histories", _draw_histories, data, (7.4, 2.6)) if _has_histories(data) else ""


def overview(data: ComparisonData) -> Figure:
    """The most telling panels that the data has, four at most, in one wide picture; see `png`."""
    choice = (
        (_has_points, _draw_alignment),
        (_has_donors, _draw_donors),
        (_has_histories, _draw_histories),
        (_has_results, _draw_gains),
        (_training_panels, _draw_training),
    )
    panels = [draw for available, draw in choice if available(data)][:4]
    rows = 2 if len(panels) == 4 else 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 0.5 + 2.8 * rows), layout="constrained", facecolor="white")
        title = f"{data.dataset}: {tables.headline(data.runs, data.gains)}"
        figure.suptitle(literal(textwrap.fill(title, 120)), x=0.01, ha="left", weight="bold")
        if panels:
            cells = figure.subfigures(rows, len(panels) // rows, squeeze=False).flat
            for cell, draw in zip(cells, panels):
                draw(cell, data)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as a PNG picture of 200 dots an inch."""
    return saved(figure, format="png", dpi=200, metadata={"Software": None})


def _svg(name: str, draw: _Draw, data: ComparisonData, size: tuple[float, float]) -> str:
    return svg(name, lambda figure: draw(figure, data), size)


def _given(*arrays: np.ndarray) -> bool:
    return all(len(array) > 0 for array in arrays)


def _has_results(data: ComparisonData) -> bool:
    keys = tables.GROUP_METRICS.values()
    return any(np.isfinite(run.test.get(key, np.nan)) for run in data.runs for key in keys)


def _draw_results(figure: FigureBase, data: ComparisonData) -> None:
    left, right = figure.subplots(1, 2)
    for i, name in enumerate(model_names(data.runs)):
        colour = PALETTE[("base", "measured")[i]]
        for key, y in zip(tables.GROUP_METRICS.values(), _GROUP_ROWS):
            estimate = tables.estimate(data.runs, name, key)
            draw_estimate(left, *estimate, y + (0.12, -0.12)[i], colour)
        left.plot([], [], "o", color=colour, label=literal(name))
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=2, borderaxespad=0.1)
    left.set_xlabel("test AUC with 95 % interval")
    _name_groups(left)
    _draw_gain_axes(right, data)


def _draw_gains(figure: FigureBase, data: ComparisonData) -> None:
    _draw_gain_axes(figure.subplots(), data)


def _draw_gain_axes(axes: Axes, data: ComparisonData) -> None:
    base, measured = map(literal, model_names(data.runs))
    axes.set_title("Gain in AUC (filled: p < 0.05)")
    axes.axvline(0, color=PALETTE["axis"], linewidth=1)
    for group, y in zip(tables.GROUP_METRICS, _GROUP_ROWS):
        gain = tables.gain_of(data.runs, data.gains, group)
        filled = tables.verdict(gain) in ("better", "worse")
        draw_estimate(axes, *gain[:3], y, PALETTE["measured"], filled)
        note = tables.number(gain.difference, "+.4f").replace("-", "\N{MINUS SIGN}")
        axes.annotate(note, (1.02, y), xycoords=("axes fraction", "data"), va="center")
    axes.set_xlabel(f"AUC of {measured} minus AUC of {base}")
    _name_groups(axes)


def _name_groups(axes: Axes) -> None:
    axes.set_yticks(_GROUP_ROWS, ["all users", "low-active", "mid-active", "high-active"])
    axes.set_ylim(min(_GROUP_ROWS) - 0.5, max(_GROUP_ROWS) + 0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _training_panels(data: ComparisonData) -> list[tuple[str, str]]:
    titles = {"train_loss": "Training loss", "valid_auc": "Validation AUC (ring: best epoch)"}
    return [pair for pair in titles.items() if any(len(getattr(r, pair[0])) for r in data.runs)]


def _draw_training(figure: FigureBase, data: ComparisonData) -> None:
    panels = _training_panels(data)
    grid = figure.subplots(1, len(panels), squeeze=False).ravel()
    colours = dict(zip(model_names(data.runs), (PALETTE["base"], PALETTE["measured"])))
    first = {run.name: run for run in reversed(data.runs)}  # stands for all seeds in the legend
    for axes, (field, title) in zip(grid, panels):
        axes.set_title(title)
        for run in data.runs:
            curve = np.asarray(getattr(run, field), dtype=float)
            label = literal(run.name) if run is first[run.name] else None
            _draw_curve(axes, curve, colours[run.name], label)
            if field == "valid_auc" and np.isfinite(curve).any():
                best = np.nanargmax(curve)
                ring = {"color": colours[run.name], "markersize": 9, "fillstyle": "none"}
                axes.plot(best + 1, curve[best], "o", **ring)
    grid[0].legend()


def _alignment_panels(data: ComparisonData) -> list[str]:
    return [name for name, curve in data.alignment_curves.items() if len(curve)]


def _draw_alignment_curves(figure: FigureBase, data: ComparisonData) -> None:
    names = _alignment_panels(data)
    grid = figure.subplots(-(-len(names) // 3), 3, squeeze=False).ravel()
    for axes, name in zip(grid, names):
        curve = np.asarray(data.alignment_curves[name], dtype=float)
        _draw_curve(axes, curve, PALETTE["measured"])
        axes.set_title(_CURVES.get(name, literal(name)))
    for axes in grid[len(names) :]:
        axes.remove()


def _draw_curve(axes: Axes, curve: np.ndarray, colour: str, label: str | None = None) -> None:
    epochs = np.arange(1, len(curve) + 1)
    axes.plot(epochs, curve, ".-", color=colour, linewidth=1.5, markersize=5, label=label)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def _has_points(data: ComparisonData) -> bool:
    text, image = data.text_points_before, data.image_points_before
    return _given(text, image, data.text_points_after, data.image_points_after)


def _draw_alignment(figure: FigureBase, data: ComparisonData) -> None:
    panels = (
        ("Before training", data.text_points_before, data.image_points_before),
        ("After training", data.text_points_after, data.image_points_after),
    )
    for axes, (title, text, image) in zip(figure.subplots(1, 2), panels):
        text, image = text.astype(float), image.astype(float)
        cosine, kernel, matched, mismatched = _closeness(text, image)
        axes.set_title(
            f"{title}\nmatched pairs: cosine {round(cosine, 2) + 0:.2f}, kernel {kernel:.2f}\n"
            f"distance {matched:.3g} (mismatched: {tables.number(mismatched, '.3g')})"
        )
        text_plane, image_plane, shares = _principal_plane(text, image)
        shown = np.linspace(0, len(text) - 1, min(len(text), _ITEMS_SHOWN)).astype(int)
        links = np.stack([text_plane[shown], image_plane[shown]], axis=1)
        axes.add_collection(
            LineCollection(links, colors=PALETTE["other"], linewidths=0.6, alpha=0.35)
        )
        for plane, role, marker in ((text_plane, "text", "o"), (image_plane, "image", "^")):
            axes.plot(
                *plane[shown].T, marker, color=PALETTE[role], markersize=3, alpha=0.8, label=role
            )
        axes.grid(visible=False)
        axes.set_aspect("equal", adjustable="datalim")
        axes.tick_params(labelbottom=False, labelleft=False)
        axes.set_xlabel(f"1st direction: {100 * shares[0]:.0f} % of the variance")
        axes.set_ylabel(f"2nd direction: {100 * shares[1]:.0f} %")
        axes.legend()


def _closeness(text: np.ndarray, image: np.ndarray) -> tuple[float, float, float, float]:
    """Mean cosine, kernel (MARS, eq. 5) and distance of matched rows, and distance of others.

    text, image: (N, D). The bandwidth is the median of all cross-modal distances.
    """
    norms = np.linalg.norm(text, axis=1) * np.linalg.norm(image, axis=1)
    cosine = ((text * image).sum(axis=1) / np.where(norms > 0, norms, 1)).mean()
    distances = np.stack([np.linalg.norm(image - row, axis=1) for row in text])
    matched, n = distances.diagonal(), len(text)
    kernel = np.exp(-(matched**2) / (2 * (np.median(distances) or 1.0) ** 2)).mean()
    mismatched = (distances.sum() - matched.sum()) / (n * (n - 1)) if n > 1 else np.nan
    return cosine, kernel, matched.mean(), mismatched


def _principal_plane(
    text: np.ndarray, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both (N, D) on the two principal directions of all their rows: (N, 2) each, and the share
    of the variance that either direction holds, (2,)."""
    points = np.concatenate([text, image])
    points = points - points.mean(axis=0)
    _, scales, directions = np.linalg.svd(points, full_matrices=False)
    largest = np.abs(directions[:2]).argmax(axis=1)  # fixes the signs, which are arbitrary
    directions = directions[:2] * np.sign(directions[[0, 1], largest])[:, None]
    plane = points @ directions.T
    variances = scales**2
    return plane[: len(text)], plane[len(text) :], variances[:2] / (variances.sum() or 1.0)


def _has_donors(data: ComparisonData) -> bool:
    return _given(data.donor_similarities, data.random_similarities)


def _draw_donors(figure: FigureBase, data: ComparisonData) -> None:
    axes = figure.subplots()
    chosen, others = data.donor_similarities, data.random_similarities
    edges = np.histogram_bin_edges(np.concatenate([chosen, others]), bins=40)
    other = _draw_histogram(axes, others, edges, "other", "random high-active users")
    median = _draw_histogram(axes, chosen, edges, "measured", "retrieved donors")
    axes.set_title(f"Median cosine: {median:.2f} for donors, {other:.2f} for random users")
    axes.set_xlabel("cosine with the low-active user")
    axes.set_ylabel("share of pairs (%)")


def _has_histories(data: ComparisonData) -> bool:
    return _given(data.history_before, data.history_after)


def _draw_histories(figure: FigureBase, data: ComparisonData) -> None:
    axes = figure.subplots()
    before, after = data.history_before, data.history_after
    longest = max(before.max(), after.max())
    width = -(-(longest + 1) // 40)  # whole numbers in every bar, or the bars would be uneven
    edges = np.arange(0, longest + width + 1, width) - 0.5
    own = _draw_histogram(axes, before, edges, "other", "own behaviours")
    median = _draw_histogram(axes, after, edges, "measured", "with borrowed ones")
    axes.set_title(f"Median history: {own:g} own behaviours, {median:g} with borrowed ones")
    axes.set_xlabel("behaviours in the history")
    axes.set_ylabel("share of targets (%)")


def _draw_histogram(
    axes: Axes, values: np.ndarray, edges: np.ndarray, role: str, label: str
) -> float:
    """Draw the shares of values between edges, and their median, which is returned."""
    heights = 100 * np.histogram(values, edges)[0] / len(values)
    median = float(np.median(values))
    colour = PALETTE[role]
    axes.stairs(heights, edges, fill=True, color=colour, alpha=0.35)
    axes.stairs(heights, edges, color=colour, linewidth=1.4, label=label)
    axes.axvline(median, color=colour, linewidth=1.2, linestyle="--")
    axes.set_xlim(edges[0], edges[-1])
    axes.legend()
    return median
