"""Reading from a store that may be slow or away, without waiting for it again and again."""

from __future__ import annotations

import logging
import time

from recbole_mars.serving.stores import KeyValueStore, StoreError

__all__ = ["StoreReader"]

_RESTS = 10  # times as long as a failure took

_logger = logging.getLogger(__name__)


class StoreReader:
    """A store that is left alone for a while after it failed, ten times as long as that took.

    So a store that does not answer costs its time-out once in a while, not in every request, and
    one that is back is used again at once, or soon. For many threads.
    """

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self._rests_until = 0.0
        self._failing = False

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None where there is none; raises StoreError, maybe without asking."""
        begun = time.monotonic()
        if begun < self._rests_until:
            raise StoreError(f"{self._store.name} failed a moment ago")
        try:
            value = self._store.get(key)
        except StoreError as error:
            now = time.monotonic()
            self._rests_until = now + _RESTS * (now - begun)
            if not self._failing:
                self._failing = True
                _logger.warning("the store fails, answers go on without it: %s", error)
            raise
        if self._failing:
            self._failing = False
            _logger.warning("the store is back")
        return value
