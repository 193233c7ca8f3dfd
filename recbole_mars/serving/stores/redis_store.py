"""The store for several machines: Redis, one server or a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from recbole_mars.serving.redis_connection import DEFAULT_TIMEOUT, RedisAddress, RedisConnection
from recbole_mars.serving.stores.base import KeyValueStore, StoreError

__all__ = ["RedisStore"]

_KEYS_A_COMMAND = 10_000
_KEYS_A_PAGE = 1000


class RedisStore(KeyValueStore):
    """Keys under a prefix of a Redis server, written by transactions (MULTI).

    On a cluster keys live in slots on different machines, which no transaction spans: there a
    batch is all or nothing for the keys of each slot, not over slots, and so is what is read at
    once. How much of it survives a power cut is the server's setting (appendonly, appendfsync).
    While the server is away each call raises StoreError; it works again once the server does.
    """

    def __init__(
        self, address: str, *, read_only: bool = False, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        """address: as `RedisAddress.parse` reads it, with the option `prefix`.

        read_only: a failure is told at once, without a second try: somebody waits for the answer.
        timeout: seconds, where the address has none.
        """
        parsed = RedisAddress.parse(address, {"prefix"}, timeout)
        super().__init__(f"the Redis store {parsed}", read_only=read_only)
        self._prefix = dict(parsed.options).get("prefix", "").encode()
        self._is_cluster = parsed.is_cluster
        # Sent twice, each of a store's commands does the same as once.
        self._redis = RedisConnection(parsed, StoreError, retries=0 if read_only else 1)

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        # Redis looks through all keys of the database, also those under other prefixes.
        pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", self._prefix + prefix) + b"*"
        with self._redis.client() as client:
            keys = client.scan_iter(match=pattern, count=_KEYS_A_PAGE)
        while True:
            with self._redis.client():
                page = [key[len(self._prefix) :] for key in islice(keys, _KEYS_A_PAGE)]
            if not page:
                return
            for key, value in zip(page, self._get(page)):
                if value is not None:  # removed since
                    yield key, value

    def ping(self) -> None:
        with self._redis.client() as client:
            client.ping()

    def close(self) -> None:
        self._redis.close()

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        names = [self._prefix + key for key in keys]
        with self._redis.client() as client:
            return client.mget_nonatomic(names) if self._is_cluster else client.mget(names)

    def _put(self, batch: dict[bytes, bytes]) -> None:
        pairs = [(self._prefix + key, value) for key, value in batch.items()]
        with self._redis.client() as client:
            if self._is_cluster:
                client.mset_nonatomic(dict(pairs))
                return
            with client.pipeline(transaction=True) as transaction:
                for start in range(0, len(pairs), _KEYS_A_COMMAND):
                    transaction.mset(dict(pairs[start : start + _KEYS_A_COMMAND]))
                transaction.execute()

    def _delete(self, keys: list[bytes]) -> None:
        names = [self._prefix + key for key in keys]
        with self._redis.client() as client:
            if self._is_cluster:
                client.delete(*names)
                return
            with client.pipeline(transaction=True) as transaction:
                for start in range(0, len(names), _KEYS_A_COMMAND):
                    transaction.delete(*names[start : start + _KEYS_A_COMMAND])
                transaction.execute()
