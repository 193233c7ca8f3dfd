"""The queue of interactions: a log on the disk of one machine, Redis Streams for several."""

from recbole_mars.serving.events.base import EventQueue, EventsLost, ForeignOffset, QueueError
from recbole_mars.serving.events.event import MAX_TOKEN_BYTES, Event
from recbole_mars.serving.events.local_log import LocalLog
from recbole_mars.serving.events.opening import open_queue
from recbole_mars.serving.events.redis_stream import RedisStream

__all__ = [
    "MAX_TOKEN_BYTES",
    "Event",
    "EventQueue",
    "EventsLost",
    "ForeignOffset",
    "LocalLog",
    "QueueError",
    "RedisStream",
    "open_queue",
]
