"""The queue for several machines: a Redis stream with consumer groups."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from recbole_mars.serving.events.base import (
    EventQueue,
    EventsLost,
    ForeignOffset,
    QueueError,
    checked_limit,
    checked_name,
)
from recbole_mars.serving.events.event import Event
from recbole_mars.serving.optional import import_optional
from recbole_mars.serving.redis_connection import RedisAddress, RedisConnection

__all__ = ["RedisStream"]

_log = logging.getLogger(__name__)
_FIELD = b"event"
_POLL_SECONDS = 0.1
_DIGITS = 20

_ID = tuple[int, int]  # milliseconds and number of an entry
_NOTHING: _ID = (0, 0)  # before the first entry


class RedisStream(EventQueue):
    """One stream of a Redis server or cluster; the field `event` of an entry holds its JSON.

    Redis keeps what a consumer of the group was given until it is committed. Offsets are IDs of
    the stream, padded; reading behind an offset gives first what the group was given before (by a
    consumer that crashed, or by this one before it fell back to older weights), then what is new.
    Order holds over consumers: while another one of the group is alive and has entries that it has
    not committed, this one gets none behind them. Those of one that has been silent for
    `takeover_seconds` it claims.

    How much survives a power cut is the server's setting (appendonly, appendfsync).
    """

    def __init__(
        self,
        address: str,
        *,
        group: str = "training",
        consumer: str = "one",
        takeover_seconds: float = 300.0,
    ) -> None:
        """address: as `RedisAddress.parse` reads it, with the options `stream` and `max_length`.

        stream: the stream's key, `events` by default. max_length: about how many entries the
        stream keeps at least; by default all. consumer: the same name after a restart, so that it
        need not wait for itself. takeover_seconds: longer than a consumer works without reading.
        """
        super().__init__()
        parsed = RedisAddress.parse(address, {"stream", "max_length"})
        options = dict(parsed.options)
        self.stream = options.get("stream", "events")
        self._max_length = _positive("max_length", options.get("max_length"))
        self._group = checked_name("group", group)
        self._consumer = checked_name("consumer", consumer)
        self._takeover = int(takeover_seconds * 1000)
        self._is_cluster = parsed.is_cluster
        self._block = parsed.timeout / 2  # seconds; an answer must come before the timeout
        self._place = f"the stream {self.stream!r} of Redis at {parsed}"
        self._refused = import_optional("redis").ResponseError
        # An append that is sent twice would be there twice.
        self._redis = RedisConnection(parsed, QueueError, retries=0)

    def append(self, events: Iterable[Event]) -> str:
        payloads = [event.to_json() for event in events]
        if not payloads:
            raise ValueError("events must hold one at least, got none")
        # In a cluster all entries go to one node, but not every redis-py has transactions there.
        with self._redis.client() as client:
            batch = client.pipeline(transaction=not self._is_cluster)
            for payload in payloads:
                batch.xadd(self.stream, {_FIELD: payload}, maxlen=self._max_length)
            return _offset(_numbers(batch.execute()[-1]))

    def read(
        self, after: str | None, limit: int, wait_seconds: float = 0
    ) -> list[tuple[str, Event]]:
        checked_limit(limit)
        position = _NOTHING if after is None else _position(after)
        deadline = time.monotonic() + wait_seconds
        found: list[tuple[str, Event]] = []
        while True:
            wait = 0.0 if found else max(deadline - time.monotonic(), 0.0)
            with self._redis.client() as client:
                entries = self._entries(client, position, limit - len(found), wait)
            for position, fields in entries:
                offset = _offset(position)
                place = f"entry {_text(position)} of {self._place}"
                event = self._event(offset, (fields or {}).get(_FIELD), place)
                if event is not None:
                    found.append((offset, event))
            if len(found) == limit or (not entries and (found or not wait)):
                return found

    def commit(self, offset: str) -> None:
        last = _text(_position(offset))
        with self._redis.client() as client:
            # Whoever was given them: the group is one consumer.
            for ids in self._pending(client, "-", last):
                client.xack(self.stream, self._group, *ids)

    def ping(self) -> None:
        with self._redis.client() as client:
            client.ping()

    def close(self) -> None:
        self._redis.close()

    def _entries(self, client: Any, after: _ID, limit: int, wait: float) -> list[tuple[_ID, Any]]:
        """The next entries behind `after`; waits for new ones, `wait` seconds at most."""
        given = self._last_given(client)
        held = self._first_held(client, after)
        found = []
        if given > after:  # empty where all of it has been removed
            found = client.xrange(self.stream, f"({_text(after)}", _text(given), count=limit)
        if found:
            # Its own oldest, to show the others that this consumer is alive
            client.xreadgroup(self._group, self._consumer, {self.stream: "0"}, count=1)
        elif held is None:
            if given < after:
                self._pass_over(client, after)
            block = int(min(wait, self._block) * 1000)
            answer = client.xreadgroup(
                self._group, self._consumer, {self.stream: ">"}, count=limit, block=block or None
            )
            found = answer[0][1] if answer else []
            if found:  # another consumer may have been given what is before them
                held = self._first_held(client, after)
        entries = [(_numbers(entry_id), fields) for entry_id, fields in found]
        if entries and after != _NOTHING:
            self._check_reach(client, after)
        if held is not None:
            entries = [entry for entry in entries if entry[0] < held]
            if not entries:
                time.sleep(min(_POLL_SECONDS, wait))
        return entries

    def _last_given(self, client: Any) -> _ID:
        """The last entry that the group was given; makes the group, at the stream's begin."""
        while True:
            try:
                groups = client.xinfo_groups(self.stream)
            except self._refused as error:
                if "no such key" not in str(error):
                    raise
                groups = []
            for group in groups:
                if group["name"] == self._group.encode():
                    return _numbers(group["last-delivered-id"])
            try:
                client.xgroup_create(self.stream, self._group, id="0", mkstream=True)
            except self._refused as error:
                if "BUSYGROUP" not in str(error):  # else another process was faster
                    raise

    def _first_held(self, client: Any, after: _ID) -> _ID | None:
        """The first entry behind `after` that another living consumer has yet to commit.

        What consumers that are dead by now had, this one claims. (XAUTOCLAIM would also take the
        entries of one that reads on and commits seldom.)
        """
        held = []
        for other in client.xinfo_consumers(self.stream, self._group):
            name = other["name"]
            if name == self._consumer.encode() or not other["pending"]:
                continue
            if other["idle"] >= self._takeover:
                for ids in self._pending(client, "-", "+", name):
                    client.xclaim(
                        self.stream, self._group, self._consumer, self._takeover, ids, justid=True
                    )
                    _log.warning("Claimed %d entries of silent consumer %r", len(ids), name)
            elif first := next(self._pending(client, f"({_text(after)}", "+", name, 1), None):
                held.append(_numbers(first[0]))
        return min(held, default=None)

    def _pending(
        self, client: Any, first: str, last: str, consumer: bytes | None = None, count: int = 1000
    ) -> Iterator[list[bytes]]:
        """The IDs that the group, or one consumer of it, was given and has not committed."""
        while True:
            try:
                page = client.xpending_range(
                    self.stream, self._group, first, last, count, consumername=consumer
                )
            except self._refused as error:
                if "NOGROUP" not in str(error):
                    raise
                return
            if not page:
                return
            yield [entry["message_id"] for entry in page]
            first = f"({page[-1]['message_id'].decode()}"

    def _pass_over(self, client: Any, after: _ID) -> None:
        """Let a group that was made anew begin behind what has been put into effect."""
        last = _numbers(client.xinfo_stream(self.stream)["last-generated-id"])
        if last < after:
            raise EventsLost(
                f"{self._place} ends at {_text(last)}, before the offset {_text(after)}: "
                f"it is another one or has lost its end"
            )
        client.xgroup_setid(self.stream, self._group, _text(after))

    def _check_reach(self, client: Any, after: _ID) -> None:
        first = _numbers(client.xrange(self.stream, count=1)[0][0])
        if first > after:
            raise EventsLost(
                f"{self._place} begins at {_text(first)}, behind the offset {_text(after)}: what "
                f"was between them may have been removed unread; use a larger max_length"
            )


def _numbers(entry_id: bytes) -> _ID:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


def _text(position: _ID) -> str:
    return f"{position[0]}-{position[1]}"


def _offset(position: _ID) -> str:
    """An ID with both numbers padded, so that the order of strings is theirs."""
    return f"{position[0]:0{_DIGITS}d}-{position[1]:0{_DIGITS}d}"


def _position(offset: str) -> _ID:
    if not re.fullmatch(rf"[0-9]{{{_DIGITS}}}-[0-9]{{{_DIGITS}}}", offset):
        raise ForeignOffset(
            f"an offset of a stream must be two numbers of {_DIGITS} digits, got {offset!r}, "
            f"of another queue"
        )
    return _numbers(offset.encode())


def _positive(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{name} must be a whole number >= 1, got {text!r}")
    return int(text)
