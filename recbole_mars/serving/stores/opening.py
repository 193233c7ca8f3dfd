"""From an address to a store."""

from __future__ import annotations

from recbole_mars.serving.addresses import REDIS_SCHEMES, split_address
from recbole_mars.serving.redis_connection import DEFAULT_TIMEOUT
from recbole_mars.serving.stores.base import KeyValueStore
from recbole_mars.serving.stores.lmdb_store import LMDBStore
from recbole_mars.serving.stores.redis_store import RedisStore

__all__ = ["open_store"]


def open_store(
    address: str, *, read_only: bool = False, timeout: float = DEFAULT_TIMEOUT
) -> KeyValueStore:
    """The store at `lmdb:FOLDER`, at a folder's plain path, or at a Redis address.

    `redis://HOST:PORT/DATABASE?prefix=TEXT`, with `redis+cluster://HOST:PORT,HOST:PORT` for a
    cluster and `rediss` for TLS; see `RedisAddress.parse`. timeout: seconds that Redis may take,
    where the address does not tell. Raises ValueError for other addresses.
    """
    scheme, place = split_address(address, "lmdb")
    if scheme in REDIS_SCHEMES:
        return RedisStore(place, read_only=read_only, timeout=timeout)
    return LMDBStore(place, read_only=read_only)
