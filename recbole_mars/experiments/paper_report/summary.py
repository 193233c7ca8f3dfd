"""What the numbers say, in sentences that claim no more than they do."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from shlex import quote
from typing import Any

from recbole_mars.experiments.paper_report.mixtures import mixtures
from recbole_mars.experiments.paper_report.records import Setting
from recbole_mars.experiments.paper_report.results import Gain, Results
from recbole_mars.experiments.tables import judgement, number, verdict

_HASH = r"^([0-9a-f]{12})[0-9a-f]+"

__all__ = ["doubts", "negatives", "overall_verdict", "reproduction", "summary"]


def summary(results: Results) -> list[str]:
    """How many settings are won, lost and open; then a sentence for each."""
    measured, base = results.measured, results.base
    settings = [s for s in results.settings() if measured and measured in results.methods(s)]
    settings = [s for s in settings if base in results.methods(s)]
    if not settings:
        missing = f"{measured} and {base}" if measured else "the measured method"
        return [
            f"No setting has records of {missing} yet: nothing can be said of the method that is "
            "measured (the one called MARS, or what spec.yaml names as `measured`)."
        ]
    gains = {setting: results.gain(setting, measured, base) for setting in settings}
    counts = {"better": 0, "worse": 0, "open": 0, "undefined": 0}
    for gain in gains.values():
        counts[verdict(gain.tested)] += 1
    said = f"Against {base}, {measured} is significantly better in {counts['better']} of "
    said += f"{len(gains)} setting{'s' * (len(gains) > 1)}, significantly worse in "
    said += f"{counts['worse']}, and not significantly different in {counts['open']}"
    said += f"; {counts['undefined']} allow no conclusion" if counts["undefined"] else ""
    sentences = [f"{said} (paired t-test over seeds, p < 0.05, each setting by itself)."]
    sentences += [_of_setting(results, setting, gain) for setting, gain in gains.items()]
    chosen = (_best_on_validation(results, setting) for setting in gains)
    return sentences + [said for said in chosen if said]


def overall_verdict(results: Results) -> str:
    """ "better" if significantly so in every setting, "worse" if so in any, "undefined" if nowhere
    tested, else "open"."""
    tested = [
        verdict(results.gain(setting, results.measured, results.base).tested)
        for setting in results.settings()
        if results.measured and results.measured in results.methods(setting)
    ]
    if "worse" in tested:
        return "worse"
    if not tested or set(tested) == {"undefined"}:
        return "undefined"
    return "better" if set(tested) == {"better"} else "open"


def negatives(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every row of Table 2 that is no significant gain, in words."""
    found = []
    for row in rows:
        if row["method"] == row["against"] or (row["difference"] > 0 and row["p_t"] < 0.05):
            continue
        setting = Setting(row["dataset"], row["split"], row["variant"])
        words = f"{row['method']} on {setting}: {number(row['difference'], '+.4f')} AUC"
        if math.isnan(row["difference"]):
            words += " (no seed in common)"
        elif math.isnan(row["p_t"]):
            words += " (no p: one seed, or no spread)"
        else:
            words += f" (p = {row['p_t']:.3f})" if row["p_t"] >= 0.001 else " (p < 0.001)"
            words += ", significantly worse" if row["p_t"] < 0.05 else ""
        found.append(words + ".")
    return found


def doubts(results: Results) -> list[str]:
    """What a reader must know before comparing: runs of several settings, commits, data or
    machines."""
    found = mixtures(results)
    for field, words in (("commit", "commits"), ("version", "versions")):
        values = sorted({getattr(record, field) for record in results.records})
        if len(values) > 1:
            listed = ", ".join(re.sub(_HASH, r"\1", value) or "unknown" for value in values)
            found.append(f"The runs come from {len(values)} {words}: {listed}.")
    machines = {record.machine for record in results.records}
    if len(machines) > 1:
        found.append(f"They ran on {len(machines)} machines: times are not comparable throughout.")
    for setting in results.settings():
        runs = [record for record in results.records if record.setting == setting]
        if len({run.data_fingerprint for run in runs}) > 1:
            found.append(f"{setting}: the runs read different data or features, see all runs.")
    return found


def _of_setting(results: Results, setting: Setting, gain: Gain) -> str:
    said = f"{setting}: {results.measured} {_against(gain, results.base)}"
    best = results.best_baseline(setting)
    if best is not None:
        other = results.gain(setting, results.measured, best)
        said += f"; {number(other.tested.difference, '+.4f')} AUC against {best}, the best "
        said += f"baseline on validation ({judgement(other.tested)})"
    low = results.gain(setting, results.measured, results.base, "auc_low")
    if not math.isnan(low.tested.difference):
        said += f"; low-active users {low.tested.difference:+.4f} AUC ({judgement(low.tested)})"
    return said + "."


def _best_on_validation(results: Results, setting: Setting) -> str:
    """What validation would choose of all methods with as many seeds as any, unless it is the base
    or the measured one."""
    best = results.best(setting, results.methods(setting))
    if best in (None, results.base, results.measured):
        return ""
    gain = results.gain(setting, str(best), results.base)
    said = _against(gain, results.base)
    return f"{setting}: of all methods validation would choose {best}, which {said}."


def _against(gain: Gain, base: str) -> str:
    if not gain.seeds:
        return f"has no seed in common with {base}"
    seeds = f"{len(gain.seeds)} seeds" if len(gain.seeds) > 1 else "one seed"
    return (
        f"is {number(gain.rela_impr, '+.2f', ' %')} RelaImpr over {base} (AUC {gain.after:.4f} "
        f"against {gain.before:.4f}, {judgement(gain.tested)}, {seeds})"
    )


def reproduction(results: Results) -> list[tuple[str, str]]:
    """Commands, and what the runs were made with, as names and values."""
    folder = quote(results.folder.as_posix())
    command = "python -m recbole_mars.experiments"
    found = [("tables and page", f"{command} report {folder}")]
    if (results.folder / "spec.yaml").is_file():
        spec = quote((results.folder / "spec.yaml").as_posix())
        run = f"{command} run {spec} --output {folder} --data_path DIR"
        found = [("run", run), ("DIR", "the folder that holds the data sets"), *found]
    for field, words in (("commit", "commit"), ("version", "version"), ("machine", "machine")):
        values = Counter(getattr(record, field) or "unknown" for record in results.records)
        found += [(words, f"{value} ({_runs(count)})") for value, count in sorted(values.items())]
    data = Counter((r.setting.dataset, r.data_fingerprint) for r in results.records)
    for (dataset, fingerprint), count in sorted(data.items()):
        found.append((f"data of {dataset}", f"{fingerprint or 'unknown'} ({_runs(count)})"))
    if results.trials:
        said = f"{results.trials} trials planned for each method, judged on the validation set"
        found.append(("search", said))
    return found


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"
