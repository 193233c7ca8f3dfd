"""The segment files of a log, named by the position in the log at which each begins."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from recbole_mars.serving.events.base import EventsLost, ForeignOffset, QueueError
from recbole_mars.serving.events.records import append_follows, records

__all__ = ["offset_at", "position_of", "read_from", "segment_bases", "segment_file"]

_DIGITS = 20


def offset_at(position: int) -> str:
    """The offset of the record that ends at a position of the log."""
    return f"{position:0{_DIGITS}d}"


def position_of(offset: str) -> int:
    """Where in the log the record of an offset ends; raises ForeignOffset for other text."""
    if not re.fullmatch(rf"[0-9]{{{_DIGITS}}}", offset):
        raise ForeignOffset(
            f"an offset of a log must have {_DIGITS} digits, got {offset!r}, of another queue"
        )
    return int(offset)


def segment_file(folder: Path, base: int) -> Path:
    return folder / f"{base:0{_DIGITS}d}.log"


def segment_bases(folder: Path) -> list[int]:
    """Where the segments begin, in order."""
    names = (entry for entry in os.listdir(folder) if entry.endswith(".log"))
    return sorted(int(name[:-4]) for name in names if re.fullmatch(r"[0-9]{20}\.log", name))


def read_from(folder: Path, after: int | None) -> Iterator[tuple[int, bytes, Path]]:
    """Where each whole record behind position `after` ends, its payload and its file.

    It ends before a last record that is not whole, which may still be being written. What it gives
    is on the disk, so a power cut cannot take it from the log once a reader has it.

    Raises EventsLost where the log does not reach back or up to `after`, QueueError for damage.
    """
    bases = segment_bases(folder)
    if not bases:
        if after:
            raise EventsLost(f"{folder} is empty, got the offset {offset_at(after)} to read behind")
        return
    position = bases[0] if after is None else after
    if position < bases[0]:
        raise EventsLost(
            f"{folder} begins at {offset_at(bases[0])}, behind the offset {offset_at(position)}: "
            f"what was between them has been removed"
        )
    number = bisect_right(bases, position) - 1
    for base, next_base in zip_longest(bases[number:], bases[number + 1 :]):
        file = segment_file(folder, base)
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except FileNotFoundError:  # pruned since the listing
            yield from read_from(folder, after)
            return
        try:
            for end, payload in _read_segment(file, descriptor, base, position, next_base):
                yield end, payload, file
                after = position = end
        finally:
            os.close(descriptor)


def _read_segment(
    file: Path, descriptor: int, base: int, position: int, next_base: int | None
) -> Iterator[tuple[int, bytes]]:
    """The records of a segment behind `position`; next_base: where the one behind it begins."""
    size = os.fstat(descriptor).st_size
    if position > base + size:
        raise EventsLost(
            f"{file} ends at {offset_at(base + size)}, before the offset "
            f"{offset_at(position)}: it is of another log or has lost its end"
        )
    on_disk = size if next_base is not None else 0
    looked_again = False
    while True:
        for end, payload in records(descriptor, position - base):
            if end > on_disk:
                on_disk = os.fstat(descriptor).st_size
                os.fsync(descriptor)
            position = base + end
            yield position, payload
            looked_again = False
        if position == next_base:
            return
        if next_base is None and not append_follows(descriptor, position - base):
            return
        if looked_again:
            raise QueueError(
                f"{file} is damaged at byte {position - base}, offset "
                f"{offset_at(position)}: no whole record stands there, though more follows; begin "
                f"a new log with what is to be saved of it, and read that with --accept-loss"
            )
        looked_again = True  # it may have been written between the first look and the second
