"""Key-value stores of what serving looks up: LMDB on one machine, Redis for several."""

from recbole_mars.serving.stores.base import MAX_KEY_BYTES, KeyValueStore, StoreError
from recbole_mars.serving.stores.lmdb_store import LMDBStore
from recbole_mars.serving.stores.opening import open_store
from recbole_mars.serving.stores.redis_store import RedisStore

__all__ = [
    "MAX_KEY_BYTES",
    "KeyValueStore",
    "LMDBStore",
    "RedisStore",
    "StoreError",
    "open_store",
]
