"""What each CTR model costs beside DIN: training, predictions and requests on the same batches.

    python benchmarks/ctr_models.py --data_path DIR

ml-1m with its ready text and image features, leave-one-out, batches of 1,024 with histories
as they come; a request is one user with 100 candidates, as a service meets it. In a round every
model takes the same batches in turn; ratios are within rounds. Times are of the processor, on one
thread, so that what else runs on the machine matters less.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from argparse import Namespace
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from against_recbole_table import machine_facts
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed

from recbole_mars.plugin.config import CTR_MODELS

NAMES = {"MARS": "DIN"}
STEPS = 4
REQUESTS, CANDIDATES = 8, 100
KINDS = {"training, samples/s": 1024, "prediction, samples/s": 1024, "a request, ms": None}


def prepare(name: str, length: int, data_path: str) -> tuple[Any, list[Any]]:
    features = str(Path(data_path) / "ml-1m" / "features")
    config = Config(
        name,
        "ml-1m",
        config_dict={
            **{"data_path": data_path, "augmentation": "none", "history_labels": True},
            **{"text_features": features, "image_features": features, "keep_prepared": True},
            **{"MAX_ITEM_LIST_LENGTH": length, "train_batch_size": 1024, "seed": 2020},
            **{"state": "ERROR", "show_progress": False},
        },
    )
    init_seed(config["seed"], True)
    train, *_ = data_preparation(config, create_dataset(config))
    return get_model(name)(config, train._dataset), list(islice(train, STEPS))


def requests(batch: Any, item_field: str) -> list[Any]:
    """Some users of a batch, each with the same items of others as candidates."""
    found = []
    for place in range(REQUESTS):
        request = batch[torch.full((CANDIDATES,), place)]
        request[item_field] = batch[item_field][:CANDIDATES]
        found.append(request)
    return found


def measure(model: Any, batches: list[Any]) -> tuple[float, ...]:
    """Seconds of the processor for a training step and a prediction of one batch, and a request."""
    optimizer = torch.optim.AdamW(model.parameters())
    model.train()
    begin = time.process_time()
    for batch in batches:
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()
    between = time.process_time()
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            model.predict(batch)
        end = time.process_time()
        for request in requests(batches[0], model.ITEM_ID):
            model.predict(request)
    answered = time.process_time()
    of_batches = [(between - begin) / len(batches), (end - between) / len(batches)]
    return (*of_batches, (answered - end) / REQUESTS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", required=True)
    parser.add_argument("--length", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--models", nargs="+", default=list(CTR_MODELS))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    given = [a.replace(args.data_path, "DIR") for a in sys.argv[1:]]
    sys.argv = sys.argv[:1]  # where RecBole looks for settings
    torch.set_num_threads(1)
    lines = ["# What CTR models cost beside DIN", ""]
    for length in args.length:
        prepared = {name: prepare(name, length, args.data_path) for name in args.models}
        batches = prepared[args.models[0]][1]
        seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in args.models}
        for turn in range(args.rounds + 1):
            for name, (model, _) in prepared.items():
                taken = measure(model, batches)
                if turn:
                    seconds[name].append(taken)
                print(f"length {length}, round {turn}, {name}: {taken}", file=sys.stderr)
        behaviours = statistics.mean(
            float(batch[prepared[args.models[0]][0].ITEM_SEQ_LEN].float().mean())
            for batch in batches
        )
        lines += [f"Histories of at most {length} ({behaviours:.0f} in the mean):", ""]
        lines += ["| | " + " | ".join(f"{kind} | times DIN's" for kind in KINDS) + " |"]
        lines += ["| --- |" + " --- | --- |" * len(KINDS)]
        base = seconds[args.models[0]]
        for name, taken in seconds.items():
            cells = [NAMES.get(name, name)]
            for kind, samples in enumerate(KINDS.values()):
                ratios = [mine[kind] / din[kind] for mine, din in zip(taken, base)]
                median = statistics.median(one[kind] for one in taken)
                shown = f"{samples / median:,.0f}" if samples else f"{1000 * median:.1f}"
                spread = f"[{min(ratios):.1f}, {max(ratios):.1f}]"
                cells += [shown, f"{statistics.median(ratios):.1f} {spread}"]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    facts = machine_facts(Namespace(device="cpu", threads=1))
    lines += [
        f"```\npython benchmarks/ctr_models.py {' '.join(given)}\n```",
        "",
        f"{date.today()}, commit {facts['commit']}, {facts['processor']}, 1 thread, "
        f"torch {facts['torch']}; {args.rounds} rounds of {STEPS} batches of 1,024.",
    ]
    file = Path(__file__).parent / "results" / "ctr-models.md"
    file.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
