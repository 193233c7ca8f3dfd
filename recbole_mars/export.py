"""A trained model as a folder that serving reads: `python -m recbole_mars.export`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recbole_mars.plugin.export import export_checkpoint

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Export a checkpoint from the command line."""
    parser = argparse.ArgumentParser(
        "python -m recbole_mars.export",
        description="Write a RecBole checkpoint as a model folder without pickles, for "
        "python -m recbole_mars.serving. A checkpoint is a pickle: take only your own.",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="of a model of ours, such as saved/MARS-*.pth"
    )
    parser.add_argument("folder", type=Path, help="to write; must not be there")
    args = parser.parse_args(arguments)
    try:
        written = export_checkpoint(args.checkpoint, args.folder)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stdout.write(f"written to {written}\n")


if __name__ == "__main__":
    main()
