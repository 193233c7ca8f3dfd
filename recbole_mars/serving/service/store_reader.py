"""Reading from a store that may be slow or away, without waiting for it again and again."""

from __future__ import annotations

import time

from recbole_mars.serving.stores import KeyValueStore, StoreError

__all__ = ["StoreReader"]

_RESTS = 10  # times as long as a failure took


class StoreReader:
    """A store that is left alone for a while after it failed, ten times as long as that took.

    So a store that does not answer costs its time-out once in a while, not in every request, and
    one that is back is used again at once, or soon. For many threads.
    """

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self._rests_until = 0.0

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Values of keys, None where there is none; raises StoreError, maybe without asking."""
        begun = time.monotonic()
        if begun < self._rests_until:
            raise StoreError(f"{self._store.name} failed a moment ago")
        try:
            return self._store.get_many(keys)
        except StoreError:
            now = time.monotonic()
            self._rests_until = now + _RESTS * (now - begun)
            raise
