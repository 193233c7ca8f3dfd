"""The main job: plain DIN and MARS on ml-100k, side by side, with a report to look at.

RecBole brings ml-100k's interactions but no posters; without image_dir, covers are drawn from
each film's title, year and genres.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from recbole_mars import __version__
from recbole_mars.experiments import compare
from recbole_mars.plugin.mistakes import is_a_mistake

__all__ = ["main"]

DATASET = "ml-100k"
_SMOKE = {"epochs": 1, "mars_align_epochs": 1, "mars_width": 32, "MAX_ITEM_LIST_LENGTH": 40}


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m recbole_mars.demo",
        description=__doc__,
        epilog="Every other --key=value goes to the configuration of both models.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", default="runs/demo", help="folder of the report (%(default)s)")
    parser.add_argument("--seeds", default="2020", help="seeds, separated by commas (%(default)s)")
    parser.add_argument("--smoke", action="store_true", help="tiny settings, to see that it runs")
    given = sys.argv[1:] if arguments is None else arguments
    args, others = parser.parse_known_args(given)
    wrong = [arg for arg in others if not arg.startswith("--") or arg.count("=") != 1]
    if wrong:
        parser.error(f"{wrong[0]!r} is not of the form --key=value")
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds must be whole numbers separated by commas, got {args.seeds!r}")
    # RecBole's use of pandas and torch is fine with the versions that we allow.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    sys.argv = [sys.argv[0], *others]  # where RecBole looks for its configuration

    begin = time.perf_counter()
    output = Path(args.output)
    settings: dict[str, Any] = {"checkpoint_dir": str(output / "artifacts"), "state": "WARNING"}
    if args.smoke:
        settings.update(_SMOKE)
    try:
        compare(
            DATASET,
            settings,
            output,
            seeds=seeds,
            command=shlex.join(["python", "-m", "recbole_mars.demo", *given]),
            version=__version__,
            keep_model=True,
        )
    except (OSError, ValueError) as error:
        if not is_a_mistake(error):
            raise
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"Finished in {(time.perf_counter() - begin) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
