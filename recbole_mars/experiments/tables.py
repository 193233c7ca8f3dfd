"""A comparison of two models in words and as a table.

The base is the model whose run comes first, the other is the measured one. With several seeds a
model's value is the mean over them, and so is each end of its interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recbole_mars.data.plain_table import plain_table
from recbole_mars.evaluation import PairedResult, rela_impr
from recbole_mars.experiments.comparison import Gains, RunCurves, model_names

__all__ = [
    "GROUP_METRICS",
    "Estimate",
    "comparison_rows",
    "estimate",
    "gain_of",
    "headline",
    "judgement",
    "markdown_table",
    "number",
    "reservations",
    "side_by_side",
    "verdict",
]

GROUP_METRICS = {"all": "auc", "low": "auc_low", "mid": "auc_mid", "high": "auc_high"}
_SIGNIFICANT = 0.05


class Estimate(NamedTuple):
    """A metric and the ends of its 95 % interval; nan where undefined."""

    value: float
    low: float
    high: float


def side_by_side(runs: Sequence[RunCurves], gains: Gains) -> str:
    """The comparison as plain text, at most 100 columns wide for names of up to 10 letters."""
    return plain_table(*comparison_rows(runs, gains))


def markdown_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """A Markdown table; pipes and line breaks inside cells do not break it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", r"\|").split()) for cell in line) + " |"
        for line in lines
    )


def comparison_rows(runs: Sequence[RunCurves], gains: Gains) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the comparison: metric, base, measured, their difference, p.

    Numbers have four decimals and their 95 % interval where it is known. An undefined number is
    "n/a"; a cell is empty where there is nothing to say.
    """
    base, measured = model_names(runs)
    rows = []
    for group, key in GROUP_METRICS.items():
        gain = gain_of(runs, gains, group)
        rows.append(
            [
                "AUC, all users" if group == "all" else f"  {group}-active",
                _interval(*estimate(runs, base, key)),
                _interval(*estimate(runs, measured, key)),
                _interval(gain.difference, gain.low, gain.high, sign="+"),
                _p_value(gain.p_value),
            ]
        )
    before, after = (estimate(runs, name, "log_loss") for name in (base, measured))
    change = number(after.value - before.value, "+.4f")
    rows.append(["log loss", _interval(*before), _interval(*after), change, ""])
    rows.append(["RelaImpr", "", "", number(_relative_gain(runs), "+.2f", " %"), ""])
    return ["", base, measured, f"{measured} - {base}", "p"], rows


def headline(runs: Sequence[RunCurves], gains: Gains) -> str:
    """The result over all users in one sentence, built alike for a gain, a loss and a draw."""
    base, measured = model_names(runs)
    before, after = (estimate(runs, name, "auc").value for name in (base, measured))
    if math.isnan(before + after):
        return f"{measured} cannot be compared with {base}: an AUC is undefined."
    relative = _relative_gain(runs)
    merit = f"{after - before:+.4f} AUC" if math.isnan(relative) else f"{relative:+.2f} % RelaImpr"
    seeds = len({run.seed for run in runs})
    return (
        f"{measured} is {merit} over {base} (AUC {after:.4f} against {before:.4f}), "
        f"{judgement(gain_of(runs, gains, 'all'))} with {seeds if seeds > 1 else 'one'} "
        f"seed{'s' if seeds > 1 else ''}."
    )


def reservations(runs: Sequence[RunCurves], gains: Gains) -> list[str]:
    """What has to be said next to the headline: the low-active users, and the luck of training."""
    base, measured = model_names(runs)
    low = gain_of(runs, gains, "low")
    sentences = [
        "For low-active users an AUC is undefined."
        if math.isnan(low.difference)
        else f"For low-active users: {low.difference:+.4f} AUC, {judgement(low)}."
    ]
    aucs = {(run.name, run.seed): run.test.get("auc", math.nan) for run in runs}
    shared = [seed for name, seed in aucs if name == base and (measured, seed) in aucs]
    if len(shared) > 1:
        ahead = sum(aucs[measured, seed] > aucs[base, seed] for seed in shared)
        sentences.append(f"{measured} is ahead in {ahead} of {len(shared)} seeds.")
    elif verdict(gain_of(runs, gains, "all")) != "undefined":
        sentences.append(
            "One training of each: p covers the chance in the test impressions, not in training."
        )
    return sentences


def verdict(gain: PairedResult) -> str:
    """ "better" or "worse" if p < 0.05, "open" if not, "undefined" without difference or p."""
    if math.isnan(gain.difference) or math.isnan(gain.p_value):
        return "undefined"
    if gain.p_value >= _SIGNIFICANT or gain.difference == 0:
        return "open"
    return "better" if gain.difference > 0 else "worse"


def judgement(gain: PairedResult) -> str:
    """p and what it allows to say, in words."""
    judged = verdict(gain)
    if judged == "undefined":
        return "p undefined: no conclusion"
    words = "not significant" if judged == "open" else f"significantly {judged}"
    equation = "< 0.001" if gain.p_value < 0.001 else f"= {gain.p_value:.3f}"
    return f"p {equation}: {words}"


def estimate(runs: Sequence[RunCurves], name: str, key: str) -> Estimate:
    """A metric of a model, averaged over its runs; nan if a run lacks it."""
    missing = (math.nan, math.nan)
    values = [
        (run.test.get(key, math.nan), *run.intervals.get(key, missing))
        for run in runs
        if run.name == name
    ]
    return Estimate(*np.mean(values, axis=0).tolist())


def gain_of(runs: Sequence[RunCurves], gains: Gains, group: str) -> PairedResult:
    """The tested gain of a group, or else the bare difference; nan where undefined."""
    gain = gains.get(group)
    if gain is not None:
        return PairedResult(*(math.nan if number is None else number for number in gain))
    before, after = (estimate(runs, name, GROUP_METRICS[group]).value for name in model_names(runs))
    return PairedResult(after - before, math.nan, math.nan, math.nan)


def _relative_gain(runs: Sequence[RunCurves]) -> float:
    """RelaImpr in percent; nan if the base is no better than chance, where it means nothing."""
    before, after = (estimate(runs, name, "auc").value for name in model_names(runs))
    return rela_impr(after, before) if before > 0.5 else math.nan


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else number(p, ".3f")


def _interval(value: float, low: float, high: float, sign: str = "") -> str:
    text = number(value, f"{sign}.4f")
    if math.isnan(low) or math.isnan(high):
        return text
    return f"{text} [{low:{sign}.4f}, {high:{sign}.4f}]"


def number(value: float, form: str, unit: str = "") -> str:
    return "n/a" if math.isnan(value) else f"{value:{form}}{unit}"
