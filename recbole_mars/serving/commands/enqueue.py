"""Put the interactions of a file into a queue."""

from __future__ import annotations

import argparse
import codecs
import csv
import sys
from collections.abc import Iterator
from io import FileIO, RawIOBase
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recbole_mars.serving.events import Event

__all__ = ["add_arguments", "run"]

_BATCH = 10_000
_PIECE = 1 << 16
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
    """Append all events in the order of the file, some thousand at a time.

    A file is read through first, so that of one with a bad line nothing is appended; what comes on
    stdin is appended as it comes.
    """
    from recbole_mars.serving.events import open_queue

    if str(args.file) == "-":
        batches = _of_stream(FileIO(sys.stdin.fileno(), closefd=False))
    else:
        if args.file.exists() and not args.file.is_file():
            raise ValueError(
                f"{args.file} must be a file, which is read twice; give JSON lines of a pipe as -"
            )
        for _ in _of_file(args):
            pass
        events = _of_file(args)
        batches = iter(lambda: list(islice(events, _BATCH)), [])
    count = 0
    with open_queue(args.events, group="enqueue") as queue:
        try:
            for batch in batches:
                queue.append(batch)
                count += len(batch)
        except ValueError as error:
            raise ValueError(f"{error}; the {count} events before it are in the queue") from None
    sys.stdout.write(f"{count} events\n")


def _of_file(args: argparse.Namespace) -> Iterator[Event]:
    if args.file.suffix == ".inter":
        return _of_table(args)
    return _of_lines(args.file)


def _of_lines(file: Path) -> Iterator[Event]:
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            yield from _of_line(str(file), number, line)


def _of_stream(stream: RawIOBase) -> Iterator[list[Event]]:
    """The events of the lines that have come, as soon as they have."""
    rest, number = b"", 0
    while True:
        piece = stream.read(_PIECE)
        *lines, rest = (rest + piece).split(b"\n") if piece else (rest, b"")
        events: list[Event] = []
        for line in lines:
            number += 1
            try:
                events += _of_line("stdin", number, line)
            except ValueError:
                if events:
                    yield events
                raise
        if events:
            yield events
        if not piece:
            return


def _of_line(name: str, number: int, line: bytes) -> Iterator[Event]:
    """The event of a line; none of an empty one."""
    from recbole_mars.serving.events import Event

    line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    if line.strip():
        try:
            yield Event.from_json(line)
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}") from None


def _of_table(args: argparse.Namespace) -> Iterator[Event]:
    from recbole_mars.serving.events import Event

    # What is no UTF-8 becomes half surrogate pairs, which an event refuses.
    with open(args.file, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
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
