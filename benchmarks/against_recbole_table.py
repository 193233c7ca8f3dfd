"""The table and the figure of against_recbole.py."""

from __future__ import annotations

import platform
import statistics
import subprocess
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["machine_facts", "write_table"]

NAMES = {
    "as shipped": "RecBole, as shipped",
    "no anomaly detection": "RecBole, anomaly detection off",
    "float32": "ours, float32",
    "bfloat16": "ours, bfloat16",
    "default sizes": "ours, our default sizes",
}


def machine_facts(args: Namespace) -> dict[str, Any]:
    processor = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "processor": processor,
        "device": args.device,
        "threads": args.threads,
        "commit": commit,
        **{name: version(name) for name in ("torch", "recbole", "numpy", "pandas")},
    }


def write_table(report: dict[str, Any], file: Path, figure: Path) -> None:
    lines = [f"# DIN against RecBole's: {report['dataset']}, {report['split']}", ""]
    for result in report["results"]:
        lines += [*_of_length(result), ""]
    lengths = [result["length"] for result in report["results"]]
    if len(lengths) > 1 and "RecBole" in report["results"][0]["prepare"]:
        draw(report, figure)
        lines += [f"![throughput and memory by history length]({figure.name})", ""]
    facts = report["machine"]
    rounds = len(report["results"][0]["our_rss_mb"])
    measured = f"Rates: median [lowest, highest] over {rounds} rounds taken in turn; ratios: of "
    measured += "the rates within a round. "
    lines += [
        f"```\n{report['command']}\n```",
        "",
        f"{report['date']}, commit {facts['commit']}, {facts['processor']}, {facts['threads']} "
        f"threads, {facts['device']}, torch {facts['torch']}, RecBole {facts['recbole']}, numpy "
        f"{facts['numpy']}, pandas {facts['pandas']}. {measured if rounds else ''}Batch 2048, "
        "embeddings of 10, MLPs 256-256-256 (our default sizes: 80-40 and 200-80).",
    ]
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _of_length(result: dict[str, Any]) -> list[str]:
    lines = [f"## Histories of {result['length']} at most"]
    if result["rates"]["train"]:
        lines += ["", *_speed(result), "", *_memory(result)]
    return lines + _aucs(result["auc"]) + _profiles(result.get("profile", {}))


def _speed(result: dict[str, Any]) -> list[str]:
    lines = ["| | training samples/s | evaluation samples/s |", "| --- | --- | --- |"]
    for variant, rates in result["rates"]["train"].items():
        evaluated = result["rates"]["evaluate"][variant]
        lines.append(f"| {NAMES[variant]} | {_spread(rates)} | {_spread(evaluated)} |")
    lines += ["", "| figure | value |", "| --- | --- |"]
    for name, value in result.items():
        if isinstance(value, float) and ("ratio" in name or "fraction" in name):
            low, high = result.get(f"{name}_range", (value, value))
            spread = f" [{low:.2f}, {high:.2f}]" if f"{name}_range" in result else ""
            lines.append(f"| {name} | {value:.2f}{spread} |")
    pairs = result["pairs"]
    lines.append(
        f"| pairs of target and behaviour in a training batch | {pairs['real']:,.0f} real, "
        f"{pairs['distinct']:,.0f} distinct, {pairs['samples'] * result['length']:,.0f} places |"
    )
    for name in ("float32", "bfloat16"):
        peaks = [peak[name] / 1e9 for peak in result["peak_flops"]]
        lines.append(f"| largest matrix product, {name} | {_spread(peaks)} GFLOP/s |")
    return lines


def _memory(result: dict[str, Any]) -> list[str]:
    lines = ["| memory | |", "| --- | --- |"]
    for library, facts in result["prepare"].items():
        lines += [
            f"| {library}: preparation | {facts['prepare_seconds']:.1f} s, peak "
            f"{facts['prepared_mb']:,.0f} MB ({facts['imported_mb']:.0f} MB after the imports) |",
            f"| {library}: peak after training | {result['memory'][library]['peak_mb']:,.0f} MB |",
        ]
    for library, found in result["workers"].items():
        each = " and ".join(f"{megabytes:,.0f}" for megabytes in found["own_mb"])
        lines.append(f"| {library}: two loading processes, own memory | {each} MB |")
    for variant, size in result["checkpoint_mb"].items():
        owner = "recbole_mars" if variant == "float32" else variant
        lines.append(f"| {owner}: checkpoint | {size:,.1f} MB |")
    growth = ", ".join(f"{megabytes:,.0f}" for megabytes in result["our_rss_mb"])
    lines.append(f"| recbole_mars: memory in use after each round | {growth} MB |")
    if "RecBole" not in result["prepare"]:
        rows = result["prepare"]["recbole_mars"]["train_rows"]
        needed = rows * result["length"] * (8 + 4 + 4) / 1e9
        lines.append(
            f"| RecBole: its histories, computed and not run ({rows:,} rows x {result['length']} x "
            f"item, time and label) | {needed:,.0f} GB, twice while it prepares |"
        )
    return lines


def _profiles(profiles: dict[str, dict[str, float]]) -> list[str]:
    lines: list[str] = []
    for variant, shares in profiles.items():
        parts = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        lines += ["", f"Where a training step goes, {NAMES[variant]}: {parts}."]
    return lines


def _aucs(auc: dict[str, Any]) -> list[str]:
    if not auc["seeds"]:
        return []
    variants = [name for name in auc["seeds"][0] if name != "seed"]
    epochs = auc.get("epochs")
    amount = f"{epochs} epochs" if epochs else f"{auc['steps']} steps"
    lines = ["", f"Test AUC after {amount} from RecBole's initial weights:", ""]
    lines += ["| seed | " + " | ".join(NAMES[v] for v in variants) + " |"]
    lines += ["| --- " * (len(variants) + 1) + "|"]
    for row in auc["seeds"]:
        cells = " | ".join(f"{row[v]['auc']:.4f}" for v in variants)
        lines.append(f"| {row['seed']} | {cells} |")
    if len(auc["seeds"]) > 1:
        cells = " | ".join(
            f"{statistics.mean(x):.4f} ± {statistics.stdev(x):.4f}"
            for x in ([row[v]["auc"] for row in auc["seeds"]] for v in variants)
        )
        lines.append(f"| mean ± standard deviation | {cells} |")
    return lines


def _spread(values: list[float]) -> str:
    if not values or values[0] != values[0]:
        return "as below" if values else ""
    return f"{statistics.median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}]"


def draw(report: dict[str, Any], file: Path) -> None:
    """Throughput and memory of both libraries against history length."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lengths = [result["length"] for result in report["results"]]
    colours = {"as shipped": "#b0413e", "no anomaly detection": "#e0a458"}
    colours |= {"float32": "#1f5a7a", "bfloat16": "#3aa6a0"}
    figure, (speed, memory) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for variant, colour in colours.items():
        rates = [r["rates"]["train"][variant] for r in report["results"]]
        middle = [statistics.median(rate) for rate in rates]
        speed.plot(lengths, middle, "o-", color=colour, label=NAMES[variant])
        low, high = [min(rate) for rate in rates], [max(rate) for rate in rates]
        speed.fill_between(lengths, low, high, color=colour, alpha=0.2)
    speed.set(xlabel="longest history", ylabel="training samples/s", yscale="log")
    speed.set_ylim(bottom=100)
    speed.set_title("Training speed of DIN, 256-256-256")
    speed.legend(frameon=False, loc="lower left", fontsize=8)
    for library, colour in (("RecBole", "#b0413e"), ("recbole_mars", "#1f5a7a")):
        peak = [r["memory"][library]["peak_mb"] / 1000 for r in report["results"]]
        prepared = [r["prepare"][library]["prepared_mb"] / 1000 for r in report["results"]]
        memory.plot(lengths, peak, "o-", color=colour, label=f"{library}: training")
        memory.plot(lengths, prepared, "o--", color=colour, label=f"{library}: preparation")
    memory.set(xlabel="longest history", ylabel="peak memory, GB", ylim=(0, None))
    memory.set_title(f"Memory, {report['dataset']}")
    memory.legend(frameon=False, fontsize=8)
    for axes in (speed, memory):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xticks(lengths)
    figure.savefig(file, dpi=110)
