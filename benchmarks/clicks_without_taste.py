"""What a model of clicks scores where nobody has a taste: what is not taste in its AUC.

    python benchmarks/clicks_without_taste.py --data_path DIR --datasets amazon-beauty amazon-toys

Items are shuffled among each hundred clicks that follow one another in time: how often and when an
item is clicked stays nearly as it is, who clicks it is chance. Then a DIN, plain and with agreement
on clicks, is trained and tested as in properties/experiment/dmae-paper-clicks.yaml, but without a
search and without contents.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from against_recbole_table import machine_facts
from recbole import quick_start

import recbole_mars  # noqa: F401

RESULTS = Path(__file__).parent / "results"
BLOCK = 100  # clicks
SPLITS = {
    "leave-one-out": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "labeled"},
    "by time": {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": None, "mode": "labeled"},
}
MODELS = {"DIN": {}, "DIN, agreement": {"mars_agreement": True}}


def shuffled(file: Path, target: Path) -> None:
    """Write the interactions with items exchanged within blocks of time."""
    table = pd.read_csv(file, sep="\t", dtype=str)
    user, item, time = (next(c for c in table if c.startswith(x)) for x in ("user", "item", "time"))
    random = np.random.default_rng(0)
    times = table[time].astype(float)
    table = table.iloc[np.lexsort((random.random(len(table)), times))].reset_index(drop=True)
    block = np.arange(len(table)) // BLOCK
    order = np.lexsort((random.random(len(table)), block))
    table[item] = table[item].to_numpy()[order]
    table = table.drop_duplicates([user, item])
    target.parent.mkdir(parents=True)
    table.to_csv(target, sep="\t", index=False)


def score(name: str, data_path: Path, by: str, split: str, seed: int, **changes: object) -> float:
    """Test AUC of one run."""
    keys = {
        **{"data_path": str(data_path), "fixed_negatives": 1, "fixed_negatives_by": by},
        **{"threshold": None, "ties": "shuffled", "augmentation": "none", "history_labels": False},
        **{"train_neg_sample_args": None, "eval_args": SPLITS[split], "metrics": ["AUC"]},
        **{"learner": "adamw", "learning_rate": 0.003, "embedding_size": 16, "stopping_step": 2},
        **{"train_batch_size": 512, "eval_batch_size": 4096, "epochs": 20, "seed": seed},
        **{"mars_use_text": False, "mars_use_image": False, "valid_metric": "AUC"},
        **{"checkpoint_dir": str(data_path), "state": "ERROR", "show_progress": False},
        **{"load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]}, **changes},
    }
    found = quick_start.run_recbole(model="MARS", dataset=name, config_dict=keys, saved=False)
    return found["test_result"]["auc"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", default=["amazon-beauty", "amazon-toys"])
    parser.add_argument("--seeds", type=int, default=3, help="2020, 2021, ... (%(default)s)")
    args = parser.parse_args()
    command = " ".join(args.datasets) + f" --seeds {args.seeds}"
    sys.argv = sys.argv[:1]  # RecBole reads it, too
    warnings.filterwarnings("ignore", category=FutureWarning)
    lines = ["# Clicks without taste: test AUC, mean ± standard deviation over seeds", ""]
    lines += ["| data | split | negatives | " + " | ".join(MODELS) + " |"]
    lines += ["| --- " * (3 + len(MODELS)) + "|"]
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.datasets:
            (file,) = (args.data_path / name).glob(f"{name}.inter*")
            chance = f"{name}-chance"
            shuffled(file, Path(scratch) / chance / f"{chance}.inter")
            for split in SPLITS:
                for by in ("uniform", "moment"):
                    cells = []
                    for changes in MODELS.values():
                        runs = [
                            score(chance, Path(scratch), by, split, 2020 + seed, **changes)
                            for seed in range(args.seeds)
                        ]
                        cells.append(f"{np.mean(runs):.4f} ± {np.std(runs, ddof=1):.4f}")
                    lines.append(f"| {name} | {split} | {by} | " + " | ".join(cells) + " |")
                    print(lines[-1], flush=True)
    facts = machine_facts(argparse.Namespace(device="cpu", threads=torch.get_num_threads()))
    lines += [
        "",
        "```",
        "OMP_NUM_THREADS=1 python benchmarks/clicks_without_taste.py --data_path DIR "
        f"--datasets {command}",
        "```",
        "",
        f"Commit {facts['commit']}, {date.today()}, torch {facts['torch']}.",
    ]
    table = RESULTS / "clicks-without-taste.md"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"Table: {table}")


if __name__ == "__main__":
    main()
