"""What a step of stage 1 costs on real data; writes a Markdown table.

    python benchmarks/stage_one.py --data_path DIR

Compared in turn on the same batches, so that the state of the machine cancels out: one pass a user
against one sample an interaction, with and without L_stein, float32 against bfloat16.

DIR holds <dataset>/<dataset>.inter or .inter.gz, with a rating, and <dataset>/features/
with text_feat.npy, image_feat.npy and ids.csv.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from parts import profiled

from recbole_mars.alignment import AlignmentNetwork, AlignmentSettings
from recbole_mars.alignment.batches import Stretches, batches_by_length, read_sequences
from recbole_mars.data import TEST, TRAIN, VALID, InteractionLog
from recbole_mars.features import import_features

PARTS = {
    "modalities": "projections of the features, eq. 3",
    "id_embedding": "id and label embeddings",
    "label_embedding": "id and label embeddings",
    "id_attention": "self-attention over ids, eq. 4",
    "content_fusion": "cross-modal attention, eq. 9 and 10",
    "fusion": "attention to the behaviours, eq. 11",
    "ffn": "score, eq. 12",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--length", type=int, default=200, help="of a stretch (%(default)s)")
    parser.add_argument("--users", type=int, default=32, help="stretches a batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="measured, of each (%(default)s)")
    parser.add_argument("--naive_steps", type=int, default=3, help="they take long (%(default)s)")
    parser.add_argument(
        "--chunk", type=int, default=64, help="samples at once, naive (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="file for all seconds measured")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    trainer = Trainer(*load(args.data_path / args.dataset), args.length, args.chunk, args.device)
    batches = trainer.batches(args.users, args.steps + 1)
    naive = in_turn(
        {"one pass": trainer.one_pass, "naive": trainer.naive}, batches[: args.naive_steps + 1]
    )
    options = in_turn(
        {
            "float32": trainer.one_pass,
            "without L_stein": lambda batch: trainer.one_pass(batch, stein=False),
            "bfloat16": lambda batch: trainer.one_pass(batch, precision=torch.bfloat16),
        },
        batches,
    )
    parts = trainer.seconds_by_part(batches[1:5]) if args.device == "cpu" else {}
    gap = trainer.gap(batches[0])
    targets = [trainer.n_targets(batch) for batch in batches[1:]]

    seconds = {"naive": naive, "options": options, "parts": parts}
    if args.json:
        args.json.write_text(json.dumps({**seconds, "targets": targets}, indent=1))
    table = Path(__file__).parent / "results" / f"stage-one-{args.dataset}-{args.device}.md"
    table.write_text(report(args, seconds, targets, gap))
    print(f"Table: {table}")


def load(folder: Path) -> tuple[InteractionLog, list[np.ndarray]]:
    """The log of a data set, the last two behaviours of a user held out, and its features."""
    name = folder.name
    file = next(f for f in (folder / f"{name}.inter", folder / f"{name}.inter.gz") if f.is_file())
    table = pd.read_csv(file, sep="\t", dtype={"user_id:token": str, "item_id:token": str})
    table.columns = [column.split(":")[0] for column in table.columns]
    table["user"], _ = pd.factorize(table["user_id"])
    table = table.sort_values(["user", "timestamp"], kind="stable")
    items, tokens = pd.factorize(table["item_id"])
    counts = np.bincount(table["user"])
    phases = np.full(len(table), TRAIN, dtype=np.int8)
    phases[np.cumsum(counts) - 1] = TEST
    phases[np.cumsum(counts)[counts > 1] - 2] = VALID
    log = InteractionLog(
        users=table["user"].to_numpy() + 1,
        items=items + 1,
        labels=(table["rating"] >= 4).to_numpy(np.float32),
        times=table["timestamp"].to_numpy(np.float64),
        phases=phases,
        n_users=len(counts) + 1,
        n_items=len(tokens) + 1,
    )
    features = []
    for kind in ("text", "image"):
        file = folder / "features" / f"{kind}_feat.npy"
        matrix, present = import_features(file, file.with_name("ids.csv"), name=kind).select(
            list(tokens)
        )
        features += [np.pad(matrix, ((1, 0), (0, 0))), np.pad(present, (1, 0))]
    return log, features


class Trainer:
    """Stage 1 with its defaults, trained a step at a time, in one way or another."""

    def __init__(
        self,
        log: InteractionLog,
        features: list[np.ndarray],
        length: int,
        chunk: int,
        device: str,
    ) -> None:
        torch.manual_seed(0)
        self.log, self.length, self.chunk = log, length, chunk
        self.device = torch.device(device)
        self.settings = AlignmentSettings(history_labels=True)
        self.network = AlignmentNetwork(self.settings, log.n_items, *features).to(self.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), fused=True)
        self.stretches = Stretches.cover(log, log.phases == TRAIN, length, length // 4)

    def batches(self, users: int, count: int) -> list[np.ndarray]:
        """Batches of stretches of the full length, drawn at random."""
        (full,) = np.nonzero(self.stretches.lengths == self.length)
        if len(full) < users:
            raise ValueError(
                f"users must be <= {len(full)}, the stretches of {self.length} behaviours, "
                f"got {users}; lower users or length"
            )
        generator = np.random.default_rng(0)
        return [generator.choice(full, users, replace=False) for _ in range(count)]

    def n_targets(self, batch: np.ndarray) -> int:
        return int(self.stretches.rows(batch)[1].sum())

    def one_pass(
        self, batch: np.ndarray, stein: bool = True, precision: torch.dtype = torch.float32
    ) -> dict[str, float]:
        """A step as train_alignment makes it. Returns the seconds of its parts."""
        clock = Clock(self.device)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
            loss = self._loss(self.stretches, batch, stein)
        clock.lap("forward")
        loss.backward()
        clock.lap("backward")
        self.optimizer.step()
        clock.lap("optimizer")
        return clock.laps

    def naive(self, batch: np.ndarray) -> dict[str, float]:
        """The same step on one sample an interaction, in chunks that fit in memory."""
        clock = Clock(self.device)
        self.optimizer.zero_grad()
        self._naive_gradients(batch)
        clock.lap("forward and backward")
        self.optimizer.step()
        clock.lap("optimizer")
        return clock.laps

    def gap(self, batch: np.ndarray) -> float:
        """Largest difference of a gradient between the two ways, as a share of the largest."""
        parameters = list(self.network.parameters())
        self.optimizer.zero_grad()
        self._loss(self.stretches, batch, stein=False).backward()
        gradients = [parameter.grad.clone() for parameter in parameters]
        self.optimizer.zero_grad()
        self._naive_gradients(batch, stein=False)
        return max(
            ((parameter.grad - other).abs().max() / other.abs().max()).item()
            for parameter, other in zip(parameters, gradients)
        )

    def seconds_by_part(self, batches: list[np.ndarray]) -> dict[str, float]:
        """Seconds of a step, forward and backward, by part of the network."""
        modules = {module: part for name, part in PARTS.items() for module in self._modules(name)}
        functions = {(self.network, "_stein_terms"): "L_stein, eq. 6 and 7"}
        with profiled(modules, functions) as seconds:
            for batch in batches:
                self.one_pass(batch)
        return {part: total / len(batches) for part, total in seconds.items()}

    def _modules(self, name: str) -> list[torch.nn.Module]:
        module = getattr(self.network, name)
        return list(module.values()) if isinstance(module, torch.nn.ModuleDict) else [module]

    def _naive_gradients(self, batch: np.ndarray, stein: bool = True) -> None:
        singles = self.stretches.one_per_target(batch)
        for chunk in batches_by_length(singles.lengths, self.chunk):
            share = len(chunk) / len(singles.lengths)
            (share * self._loss(singles, chunk, stein=False)).backward()
        if stein:  # of all items of the batch, as in one pass
            rows = self.stretches.rows(batch)[0]
            items = read_sequences(self.log, rows, self.device).items
            (self.settings.stein_weight * self.network.stein(items)).backward()

    def _loss(self, stretches: Stretches, batch: np.ndarray, stein: bool) -> torch.Tensor:
        rows, counted = stretches.rows(batch)
        targets = torch.from_numpy(counted).to(self.device)
        self.network.settings = replace(self.settings, use_stein=stein)
        items, mask, labels, hidden = read_sequences(self.log, rows, self.device)
        loss, _ = self.network.loss(items, mask, labels, targets, hidden)
        self.network.settings = self.settings
        return loss


class Clock:
    """Seconds between laps, all work of the device included."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.laps = device, {}
        self.last = self._now()

    def lap(self, name: str) -> None:
        now = self._now()
        self.laps[name], self.last = now - self.last, now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def in_turn(ways: dict, batches: list[np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """Seconds of each lap of each way by batch, the first batch to warm up and the order turned."""
    seconds = {name: defaultdict(list) for name in ways}
    for i, batch in enumerate(batches):
        for name in list(ways)[:: 1 if i % 2 else -1]:
            for lap, value in ways[name](batch).items():
                if i:
                    seconds[name][lap].append(value)
    for laps in seconds.values():
        laps["step"] = [sum(each) for each in zip(*laps.values())]
    return seconds


def report(args: argparse.Namespace, seconds: dict, targets: list[int], gap: float) -> str:
    """The Markdown page."""
    naive, options, parts = seconds["naive"], seconds["options"], seconds["parts"]
    few = targets[: args.naive_steps]
    page = [f"# Stage 1 on {args.dataset}, stretches of {args.length} behaviours: cost of a step\n"]
    page += ["| training | targets/s | s a step | ratio |", "| --- | --- | --- | --- |"]
    for name, title in (("one pass", "one pass a user"), ("naive", "one sample an interaction")):
        rates = [n / s for n, s in zip(few, naive[name]["step"])]
        ratio = ratios(naive["naive"], naive["one pass"]) if name == "one pass" else "1"
        page.append(
            f"| {title} | {spread(rates, '.0f')} | {spread(naive[name]['step'])} | {ratio} |"
        )
    page.append(
        f"\nSame loss and gradients: in float32 these differ by {gap:.0e} of the largest at most. "
        f"The naive samples are sorted by length and taken {args.chunk} at a time, padded to the "
        "longest; L_stein and the optimizer's step are taken once a batch in both.\n"
    )
    laps = ("forward", "backward", "optimizer", "step")
    page += [f"| one pass, s | {' | '.join(laps)} | times float32 |", "| --- |" + " --- |" * 5]
    for name, times in options.items():
        cells = " | ".join(spread(times[lap]) for lap in laps)
        page.append(f"| {name} | {cells} | {ratios(options['float32'], times)} |")
    whole, without = options["float32"]["step"], options["without L_stein"]["step"]
    shares = [1 - less / more for more, less in zip(whole, without)]
    page.append(
        f"\nL_stein over at most {AlignmentSettings().stein_items} distinct items: "
        f"{spread(shares, '.1%')} of a step.\n"
    )
    if parts:
        total = sum(parts.values())
        page += [
            "| part of the network, forward and backward | ms | share |",
            "| --- | --- | --- |",
        ]
        page += [f"| {part} | {1e3 * s:.1f} | {s / total:.1%} |" for part, s in parts.items()]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    command = " ".join(["python benchmarks/stage_one.py", *sys.argv[1:]])
    page.append(
        f"\nMedian [least, most] of {args.steps} steps, of {args.naive_steps} against the naive "
        f"way, after one to warm up, taken in turn on the same batches; parts by torch's profiler. "
        f"{args.users} stretches and {spread(targets, '.0f')} targets a batch; networks of the "
        "default sizes, labels in the histories.\n\n"
        f"```\n{command.replace(str(args.data_path), 'DIR')}\n```\n\n"
        f"Commit {commit}, {date.today()}, torch {torch.__version__}, {args.threads} threads, "
        f"{machine(args.device)}.\n"
    )
    return "\n".join(page)


def spread(values: list[float], form: str = ".3f") -> str:
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} [{least:{form}}, {most:{form}}]"


def ratios(slow: dict[str, list[float]], fast: dict[str, list[float]]) -> str:
    """How many times as fast, paired by batch."""
    return spread([a / b for a, b in zip(slow["step"], fast["step"])], ".2f")


def machine(device: str) -> str:
    """The processor, with what torch uses of it, and the GPU if it is one."""
    model = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        names = [line for line in facts.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    cpu = f"{model} ({torch.backends.cpu.get_cpu_capability()})"
    return cpu if device == "cpu" else f"{cpu}, {torch.cuda.get_device_name(device)}"


if __name__ == "__main__":
    main()
