"""Tables that compare methods with one of them: the paper's Tables 2 and 3, and their like."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Optional

from recbole_mars.evaluation import PairedResult, Summary, holm
from recbole_mars.experiments.paper_report.published import PaperResult, compact
from recbole_mars.experiments.paper_report.records import Setting
from recbole_mars.experiments.paper_report.resampling import Resampled
from recbole_mars.experiments.paper_report.results import LOWEST_BASE_AUC, Results
from recbole_mars.experiments.paper_report.table import (
    NO_SCORES,
    NOT_RUN,
    Part,
    Table,
    gain_cell,
    mean_cell,
    p_cell,
    percent,
    tone,
)
from recbole_mars.experiments.tables import number

__all__ = [
    "ablations",
    "best_baselines",
    "compared",
    "compared_settings",
    "comparison",
    "gain_cells",
    "overall",
]

# Shown beside AUC where runs have them.
_BESIDE = {"log_loss": "log loss", "user_auc": "user AUC", "request_auc": "request AUC"}
_PaperRow = Callable[[Setting, str], Optional[PaperResult]]


def overall(results: Results, resampled: Resampled) -> Table:
    """Table 2: every method against the base."""
    base = results.base

    def paper(setting: Setting, method: str) -> PaperResult | None:
        row = results.paper.base if method == base else results.paper.row_of(method)
        return results.paper.result(setting.dataset, row)

    title = f"Table 2: all methods against {base}"
    return comparison(results, "table-2", title, "table-2", base, resampled, paper)


def ablations(results: Results, resampled: Resampled) -> Table:
    """Table 3: what the measured method is without its parts, and with other decisions."""
    measured = results.measured
    is_papers = results.paper.row_of(measured) == results.paper.measured

    def paper(setting: Setting, method: str) -> PaperResult | None:
        key = results.changed_key(setting, method, measured)
        if key is not None and results.value_of(setting, method, key) is not False:
            return None
        row = results.paper.ablations.get(key or "", "")
        row = results.paper.measured if method == measured else row
        return results.paper.ablation(setting.dataset, row) if is_papers else None

    title = f"Table 3: ablations and decisions, against {measured or NOT_RUN}"
    return comparison(results, "table-3", title, "table-3", measured, resampled, paper)


def comparison(
    results: Results,
    name: str,
    title: str,
    group: str,
    against: str,
    resampled: Resampled,
    paper: _PaperRow | None = None,
) -> Table:
    """Methods of a group against one method, setting by setting.

    paper: the paper's result of a method, shown in columns of its own where the paper has the
    setting. p is corrected for all comparisons of the table at once.
    """
    rows: list[dict[str, Any]] = []
    settings = compared_settings(results, group, against)
    for setting in settings:
        wanted = {*results.methods(setting, group), against}
        for method in [m for m in results.methods(setting) if m in wanted]:
            row = compared(results, setting, method, against, resampled)
            if paper and _in_paper(results, setting):
                row["paper_auc"], row["paper_rela_impr"] = paper(setting, method) or (None, None)
            rows.append(row)
    _correct(rows)
    parts = []
    for setting in settings:
        mine = [row for row in rows if _setting(row) == setting]
        parts.append(_part(setting, mine, 2 if paper and _in_paper(results, setting) else 0))
    return Table(name, title, _note(results, against, rows, paper is not None), rows, parts)


def best_baselines(results: Results, resampled: Resampled) -> Table:
    """The measured method against the baseline that validation would have chosen."""
    measured, rows = results.measured, []
    for setting in results.settings():
        best = results.best_baseline(setting)
        if best is None or measured not in results.methods(setting):
            continue
        row = compared(results, setting, measured, best, resampled)
        row["baseline_valid_auc"] = results.summary(setting, best, "valid_auc").mean
        shown, theirs = _in_paper(results, setting), results.paper
        printed = theirs.best_baseline(setting.dataset) if shown else None
        there = theirs.result(setting.dataset, theirs.row_of(measured))
        if printed and there:
            row["paper_baseline"] = printed[0]
            row["paper_difference"] = round(there.auc - printed[1].auc, 4)
        rows.append(row)
    _correct(rows)
    header = ["setting", "best baseline", "its validation AUC", "RelaImpr", "difference [95 %]"]
    header += ["p, seeds", "p, impressions"]
    printed_any = any("paper_baseline" in row for row in rows)
    header += ["paper difference"] * printed_any
    lines = []
    for row in rows:
        line = [str(_setting(row)), row["against"], number(row["baseline_valid_auc"], ".4f")]
        line += gain_cells(row)
        if "paper_baseline" in row:
            line.append(f"{row['paper_difference']:+.4f} ({row['paper_baseline']})")
        elif printed_any:
            line.append("")
        lines.append(line)
    note = (
        "The best baseline has the highest mean AUC on the validation set among those with the "
        "most seeds; the paper's is the best on its test set. "
        f"{_count(rows)}{_chance(rows)}"
    )
    title = f"{measured or NOT_RUN} against the best baseline"
    part = Part("", header, lines, [tone(_tested(row)) for row in rows], int(printed_any))
    return Table("best-baseline", title, note, rows, [part])


def compared_settings(results: Results, group: str, against: str) -> list[Setting]:
    """Settings in which a group has something to compare: more than what all others refer to."""
    known = {against, results.measured if compact(group) != "table2" else ""}
    settings = results.settings(group) if against else []
    return [s for s in settings if not known.issuperset(results.methods(s, group))]


def compared(
    results: Results,
    setting: Setting,
    method: str,
    against: str,
    resampled: Resampled | None = None,
) -> dict[str, Any]:
    """Everything to tell of a method against another, as raw numbers."""
    auc = results.summary(setting, method, "auc")
    gain = results.gain(setting, method, against)
    row: dict[str, Any] = {
        **setting._asdict(),
        "method": method,
        "against": against,
        "seeds": auc.n,
        "shared_seeds": len(gain.seeds),
        "auc_mean": auc.mean,
        "auc_sd": auc.std,
        "base_auc": gain.before,
        "rela_impr": gain.rela_impr,
        "difference": gain.tested.difference,
        "low": gain.tested.low,
        "high": gain.tested.high,
        "p_t": gain.tested.p_value,
        "p_t_holm": math.nan,
    }
    if resampled is not None:
        found = resampled.gain(setting, method, against)
        row["impressions_low"] = None if found is None else found.low
        row["impressions_high"] = None if found is None else found.high
        row["p_impressions"] = None if found is None else found.p_value
    for metric in (*_BESIDE, "valid_auc"):
        row[f"{metric}_mean"] = results.summary(setting, method, metric).mean
    return row


def gain_cells(row: dict[str, Any]) -> list[str]:
    """RelaImpr, difference, p over seeds and, if the row has it, p over impressions."""
    if row["method"] == row["against"]:
        return [percent(0.0), "", "", ""] if "p_impressions" in row else [percent(0.0), "", ""]
    cells = [percent(row["rela_impr"]), gain_cell(_tested(row))]
    cells.append(p_cell(row["p_t"], row["p_t_holm"]))
    if "p_impressions" in row:
        p = row["p_impressions"]
        cells.append(NO_SCORES if p is None else p_cell(p))
    return cells


def _part(setting: Setting, rows: Sequence[dict[str, Any]], paper: int) -> Part:
    beside = {m: name for m, name in _BESIDE.items() if _any_has(rows, f"{m}_mean")}
    header = ["method", "seeds", "AUC", "RelaImpr", "difference [95 %]", "p, seeds"]
    header += ["p, impressions", *beside.values()]
    header += ["paper AUC", "paper RelaImpr"][:paper]
    lines = []
    for row in rows:
        auc = Summary(row["auc_mean"], row["auc_sd"], row["seeds"])
        line = [row["method"], str(row["seeds"]), mean_cell(auc), *gain_cells(row)]
        line += [number(row[f"{metric}_mean"], ".4f") for metric in beside]
        if paper:
            known = row["paper_auc"] is not None
            line.append(f"{row['paper_auc']:.4f}" if known else "")
            printed = known and not math.isnan(row["paper_rela_impr"])
            line.append(percent(row["paper_rela_impr"]) if printed else "")
        lines.append(line)
    return Part(str(setting), header, lines, [tone(_tested(row)) for row in rows], paper)


def _any_has(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return any(not math.isnan(row[name]) for row in rows)


def _note(results: Results, against: str, rows: Sequence[dict[str, Any]], paper: bool) -> str:
    note = (
        "AUC: mean ± standard deviation over seeds. RelaImpr (eq. 20), difference in AUC with its "
        f"95 % interval, and p over seeds (paired t-test) are against {against} over the seeds of "
        "both. p over impressions: paired bootstrap over test impressions of the AUC averaged "
        f"over the same seeds. {_count(rows)}{_chance(rows)}"
    )
    if paper:
        note += f" {results.paper.note}"
        if any(compact(row["dataset"]).startswith("amazon") for row in rows):
            note += " Amazon: text only; other features and splits than the paper's."
    return note


def _count(rows: Sequence[dict[str, Any]]) -> str:
    count = sum(not math.isnan(row["p_t"]) for row in rows)
    return (
        f"The table makes {count} tested comparison{'s' * (count != 1)}: a star marks p below 0.05 "
        "after Holm's correction for all of them."
    )


def _chance(rows: Sequence[dict[str, Any]]) -> str:
    undefined = any(math.isnan(r["rela_impr"]) and r["base_auc"] < LOWEST_BASE_AUC for r in rows)
    return (
        f" RelaImpr divides by AUC - 0.5: it is n/a over an AUC below {LOWEST_BASE_AUC}."
        if undefined
        else ""
    )


def _correct(rows: Sequence[dict[str, Any]]) -> None:
    for row, corrected in zip(rows, holm([row["p_t"] for row in rows])):
        row["p_t_holm"] = float(corrected)


def _tested(row: dict[str, Any]) -> PairedResult:
    return PairedResult(row["difference"], row["low"], row["high"], row["p_t"])


def _setting(row: dict[str, Any]) -> Setting:
    return Setting(row["dataset"], row["split"], row["variant"])


def _in_paper(results: Results, setting: Setting) -> bool:
    paper = results.paper
    known = paper.name_of(setting.dataset) is not None
    return known and (not paper.splits or compact(setting.split) in paper.splits)
