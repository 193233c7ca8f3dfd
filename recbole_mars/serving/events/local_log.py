"""The embedded queue: an append-only log in a folder, no server."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

from filelock import FileLock, Timeout

from recbole_mars.data.files import write_whole
from recbole_mars.serving.events.base import EventQueue, QueueError, checked_limit, checked_name
from recbole_mars.serving.events.event import Event
from recbole_mars.serving.events.records import append_follows, frame, records
from recbole_mars.serving.events.segments import (
    offset_at,
    position_of,
    read_from,
    segment_bases,
    segment_file,
)
from recbole_mars.serving.folders import foreign_name

__all__ = ["LocalLog"]

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.05
_LOCK_SECONDS = 30.0


class LocalLog(EventQueue):
    """Segment files in a folder of a local disk; one process at a time appends, any number read.

    An append is on the disk when it returns. A process that is killed in the middle of one leaves
    a torn record, which readers never see and which the next append cuts off; whole records before
    it stay. Damage elsewhere is an error that names file and place.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        segment_bytes: int = 64 << 20,
        group: str = "training",
    ) -> None:
        """Open the log in `folder`, which is made where it is missing.

        segment_bytes: from this size on, the next append begins a new file. group: under whose
        name `commit` keeps an offset.
        """
        super().__init__()
        if segment_bytes < 1:
            raise ValueError(f"segment_bytes must be >= 1, got {segment_bytes}")
        self.folder = Path(folder)
        self.segment_bytes = segment_bytes
        self._group = checked_name("group", group)
        self._committed = self.folder / "committed"
        with self._reporting("cannot be opened"):
            if foreign := foreign_name(self.folder, r"\d{20}\.log|committed"):
                raise QueueError(
                    f"the log {self.folder} cannot be made where {foreign} is; name an empty folder"
                )
            self._committed.mkdir(parents=True, exist_ok=True)
        self._thread_lock = threading.Lock()
        self._file_lock = FileLock(self.folder / ".append.lock")
        self._segment: tuple[int, int] | None = None  # base and descriptor of what we append to
        self._end = 0  # bytes of that segment that are whole and on the disk
        self._known = False  # to whoever prunes
        self._closed = False

    def append(self, events: Iterable[Event]) -> str:
        payloads = [event.to_json().encode("ascii") for event in events]
        if not payloads:
            raise ValueError("events must hold one at least, got none")
        frames = [frame(payload, is_first=not n) for n, payload in enumerate(payloads)]
        with self._reporting("cannot be appended to"), self._alone():
            base, descriptor = self._open_end()
            content = memoryview(b"".join(frames))
            written = 0
            try:
                while written < len(content):
                    written += os.pwrite(descriptor, content[written:], self._end + written)
            except OSError:
                self._keep_whole(descriptor, [len(piece) for piece in frames], written)
                raise
            self._sync(descriptor)
            self._end += written
            return offset_at(base + self._end)

    def read(
        self, after: str | None, limit: int, wait_seconds: float = 0
    ) -> list[tuple[str, Event]]:
        checked_limit(limit)
        position = None if after is None else position_of(after)
        self._make_known(after)
        deadline = time.monotonic() + wait_seconds
        while True:
            found = self._read_now(position, limit)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(_POLL_SECONDS, left))

    def commit(self, offset: str) -> None:
        position_of(offset)
        self._refuse_if_closed()
        with self._reporting("cannot keep an offset"), self._thread_lock:
            write_whole(self._committed / self._group, offset, durable=True)

    def prune(self, before: str | None = None) -> int:
        """Remove the segments that all groups have committed; returns how many.

        A group is known from its first read on; the last segment stays. before: segments that hold
        something behind this offset stay too.
        """
        taken = [] if before is None else [position_of(before)]
        with self._reporting("cannot be pruned"), self._alone():
            for file in self._committed.iterdir():
                if not file.name.startswith("."):
                    taken.append(position_of(file.read_text(encoding="ascii")))
            position = min(taken, default=0)
            bases = segment_bases(self.folder)
            old = [base for base, end in zip(bases, bases[1:]) if end <= position]
            for base in old:  # the oldest first: a crash leaves no gap
                segment_file(self.folder, base).unlink()
            return len(old)

    def ping(self) -> None:
        self._refuse_if_closed()
        with self._reporting("cannot be read"):
            segment_bases(self.folder)

    def close(self) -> None:
        with self._thread_lock:
            self._closed = True
            self._leave_segment()

    def _make_known(self, after: str | None) -> None:
        """From its first look on, prune keeps what the group has yet to commit."""
        if not self._known and not (self._committed / self._group).exists():
            self.commit(after or offset_at(0))
        self._known = True

    def _read_now(self, position: int | None, limit: int) -> list[tuple[str, Event]]:
        self._refuse_if_closed()
        found: list[tuple[str, Event]] = []
        with self._reporting("cannot be read"):
            for end, payload, file in read_from(self.folder, position):
                offset = offset_at(end)
                event = self._event(offset, payload, f"where a record of {file} ends")
                if event is not None:
                    found.append((offset, event))
                    if len(found) == limit:
                        break
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one, of all threads and processes, that changes the log."""
        with self._thread_lock:
            self._refuse_if_closed()
            try:
                self._file_lock.acquire(timeout=_LOCK_SECONDS)
            except Timeout as error:
                raise QueueError(
                    f"the log {self.folder} has been held by another process for "
                    f"{_LOCK_SECONDS:.0f} s; end it if it hangs"
                ) from error
            try:
                yield
            finally:
                self._file_lock.release()

    def _open_end(self) -> tuple[int, int]:
        """Base and descriptor of the segment to append to, with nothing torn at its end."""
        bases = segment_bases(self.folder)
        # A log that is begun anew lies behind all offsets of the one that was here before.
        base = bases[-1] if bases else self._make_segment(time.time_ns())
        base, descriptor = self._enter_segment(base)
        size = os.fstat(descriptor).st_size
        if size != self._end:  # another process has appended, or died while it did
            end = self._end
            for whole_end, _ in records(descriptor, self._end):
                end = whole_end
            if end < size:
                self._cut_torn(descriptor, base, end, size)
            self._sync(descriptor)
            self._end = end
        if self._end >= self.segment_bytes:
            base, descriptor = self._enter_segment(self._make_segment(base + self._end))
        return base, descriptor

    def _enter_segment(self, base: int) -> tuple[int, int]:
        if self._segment is None or self._segment[0] != base:
            self._leave_segment()
            descriptor = os.open(segment_file(self.folder, base), os.O_RDWR)
            self._segment = (base, descriptor)
            self._end = 0
        return self._segment

    def _leave_segment(self) -> None:
        if self._segment is not None:
            os.close(self._segment[1])
            self._segment = None

    def _make_segment(self, base: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        os.close(os.open(segment_file(self.folder, base), flags, 0o644))
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return base

    def _cut_torn(self, descriptor: int, base: int, end: int, size: int) -> None:
        file = segment_file(self.folder, base)
        if append_follows(descriptor, end):
            raise QueueError(
                f"{file} is damaged at byte {end}, offset {offset_at(base + end)}: no whole record "
                f"stands there, though more follows; begin a new log, and read this one up to there"
            )
        _log.warning("Cut %d bytes of an unfinished append at byte %d of %s", size - end, end, file)
        os.ftruncate(descriptor, end)

    def _keep_whole(self, descriptor: int, sizes: list[int], written: int) -> None:
        """After a failed write, cut the torn record only: a reader may have those before it."""
        whole = max((end for end in accumulate(sizes) if end <= written), default=0)
        os.ftruncate(descriptor, self._end + whole)
        self._sync(descriptor)
        self._end += whole

    def _sync(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError:
            self._leave_segment()  # what the disk has is uncertain: it is read anew
            raise

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise QueueError(f"the log {self.folder} is closed")

    @contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        try:
            yield
        except QueueError:
            raise
        except OSError as error:
            raise QueueError(f"the log {self.folder} {what}: {error}") from error
