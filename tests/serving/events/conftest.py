"""Queues of each kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from recbole_mars.serving.events import EventQueue, LocalLog, RedisStream
from recbole_mars.serving.events.records import frame


class Queues:
    """One queue, opened as often as a test likes."""

    def __init__(self, open_: Callable[..., EventQueue], put_raw: Callable[[bytes], None]) -> None:
        self.open = open_
        self.put_raw = put_raw


@pytest.fixture(params=["log", "redis", "cluster"])
def queues(request, tmp_path):
    if request.param == "log":
        folder = tmp_path / "log"

        def put_raw(payload: bytes) -> None:
            file = sorted(folder.glob("*.log"))[-1]
            file.write_bytes(file.read_bytes() + frame(payload, is_first=True))

        yield Queues(lambda **names: LocalLog(folder, segment_bytes=500, **names), put_raw)
        return
    if request.param == "redis":
        address = request.getfixturevalue("redis_server").address + "?stream=s"
    else:
        address = request.getfixturevalue("cluster_address") + "?stream=s"

    def put_raw(payload: bytes) -> None:
        with queue._redis.client() as client:
            client.xadd("s", {"event": payload})

    queue = RedisStream(address)
    yield Queues(lambda **names: RedisStream(address, **names), put_raw)
    queue.close()


@pytest.fixture
def queue(queues):
    with queues.open() as opened:
        yield opened
