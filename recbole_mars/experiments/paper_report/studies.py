"""Tables of the data (Table 1) and of what the paper lacks: activity, history lengths, cost."""

from __future__ import annotations

import math
from typing import Any

from recbole_mars.experiments.paper_report.published import compact
from recbole_mars.experiments.paper_report.resampling import Resampled
from recbole_mars.experiments.paper_report.results import Results
from recbole_mars.experiments.paper_report.statistics import STATISTICS
from recbole_mars.experiments.paper_report.table import (
    Part,
    Table,
    p_cell,
)
from recbole_mars.experiments.tables import number

__all__ = ["GROUPS", "activity", "costs", "data_sets", "grid", "history_lengths", "runs"]

_COSTS = {"seconds": ",.0f", "epoch_seconds": ",.1f", "peak_memory_mb": ",.0f"}
GROUPS = {"auc": "all", "auc_low": "low-active", "auc_mid": "mid-active", "auc_high": "high-active"}


def data_sets(results: Results) -> Table:
    """Table 1: our statistics of each data set beside the paper's."""
    rows: list[dict[str, Any]] = []
    parts = []
    names = dict.fromkeys(setting.dataset for setting in results.settings())
    for name in names:
        told = [r.statistics for r in results.records if r.setting.dataset == name]
        # The fullest: runs that read no features know nothing of text and images.
        ours, theirs = max(told, key=len), results.paper.statistics_of(name)
        lines = []
        for key, (title, form) in STATISTICS.items():
            if key not in ours and key not in theirs:
                continue
            value, printed = ours.get(key, math.nan), theirs.get(key)
            rows.append({"dataset": name, "statistic": key, "value": value, "paper": printed})
            lines.append(
                [title, number(value, form), "" if printed is None else f"{printed:{form}}"]
            )
        if lines:
            parts.append(Part(name, ["", "ours", "paper"], lines, foreign=1))
    note = f"Ours counts users and items that occur, of all splits{results.paper.counts}."
    if any(compact(name).startswith("amazon") for name in names):
        note += " Amazon: text only; other features than the paper's."
    return Table("table-1", "Table 1: the data", note, rows, parts)


def activity(results: Results) -> Table:
    """AUC of low-, mid- and high-active users, and of cold items, against the base."""
    rows, parts = [], []
    for setting in results.settings("table-2"):
        lines: list[list[str]] = []
        methods = results.methods(setting, "table-2")
        cold = [results.summary(setting, method, "auc_cold").n for method in methods]
        shown = {**GROUPS, **({"auc_cold": "cold items"} if any(cold) else {})}
        for method in methods:
            line = [method]
            for metric, users in shown.items():
                reached = results.summary(setting, method, metric)
                gain = results.gain(setting, method, results.base, metric)
                found = gain.tested
                rows.append(
                    {
                        **setting._asdict(),
                        "method": method,
                        "users": users,
                        "seeds": reached.n,
                        "auc_mean": reached.mean,
                        "auc_sd": reached.std,
                        "rela_impr": gain.rela_impr,
                        "difference": found.difference,
                        "low": found.low,
                        "high": found.high,
                        "p_t": found.p_value,
                    }
                )
                cell = number(reached.mean, ".4f")
                if not math.isnan(found.difference):
                    cell += f" ({found.difference:+.4f}{', p ' * (found.p_value < 0.05)}"
                    cell += (p_cell(found.p_value) if found.p_value < 0.05 else "") + ")"
                line.append(cell)
            lines.append(line)
        parts.append(Part(str(setting), ["AUC of", *shown.values()], lines))
    note = (
        f"In brackets the difference to {results.base} over shared seeds, with p where it is "
        "below 0.05 (paired t-test, not corrected). Users are grouped by training behaviours."
    )
    if any("cold items" in part.header for part in parts):
        note += (
            " Cold items: with fewer training behaviours than cold_item_interactions. Where items "
            "are few and well known, hardly an impression is of one, and this AUC says little."
        )
    return Table("activity", "Who gains: AUC by activity", note, rows, parts)


def history_lengths(results: Results, resampled: Resampled) -> Table:
    """Gain of the measured method by the length of the own history."""
    rows: list[dict[str, Any]] = []
    parts = []
    compared = False
    for setting in results.settings("table-2"):
        compared |= {results.measured, results.base} <= set(results.methods(setting))
        bins = resampled.by_length(setting, results.measured, results.base)
        rows += [{**setting._asdict(), **bin_._asdict()} for bin_ in bins]
        lines = [
            [
                f"{b.shortest:,} to {b.longest:,}",
                f"{b.impressions:,}",
                f"{b.difference:+.4f} [{b.low:+.4f}, {b.high:+.4f}]",
            ]
            for b in bins
        ]
        if lines:
            header = ["own behaviours", "impressions", "difference [95 %]"]
            parts.append(Part(str(setting), header, lines))
    note = (
        f"{results.measured} minus {results.base} in AUC, averaged over seeds, on test "
        "impressions with that many behaviours of the user's own; intervals by paired bootstrap "
        "over impressions."
    )
    if compared and not parts:
        note = "n/a (scores not kept): the gain by history length needs the scores of the runs."
    return Table("history-length", "Gain by length of the own history", note, rows, parts)


def costs(results: Results) -> Table:
    """Time and memory of a run of each method, absolute and relative to the base."""
    rows, parts = [], []
    for setting in results.settings():
        base = {m: results.summary(setting, results.base, m).mean for m in _COSTS}
        lines = []
        for method in results.methods(setting):
            mean = {m: results.summary(setting, method, m).mean for m in _COSTS}
            times = {m: mean[m] / base[m] if base[m] else math.nan for m in _COSTS}
            epochs = results.summary(setting, method, "epochs").mean
            row = {**setting._asdict(), "method": method, **mean}
            row.update({f"{m}_of_base": times[m] for m in _COSTS}, epochs=epochs)
            rows.append(row)
            cells = [
                cell
                for m, form in _COSTS.items()
                for cell in (number(mean[m], form), number(times[m], ".2f", " times"))
            ]
            if method in results.methods(setting, "table-2") or method == results.base:
                lines.append([method, *cells, number(epochs, ".1f")])
        header = ["method", "seconds", "against base", "seconds an epoch", "against base"]
        header += ["peak MB", "against base", "epochs"]
        parts.append(Part(str(setting), header, lines))
    note = (
        "Means over seeds of whole runs of Table 2 (the CSV has all), stage 1 included where a run "
        "trained it: one that found it ready on disk is cheaper. Runs may have shared their "
        "machines: these are no benchmarks."
    )
    return Table("cost", "What it costs", note, rows, parts)


def runs(results: Results) -> Table:
    """Every run, as it was."""
    rows, lines = [], []
    for setting in results.settings():
        for method in results.methods(setting):
            for seed, record in results.runs(setting, method).items():
                rows.append(
                    {
                        **setting._asdict(),
                        "method": method,
                        "seed": seed,
                        "groups": " ".join(record.groups),
                        **record.test,
                        "valid_auc": record.valid_auc,
                        "epochs": record.epochs,
                        "best_epoch": record.best_epoch,
                        "seconds": record.seconds,
                        "peak_memory_mb": record.peak_memory_mb,
                        "commit": record.commit,
                        "version": record.version,
                        "data_fingerprint": record.data_fingerprint,
                        "machine": record.machine,
                    }
                )
                numbers = (record.test["auc"], record.test["log_loss"], record.valid_auc)
                lines.append(
                    [
                        str(setting),
                        method,
                        str(seed),
                        *(number(value, ".4f") for value in numbers),
                        number(record.best_epoch, ".0f"),
                        number(record.seconds, ",.0f"),
                        record.commit[:9],
                    ]
                )
    header = ["setting", "method", "seed", "test AUC", "log loss", "validation AUC", "best epoch"]
    part = Part("", [*header, "seconds", "commit"], lines)
    return Table("runs", f"All {len(rows)} runs", "", rows, [part])


def grid(results: Results) -> Table:
    """Seeds done of seeds wanted, a row a method and a column a setting."""
    recorded = {(r.setting, r.method) for r in results.records}
    keys = {*results.wanted, *recorded}
    settings = results.settings()
    settings += sorted({setting for setting, _ in keys} - set(settings))
    methods = list(dict.fromkeys([*results.order, *sorted(method for _, method in keys)]))
    rows, lines = [], []
    for method in methods:
        line = [method]
        for setting in settings:
            wanted = results.wanted.get((setting, method), frozenset())
            done = set(results.runs(setting, method))
            if (setting, method) in keys:
                missing = " ".join(map(str, sorted(wanted - done)))
                counts = {"done": len(done), "wanted": len(wanted | done), "missing": missing}
                rows.append({**setting._asdict(), "method": method, **counts})
                line.append(f"{len(done)} / {len(wanted | done)}")
            else:
                line.append("")
        lines.append(line)
    missing_runs = sum(row["wanted"] - row["done"] for row in rows)
    plural = "s" * (missing_runs != 1)
    missing = f"{missing_runs} run{plural} missing" if missing_runs else "nothing is missing"
    note = f"Seeds done / wanted: {missing}."
    if results.failed:
        note += f" Failed, with the reason in failed/: {', '.join(results.failed)}."
    part = Part("", ["method", *map(str, settings)], lines)
    return Table("progress", "What has been run", note, rows, [part])
