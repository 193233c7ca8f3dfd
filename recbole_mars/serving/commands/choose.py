"""Make a snapshot the current one, or list those that are there."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `choose` can be told."""
    parser.add_argument("name", nargs="?", help="such as 00000007; without it all are listed")
    parser.add_argument("--snapshots", required=True, type=Path, help="folder of the snapshots")


def run(args: argparse.Namespace) -> None:
    """Point the services to a version; end a trainer before: it would publish its own anew."""
    from recbole_mars.serving.folders import MANIFEST, DamagedFolder
    from recbole_mars.serving.snapshots import NoSnapshot, Snapshots
    from recbole_mars.serving.training.publishing import training_of

    snapshots = Snapshots(args.snapshots)
    if args.name is not None:
        snapshots.choose(args.name)
    current = None
    try:
        current = snapshots.current_name()
    except DamagedFolder as error:
        sys.stderr.write(f"{error}\n")
    for name in snapshots.names():
        mark = "*" if name == current else " "
        try:
            notes = snapshots.at(name, verify=False).notes
        except NoSnapshot:  # removed since
            continue
        except (FileNotFoundError, DamagedFolder) as error:
            sys.stdout.write(f"{mark} {name}  damaged: {error}\n")
            continue
        written = (args.snapshots / name / MANIFEST).stat().st_mtime
        when = datetime.fromtimestamp(written, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        step = training_of(notes).get("step")
        told = f"{notes.get('users')} users, {notes.get('donors')} donors"
        told += "" if step is None else f", step {step} of streaming training"
        sys.stdout.write(f"{mark} {name}  {when}  {told}\n")
