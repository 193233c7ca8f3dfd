"""What smaller features in memory cost a model (DMAE, §5.6): the same weights, given each.

    python benchmarks/feature_storage.py --data_path DIR --seeds 5

DMAE and DIMO on ml-100k, leave-one-out, with DIR/ml-100k/features, trained on float32; then the
test set is scored with feature_storage float16 and int8, too. Recorded runs are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import torch
from against_recbole_table import machine_facts
from recbole import quick_start

import recbole_mars  # noqa: F401
from recbole_mars.ctr import STORAGES
from recbole_mars.ctr.frozen_rows import FrozenRows
from recbole_mars.evaluation import auc, paired_t_test

RESULTS = Path(__file__).parent / "results"
MODELS = ("DMAE", "DIMO")


def measured(model: str, data_path: Path, output: Path, seed: int) -> dict[str, list[float]]:
    """Test AUC and bytes of the features, by storage."""
    features = str(data_path / "ml-100k" / "features")
    checkpoints = output / f"{model}-{seed}"
    keys = {
        **{"data_path": str(data_path), "text_features": features, "image_features": features},
        **{"history_labels": True, "MAX_ITEM_LIST_LENGTH": 50, "seed": seed},
        **{"checkpoint_dir": str(checkpoints), "state": "WARNING", "show_progress": False},
    }
    quick_start.run_recbole(model=model, dataset="ml-100k", config_dict=keys)
    (file,) = checkpoints.glob(f"{model}-*.pth")
    config, trained, dataset, _, _, test = quick_start.load_data_and_model(str(file))
    found = {}
    for storage in STORAGES:
        config["feature_storage"] = storage
        twin = type(trained)(config, dataset).eval()
        twin.load_state_dict(trained.state_dict())
        rows = [m for m in twin.modules() if isinstance(m, FrozenRows)]
        with torch.inference_mode():
            scores = [twin.predict(batch).numpy() for batch, *_ in test]
        labels = [batch[config["LABEL_FIELD"]].numpy() for batch, *_ in test]
        score = float(auc(np.concatenate(labels), np.concatenate(scores)))
        found[storage] = [score, sum(m.nbytes for m in rows)]
    return found


def lines_of(model: str, runs: list[dict[str, list[float]]]) -> list[str]:
    """Rows of the table: bytes and AUC by storage, with the difference to float32."""
    exact, lines = runs[0]["float32"][1], []
    for storage in STORAGES:
        before, after = ([run[kind][0] for run in runs] for kind in ("float32", storage))
        tested = paired_t_test(before, after)
        size = runs[0][storage][1]
        line = (
            f"| {model} | {storage} | {size:,} | {1 - size / exact:.1%} | {np.mean(after):.5f} | "
        )
        if storage != "float32":
            line += f"{tested.difference:+.5f} [{tested.low:+.5f}, {tested.high:+.5f}], "
            line += f"p = {tested.p_value:.2f} "
        lines.append(line + "|")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5, help="2020, 2021, ... (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/feature-storage"))
    args = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads it, too
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    lines = ["# Smaller features in memory: the same weights on ml-100k, leave-one-out", ""]
    lines += ["| model | feature_storage | bytes | saved | test AUC | difference to float32 |"]
    lines += ["| --- " * 6 + "|"]
    for model in MODELS:
        runs = []
        for seed in range(2020, 2020 + args.seeds):
            record = args.output / f"{model}-{seed}.json"
            if not record.is_file():
                result = measured(model, args.data_path.resolve(), args.output.resolve(), seed)
                record.write_text(json.dumps(result))
            runs.append(json.loads(record.read_text()))
            print(model, seed, runs[-1], flush=True)
        lines += lines_of(model, runs)
    facts = machine_facts(argparse.Namespace(device="cpu", threads=torch.get_num_threads()))
    lines += [
        "",
        f"Seeds 2020 to {2019 + args.seeds}, paired t tests; one scale an item is counted.",
        "",
        "```\nOMP_NUM_THREADS=1 python benchmarks/feature_storage.py --data_path DIR "
        f"--seeds {args.seeds}\n```",
        "",
        f"Commit {facts['commit']}, {date.today()}, torch {facts['torch']}.",
    ]
    table = RESULTS / "feature-storage-ml-100k.md"
    table.write_text("\n".join(lines) + "\n")
    print(f"Table: {table}")


if __name__ == "__main__":
    main()
