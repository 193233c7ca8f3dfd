"""DIN and MARS on ml-100k with real posters, over several seeds; writes a Markdown table.

    python benchmarks/ml_100k.py --data_path ../shared/data

--data_path holds ml-100k/ with atomic files whose .item has plots, and features/ids.csv, which
names each film's poster. Runs that are recorded under --output are not run again.
"""

import argparse
import platform
import subprocess
import sys
import warnings
from datetime import date
from pathlib import Path

import torch

import recbole_mars
from recbole_mars.experiments import compare, summarise_seeds

SPLITS = {
    "leave-one-out": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "labeled"},
    "temporal": {
        "split": {"RS": [8, 1, 1]},
        "order": "TO",
        "group_by": None,
        "mode": "labeled",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS, default="leave-one-out")
    parser.add_argument("--seeds", type=int, default=5, help="2020, 2021, ... (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-ml-100k"))
    args, others = parser.parse_known_args()
    given = sys.argv[1:]
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    sys.argv = [sys.argv[0], *others]  # the rest is for RecBole

    folder = args.data_path.resolve() / "ml-100k"
    output = args.output / args.split
    command = " ".join(["python benchmarks/ml_100k.py", *given])
    settings = {
        "data_path": str(folder.parent),
        "text_fields": ["movie_title", "release_year", "class", "director", "actors", "plot"],
        "image_dir": str(folder),
        "image_list": str(folder / "features" / "ids.csv"),
        "eval_args": SPLITS[args.split],
        "checkpoint_dir": str(output / "artifacts"),
        "state": "WARNING",
    }
    seeds = range(2020, 2020 + args.seeds)
    records = compare(
        "ml-100k", settings, output, seeds=seeds, command=command, version=recbole_mars.__version__
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    table = Path(__file__).parent / "results" / f"ml-100k-{args.split}.md"
    table.parent.mkdir(exist_ok=True)
    seconds = {name: [r.seconds for r in records if r.name == name] for name in ("DIN", "MARS")}
    table.write_text(
        f"# ml-100k, real posters, {args.split}: DIN and MARS\n\n"
        f"{summarise_seeds(records)}\n\n"
        f"Seeds {seeds[0]} to {seeds[-1]}; mean ± standard deviation; the difference with the 95 % "
        "interval of a paired t test over seeds. Test rows: "
        f"{len(records[0].test.labels)}, of low-active users "
        f"{int(records[0].test.rows('low').sum())}. "
        + ", ".join(f"{name} {sum(s) / len(s):.0f} s" for name, s in seconds.items())
        + " a run on average (MARS with stage 1).\n\n"
        f"```\n{command}\n```\n\n"
        f"Commit {commit}, {date.today()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}.\n"
    )
    print(f"Table: {table}")


if __name__ == "__main__":
    main()
