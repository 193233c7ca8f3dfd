"""RecBole's DIN and ours on the same data, sizes, batches, seed and threads.

    python benchmarks/against_recbole.py --dataset ml-100k --length 200
    python benchmarks/against_recbole.py --dataset ml-1m --data_path DIR --length 200 --auc_steps 60
    python benchmarks/against_recbole.py --dataset ml-20m-shape --length 200

Each library has a process of its own. They take turns, round by round, so that a slow moment of
the machine meets both; a ratio is the median over rounds of the ratio within a round. Each step
goes through the library's own trainer and loader.

--data_path holds <dataset>/<dataset>.inter or .inter.gz with a rating and a timestamp; ml-100k
comes with RecBole. ml-20m-shape is made here: 20 million interactions, 138,493 users, 26,744 items,
the counts of MovieLens-20M; there RecBole is not run, for its histories alone would take the
memory that the table names.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

HERE = Path(__file__).parent
SPLITS = {
    "leave-one-out": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "labeled"},
    "temporal": {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": None, "mode": "labeled"},
}
BATCH, WIDTH, HIDDEN = 2048, 10, 256  # RecBole's defaults
OURS = ["float32", "bfloat16", "default sizes"]
THEIRS = ["as shipped", "no anomaly detection"]


class Library:
    """A worker process and the questions it answers."""

    def __init__(self, name: str, dataset: str, settings: dict[str, Any], threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", HERE / "din_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.facts = self.ask(package=name, dataset=dataset, settings=settings, threads=threads)

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process ended with {self.process.wait()}; see above")
        return json.loads(answer)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def peak_flops(device: str) -> dict[str, float]:
    """The most that a matrix product reaches here, in FLOP/s, by type."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        best = 0.0
        for n, k in ((4096, 4096), (4096, HIDDEN), (131072, HIDDEN)):
            x = torch.randn(n, k, device=device).to(dtype)
            w = torch.randn(k, k, device=device).to(dtype)
            for multiply in _products(x, w):
                multiply()
                begin, runs = time.perf_counter(), 0
                while time.perf_counter() - begin < 0.5:
                    multiply()
                    runs += 1
                    if device != "cpu":
                        torch.cuda.synchronize()
                best = max(best, runs * 2 * n * k * k / (time.perf_counter() - begin))
        found[name] = best
    return found


def _products(x: torch.Tensor, w: torch.Tensor) -> list[Any]:
    out = x.new_empty(len(x), len(w))
    ways = [lambda: torch.mm(x, w, out=out)]
    if x.device.type == "cpu" and x.dtype == torch.float32:
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], ""))
    return ways


def step_flops(pairs: dict[str, float], scored: float) -> float:
    """Operations of a training step that scores so many pairs: forward, and twice that back."""
    unit = WIDTH * HIDDEN + 2 * HIDDEN**2 + HIDDEN  # the factored first layer: only q·k a pair
    network = 3 * WIDTH * HIDDEN + 2 * HIDDEN**2 + HIDDEN
    return 3 * 2 * (unit * scored + network * pairs["samples"])


def make_ml_20m_shape(folder: Path) -> None:
    """Interactions with the counts of MovieLens-20M: at least 20 a user, popularity by rank."""
    file = folder / "ml-20m-shape.inter"
    if file.exists():
        return
    print("Writing 20 million interactions ...", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    n, users, items = 20_000_000, 138_493, 26_744
    extra = generator.lognormal(4.0, 1.25, users)
    counts = 20 + (extra / extra.sum() * (n - 20 * users)).astype(int)
    counts[: n - counts.sum()] += 1
    chance = np.cumsum(1 / np.arange(1, items + 1) ** 0.9)
    start = np.repeat(generator.integers(8e8, 1.4e9, users), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    table = pd.DataFrame(
        {
            "user_id:token": np.repeat(np.arange(1, users + 1), counts),
            "item_id:token": generator.permutation(items)[
                np.searchsorted(chance, generator.random(n) * chance[-1])
            ],
            "rating:float": generator.integers(1, 11, n) / 2,
            "timestamp:float": start + 60 * (np.arange(n) - first),
        }
    )
    unfinished = file.with_suffix(".tmp")
    table.to_csv(unfinished, sep="\t", index=False)
    unfinished.rename(file)


def find_data(args: argparse.Namespace) -> Path:
    """The folder with the data set, unpacked: RecBole reads no .gz."""
    folder = args.output / "data" / args.dataset
    if args.dataset == "ml-20m-shape":
        make_ml_20m_shape(folder)
    elif args.data_path:
        source = args.data_path / args.dataset / f"{args.dataset}.inter"
        folder.mkdir(parents=True, exist_ok=True)
        opener = open if source.exists() else gzip.open
        packed = source if source.exists() else source.with_name(f"{source.name}.gz")
        with opener(packed, "rb") as stream, open(folder / source.name, "wb") as file:
            shutil.copyfileobj(stream, file)
    elif args.dataset == "ml-100k":
        import recbole

        shutil.copytree(
            Path(recbole.__file__).parent / "dataset_example" / "ml-100k",
            folder,
            dirs_exist_ok=True,
        )
    else:
        raise SystemExit(f"--data_path must name the folder that holds {args.dataset}/")
    return folder.parent


def measure(args: argparse.Namespace, length: int) -> dict[str, Any]:
    settings = {
        "data_path": str(find_data(args).resolve()),
        "checkpoint_dir": str(args.output / "checkpoints"),
        "threshold": {"rating": 4},
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "train_neg_sample_args": None,
        "eval_args": SPLITS[args.split],
        "MAX_ITEM_LIST_LENGTH": length,
        "train_batch_size": BATCH,
        "embedding_size": WIDTH,
        "metrics": ["AUC", "LogLoss"],
        "valid_metric": "AUC",
        "use_gpu": args.device != "cpu",
        "show_progress": False,
        "state": "ERROR",
        "seed": 2020,
    }
    alone = args.dataset == "ml-20m-shape"
    own = {**settings, "keep_prepared": False}
    libraries = {"recbole_mars": Library("recbole_mars", args.dataset, own, args.threads)}
    if not alone:
        libraries["RecBole"] = Library("RecBole", args.dataset, settings, args.threads)
    ours = libraries["recbole_mars"]
    theirs = libraries.get("RecBole")
    result: dict[str, Any] = {"length": length}
    result["prepare"] = {name: library.facts for name, library in libraries.items()}
    result["pairs"] = ours.ask(do="pairs")
    variants = [(ours, v) for v in OURS] + [(theirs, v) for v in THEIRS if theirs]
    rates: dict[str, dict[str, list[float]]] = {"train": {}, "evaluate": {}}
    growth = []
    peaks: list[dict[str, float]] = []
    for turn in range(args.rounds + 1 if args.rounds else 0):  # the first is not counted
        peaks.append(peak_flops(args.device))
        for library, variant in variants:
            steps = args.steps * (4 if library is ours else 1) if turn else 1
            found = library.ask(do="train", variant=variant, steps=steps)
            evaluated = {"rate": float("nan")}
            if variant != "as shipped":  # evaluation is the same
                evaluated = library.ask(do="evaluate", variant=variant)
            if turn:
                rates["train"].setdefault(variant, []).append(found["rate"])
                rates["evaluate"].setdefault(variant, []).append(evaluated["rate"])
            if turn and variant == OURS[-1]:
                growth.append(found["rss_mb"])
            print(
                f"round {turn}, {variant}: {found['rate']:.0f} training samples/s, "
                f"{evaluated['rate']:.0f} in evaluation",
                file=sys.stderr,
            )
    result |= {"rates": rates, "peak_flops": peaks[1:], "our_rss_mb": growth}
    if args.rounds and args.device == "cpu":
        result["profile"] = {v: ours.ask(do="profile", variant=v) for v in OURS}
    result["checkpoint_mb"] = {"float32": ours.ask(do="checkpoint", variant="float32")["mb"]}
    if theirs:
        result["checkpoint_mb"]["RecBole"] = theirs.ask(do="checkpoint", variant=THEIRS[1])["mb"]
    result["memory"] = {name: library.ask(do="memory") for name, library in libraries.items()}
    if args.rounds:
        result["workers"] = {n: lib.ask(do="loader_workers") for n, lib in libraries.items()}
    amount = {"steps": args.auc_steps, "epochs": args.auc_epochs}
    result["auc"] = {**amount, "seeds": []}
    for seed in range(2020, 2020 + args.seeds if any(amount.values()) else 2020):
        found = {
            variant: library.ask(do="auc", seed=seed, variant=variant, **amount)
            for library, variant in variants
            if variant in ("float32", "bfloat16", "no anomaly detection")
        }
        result["auc"]["seeds"].append({"seed": seed, **found})
        print(f"seed {seed}: {found}", file=sys.stderr)
    for library in libraries.values():
        library.close()
    return result | (ratios(result) if args.rounds else {})


def ratios(result: dict[str, Any]) -> dict[str, Any]:
    """The figures to quote: median, lowest and highest over rounds."""
    train, evaluate = result["rates"]["train"], result["rates"]["evaluate"]
    found: dict[str, Any] = {}

    def over(name: str, above: list[float], below: list[float]) -> None:
        each = [a / b for a, b in zip(above, below)]
        found[name] = statistics.median(each)
        found[f"{name}_range"] = [min(each), max(each)]

    if "as shipped" in train:
        over("train_ratio", train["float32"], train["as shipped"])
        over("train_ratio_no_anomaly_detection", train["float32"], train[THEIRS[1]])
        over("train_ratio_bfloat16", train["bfloat16"], train["as shipped"])
        over("train_ratio_bfloat16_no_anomaly_detection", train["bfloat16"], train[THEIRS[1]])
        over("train_ratio_default_sizes", train["default sizes"], train["as shipped"])
        over("eval_ratio", evaluate["float32"], evaluate[THEIRS[1]])
        over("eval_ratio_bfloat16", evaluate["bfloat16"], evaluate[THEIRS[1]])
        taken = {n: f["prepared_mb"] - f["imported_mb"] for n, f in result["prepare"].items()}
        found["prepare_rss_ratio"] = taken["RecBole"] / max(1.0, taken["recbole_mars"])
    pairs = result["pairs"]
    for name in ("float32", "bfloat16"):
        flops = step_flops(pairs, pairs["distinct"])
        reached = [rate / pairs["samples"] * flops for rate in train[name]]
        over(
            "peak_flops_fraction" if name == "float32" else f"peak_flops_fraction_{name}",
            reached,
            [peak[name] for peak in result["peak_flops"]],
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="ml-100k", help="(%(default)s)")
    parser.add_argument("--data_path", type=Path, help="folder that holds the data set's")
    parser.add_argument(
        "--length", type=int, nargs="+", default=[200], help="of histories, at most"
    )
    parser.add_argument("--steps", type=int, default=2, help="of RecBole a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="0: no speed (%(default)s)")
    parser.add_argument("--auc_steps", type=int, default=0, help="steps before the AUC; 0: none")
    parser.add_argument("--auc_epochs", type=int, default=0, help="epochs before it, instead")
    parser.add_argument("--seeds", type=int, default=3, help="of the AUC (%(default)s)")
    parser.add_argument("--split", choices=SPLITS, default="leave-one-out")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the raw figures to this file")
    parser.add_argument("--output", type=Path, default=Path("runs/against-recbole"))
    args = parser.parse_args()
    given = sys.argv[1:]
    if args.data_path:
        given = ["DIR" if text == str(args.data_path) else text for text in given]
    command = " ".join(["python benchmarks/against_recbole.py", *given])
    torch.set_num_threads(args.threads)
    from against_recbole_table import machine_facts, write_table

    results = [measure(args, length) for length in args.length]
    report = {"command": command, "date": str(date.today()), "machine": machine_facts(args)}
    report |= {k: results[-1][k] for k in results[-1] if "ratio" in k or "fraction" in k}
    report |= {"dataset": args.dataset, "split": args.split, "results": results}
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        unfinished = args.json.with_suffix(".tmp")
        unfinished.write_text(json.dumps(report, indent=1) + "\n")
        unfinished.rename(args.json)
    kind = "" if args.device == "cpu" else f"-{args.device}"
    name = f"din-{args.dataset}-{args.split}{kind}{'' if args.rounds else '-auc'}"
    write_table(report, HERE / "results" / f"{name}.md", HERE / "results" / f"{name}.png")


if __name__ == "__main__":
    main()
