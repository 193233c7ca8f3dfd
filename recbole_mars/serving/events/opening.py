"""From an address to a queue."""

from __future__ import annotations

from recbole_mars.serving.addresses import REDIS_SCHEMES, split_address
from recbole_mars.serving.events.base import EventQueue
from recbole_mars.serving.events.local_log import LocalLog
from recbole_mars.serving.events.redis_stream import RedisStream

__all__ = ["open_queue"]


def open_queue(address: str, *, group: str = "training", consumer: str = "one") -> EventQueue:
    """The queue at `log:FOLDER`, at a folder's plain path, or at a Redis address.

    `redis://HOST:PORT/DATABASE?stream=NAME&max_length=NUMBER`, with other schemes as for stores;
    see `RedisStream`. group, consumer: as whom `read` and `commit` act. Raises ValueError for
    other addresses.
    """
    scheme, place = split_address(address, "log")
    if scheme in REDIS_SCHEMES:
        return RedisStream(place, group=group, consumer=consumer)
    return LocalLog(place, group=group)
