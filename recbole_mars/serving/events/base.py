"""What every queue of interactions promises."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType
from typing import TypeVar

from recbole_mars.serving.events.event import Event

__all__ = [
    "EventQueue",
    "EventsLost",
    "ForeignOffset",
    "QueueError",
    "checked_limit",
    "checked_name",
]

_log = logging.getLogger(__name__)
_Queue = TypeVar("_Queue", bound="EventQueue")


class QueueError(OSError):
    """A queue cannot do what it is asked to: it is away, full, damaged or closed."""


class EventsLost(QueueError):
    """Events behind the offset that was asked for are no longer in the queue.

    Reading with `after=None` takes what is left.
    """


class ForeignOffset(EventsLost, ValueError):
    """An offset is none of this queue's: it is of another kind of queue, or no offset at all."""


class EventQueue(ABC):
    """Events in one order, each at an offset; producers append, groups of consumers read.

    Offsets are text of one width, so that the order of strings is theirs. A consumer keeps the
    offset of the last event that it has put into effect together with that effect, in one step,
    and after a crash reads behind it: so each event takes effect just once. (Producers that are
    unsure whether an append succeeded send it again: see Event for what is told twice.)

    A group is one consumer with its stand-ins: one process of it reads at a time. What is in the
    queue but is no event is skipped, counted in `malformed` and logged once with its offset, where
    it stays to be looked at until the queue is shortened.
    """

    def __init__(self) -> None:
        self.malformed = 0
        self._last_malformed = ""

    @abstractmethod
    def append(self, events: Iterable[Event]) -> str:
        """Add events at the end, in their order; returns the offset of the last.

        Raises ValueError for no events, QueueError where it is not certain that all were added:
        some may have been.
        """

    @abstractmethod
    def read(
        self, after: str | None, limit: int, wait_seconds: float = 0
    ) -> list[tuple[str, Event]]:
        """The next `limit` events behind offset `after`, in order, with their offsets; fewer where
        there are no more yet.

        after: None for all that the queue still has. wait_seconds: how long to wait for a first
        event where there is none. What was read before, and also what was committed, is read again
        where `after` asks for it. Raises EventsLost where some of it is gone or `after` is none of
        this queue's offsets, ValueError for a limit below 1.
        """

    @abstractmethod
    def commit(self, offset: str) -> None:
        """Tell the queue that this group has stored the effect of all events up to `offset`.

        Raises ForeignOffset for another queue's.
        """

    @abstractmethod
    def ping(self) -> None:
        """Raise QueueError unless the queue answers."""

    @abstractmethod
    def close(self) -> None:
        """Free what the queue holds; it cannot be used afterwards. Closing twice is allowed."""

    def __enter__(self: _Queue) -> _Queue:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _event(self, offset: str, payload: bytes | None, place: str) -> Event | None:
        """The event of a payload, None where it is none. place: where it can be looked at."""
        try:
            if payload is None:
                raise ValueError("an entry must have the field 'event'")
            return Event.from_json(payload)
        except ValueError as error:
            if offset > self._last_malformed:  # read again, it is the same one
                self._last_malformed = offset
                self.malformed += 1
                _log.warning("Skipped what is no event at offset %s, %s: %s", offset, place, error)
            return None


def checked_limit(limit: int) -> int:
    if limit < 1:
        raise ValueError(f"limit must be >= 1, got {limit}")
    return limit


def checked_name(what: str, name: str) -> str:
    """A name that a file or a consumer of Redis can have; raises ValueError for others."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", name):
        raise ValueError(
            f"{what} must have 1 to 100 letters, digits, '_', '-' or '.', the first no '.', "
            f"got {name!r}"
        )
    return name
