"""python -m recbole_mars.experiments: run an experiment, report on its results."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from recbole_mars.experiments.plan import in_no_group, parse_only, planned_runs
from recbole_mars.experiments.runner import Runner
from recbole_mars.experiments.spec import load_experiment

__all__ = ["main"]

_DESCRIPTION = """\
    python -m recbole_mars.experiments run properties/experiment/quick.yaml
    python -m recbole_mars.experiments report results/quick

Stopped at any moment, the same command goes on; what is recorded is not run again.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 1 if a run failed, 2 for what cannot be run."""
    given = _parser().parse_args(arguments)
    # RecBole takes every --key=value of the command line for a setting; ours are none.
    sys.argv = sys.argv[:1]
    # RecBole's use of pandas and torch is fine with the versions that we allow.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    try:
        return _report(given) if given.command == "report" else _run(given)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads what is printed has gone, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        return 1
    except OSError as error:
        told = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {told}; the results folder has to be a writable one", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m recbole_mars.experiments",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make all runs that are not recorded yet")
    run.add_argument("spec", type=Path, help="YAML file of the experiment")
    run.add_argument("--data_path", help="folder of the data sets (RecBole's: dataset/)")
    run.add_argument("--output", type=Path, help="results folder (results/<name>)")
    run.add_argument("--only", help="a part of it, as dataset=ml-1m,method=MARS,group=table-2")
    run.add_argument("--dry_run", action="store_true", help="say what is to be done")
    run.add_argument("--threads", type=int, help="threads of torch (its own choice)")
    report = commands.add_parser("report", help="tables, figures and a page of the results")
    report.add_argument("folder", type=Path, help="results folder")
    return parser


def _run(given: argparse.Namespace) -> int:
    experiment = load_experiment(given.spec)
    runs = planned_runs(experiment, parse_only(given.only, experiment))
    if given.threads is not None:
        if given.threads < 1:
            raise ValueError(f"--threads must be >= 1, got {given.threads}")
        torch.set_num_threads(given.threads)
    runner = Runner(
        experiment,
        given.output or Path("results") / experiment.name,
        data_path=None if given.data_path is None else str(Path(given.data_path).resolve()),
        tell=lambda line: print(line, flush=True),
        show={"show_progress": sys.stdout.isatty()},
    )
    forgotten = in_no_group(experiment)
    if forgotten:
        print(f"in no group, not run: {', '.join(forgotten)}")
    if given.dry_run:
        lines = runner.describe(runs)
        print("\n".join(lines))
        print(f"{sum(not line.endswith(': recorded') for line in lines)} of {len(lines)} to do")
        return 0
    failed = runner.run(runs)
    for failure in failed:
        print(f"failed: {failure.title}", file=sys.stderr)
    return 1 if failed else 0


def _report(given: argparse.Namespace) -> int:
    # Imported here: drawing takes a second to load, which a run does not need.
    from recbole_mars.experiments.paper_report import write_paper_report

    print(write_paper_report(given.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
