"""What int8 features cost a model of similarities (DMAE, §5.6): the same weights, given either.

    python benchmarks/int8_similarities.py --data_path DIR --seeds 5

DMAE on ml-100k, leave-one-out, with DIR/ml-100k/features in float16; then its features go through
int8 and back, and the test set is scored anew. Runs that are recorded are not run again.
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
from torch.nn.functional import normalize

import recbole_mars  # noqa: F401
from recbole_mars.ctr.similarities import ItemSimilarities
from recbole_mars.evaluation import auc, paired_t_test
from recbole_mars.features import dequantise, quantise

RESULTS = Path(__file__).parent / "results"


def both(data_path: Path, output: Path, seed: int) -> dict[str, float]:
    """Test AUC by float16 and by int8 features, and the bytes of either."""
    features = str(data_path / "ml-100k" / "features")
    checkpoints = output / str(seed)
    keys = {
        **{"data_path": str(data_path), "text_features": features, "image_features": features},
        **{"history_labels": True, "MAX_ITEM_LIST_LENGTH": 50, "seed": seed},
        **{"checkpoint_dir": str(checkpoints), "state": "WARNING", "show_progress": False},
    }
    quick_start.run_recbole(model="DMAE", dataset="ml-100k", config_dict=keys)
    (file,) = checkpoints.glob("DMAE-*.pth")
    config, model, _, _, _, test = quick_start.load_data_and_model(str(file))
    model.eval()

    @torch.inference_mode()
    def score() -> float:
        scores = [model.predict(batch).numpy() for batch, *_ in test]
        labels = [batch[config["LABEL_FIELD"]].numpy() for batch, *_ in test]
        return float(auc(np.concatenate(labels), np.concatenate(scores)))

    found, sizes = {"float16": score()}, {"float16 bytes": 0, "int8 bytes": 0}
    for module in model.modules():
        if isinstance(module, ItemSimilarities):
            vectors = module.vectors.half().numpy()
            small, scales = quantise(vectors)
            sizes["float16 bytes"] += vectors.nbytes
            sizes["int8 bytes"] += small.nbytes + scales.nbytes
            module.vectors = normalize(torch.from_numpy(dequantise(small, scales)).float(), dim=1)
            module.table = torch.empty(0)
    return {**found, "int8": score(), **sizes}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5, help="2020, 2021, ... (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/int8-similarities"))
    args = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads it, too
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    runs = []
    for seed in range(2020, 2020 + args.seeds):
        record = args.output / f"{seed}.json"
        if not record.is_file():
            result = both(args.data_path.resolve(), args.output.resolve(), seed)
            record.write_text(json.dumps(result))
        runs.append(json.loads(record.read_text()))
        print(seed, runs[-1], flush=True)
    before, after = ([run[kind] for run in runs] for kind in ("float16", "int8"))
    tested = paired_t_test(before, after)
    saved = 1 - runs[0]["int8 bytes"] / runs[0]["float16 bytes"]
    facts = machine_facts(argparse.Namespace(device="cpu", threads=torch.get_num_threads()))
    lines = ["# int8 features: DMAE on ml-100k, leave-one-out, the same weights", ""]
    lines += ["| features | bytes | test AUC |", "| --- | --- | --- |"]
    for kind, aucs in (("float16", before), ("int8", after)):
        lines.append(f"| {kind} | {runs[0][f'{kind} bytes']:,} | {np.mean(aucs):.5f} |")
    lines += [
        "",
        f"int8 - float16: {tested.difference:+.5f} [{tested.low:+.5f}, {tested.high:+.5f}], "
        f"p = {tested.p_value:.3f} (paired t-test over {args.seeds} seeds); {saved:.1%} of the "
        "bytes saved, one scale an item included.",
        "",
        f"```\npython benchmarks/int8_similarities.py --data_path DIR --seeds {args.seeds}\n```",
        "",
        f"Commit {facts['commit']}, {date.today()}, torch {facts['torch']}.",
    ]
    table = RESULTS / "int8-similarities-ml-100k.md"
    table.write_text("\n".join(lines) + "\n")
    print(f"Table: {table}")


if __name__ == "__main__":
    main()
