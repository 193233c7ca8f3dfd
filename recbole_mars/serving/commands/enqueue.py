"""Put the interactions of a file into a queue."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recbole_mars.serving.events import Event

__all__ = ["add_arguments", "run"]

_BATCH = 10_000
_COLUMNS = {"user": "user_id", "item": "item_id", "value": "rating", "time": "timestamp"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `enqueue` can be told."""
    parser.add_argument(
        "file", type=Path, help="JSON lines, or a RecBole .inter file; - for JSON lines on stdin"
    )
    parser.add_argument(
        "--events",
        required=True,
        metavar="ADDRESS",
        help="the queue: a folder, or redis://HOST:PORT/DATABASE?stream=NAME",
    )
    columns = parser.add_argument_group("columns of a .inter file")
    for name, column in _COLUMNS.items():
        columns.add_argument(f"--{name}", default=column, help="%(default)s")


def run(args: argparse.Namespace) -> None:
    """Append all events in the order of the file, some thousand at a time."""
    from recbole_mars.serving.events import open_queue

    events = _of_table(args) if args.file.suffix == ".inter" else _of_lines(args.file)
    count = 0
    with open_queue(args.events, group="enqueue") as queue:
        while batch := list(islice(events, _BATCH)):
            queue.append(batch)
            count += len(batch)
    sys.stdout.write(f"{count} events\n")


def _of_lines(file: Path) -> Iterator[Event]:
    from recbole_mars.serving.events import Event

    with sys.stdin.buffer if str(file) == "-" else open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield Event.from_json(line)
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: {error}") from None


def _of_table(args: argparse.Namespace) -> Iterator[Event]:
    from recbole_mars.serving.events import Event

    with open(args.file, encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = [column.split(":")[0] for column in next(rows, [])]
        wanted = [getattr(args, name) for name in _COLUMNS]
        missing = [column for column in wanted if column not in header]
        if missing:
            raise ValueError(f"{args.file} must have the column {missing[0]}, has {header}")
        places = [header.index(column) for column in wanted]
        for number, row in enumerate(rows, 2):
            try:
                user, item, value, time = (row[place] for place in places)
                yield Event(user, item, float(value), float(time))
            except (ValueError, IndexError) as error:
                raise ValueError(f"{args.file}, line {number}: {error}") from None
