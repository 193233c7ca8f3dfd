"""What every key-value store promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TypeVar

__all__ = ["MAX_KEY_BYTES", "KeyValueStore", "StoreError"]

MAX_KEY_BYTES = 511  # LMDB's limit, kept by all stores so that they can be exchanged

_Store = TypeVar("_Store", bound="KeyValueStore")


class StoreError(OSError):
    """A store cannot do what it is asked to: it is away, full, damaged, read-only or closed."""


class KeyValueStore(ABC):
    """Values of bytes under keys of 1 to MAX_KEY_BYTES bytes, for many threads and processes.

    A batch is written all or nothing, and whoever reads several keys at once sees a batch written
    meanwhile whole or not at all. (Redis on a cluster promises both for each slot alone.) A batch
    whose writing raised StoreError because the store went away may be there or not, and can be
    written again.

    Raises ValueError for a key or value that cannot be stored, StoreError for all else.
    """

    def __init__(self, name: str, *, read_only: bool) -> None:
        """name: what messages call the store."""
        self.name = name
        self.read_only = read_only

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None where there is none."""
        return self.get_many([key])[0]

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values of keys in their order, None where there is none; all of one moment."""
        keys = [_checked_key(key) for key in keys]
        return self._get(keys) if keys else []

    def put_many(self, pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]) -> None:
        """Write values under keys, all or nothing; of a key given twice, the last value stays."""
        batch = dict(pairs)
        for key, value in batch.items():
            _checked_key(key)
            if not isinstance(value, bytes):
                raise ValueError(f"a value must be bytes, got {type(value).__name__} for {key!r}")
        self._refuse_if_read_only()
        if batch:
            self._put(batch)

    def delete_many(self, keys: Iterable[bytes]) -> None:
        """Remove keys, all or none; those that are not there are passed over."""
        keys = list(dict.fromkeys(_checked_key(key) for key in keys))
        self._refuse_if_read_only()
        if keys:
            self._delete(keys)

    @abstractmethod
    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All keys that begin with `prefix`, with their values.

        What is there all the time is met at least once; what is written or removed meanwhile may
        be met or not. Only LMDB has an order, that of the bytes, and meets each key just once.
        """

    @abstractmethod
    def ping(self) -> None:
        """Raise StoreError unless the store answers."""

    @abstractmethod
    def close(self) -> None:
        """Free what the store holds; it cannot be used afterwards. Closing twice is allowed."""

    def __enter__(self: _Store) -> _Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _get(self, keys: list[bytes]) -> list[bytes | None]: ...

    @abstractmethod
    def _put(self, batch: dict[bytes, bytes]) -> None: ...

    @abstractmethod
    def _delete(self, keys: list[bytes]) -> None: ...

    def _refuse_if_read_only(self) -> None:
        if self.read_only:
            raise StoreError(f"{self.name} is open for reading only; open it with read_only=False")


def _checked_key(key: bytes) -> bytes:
    if not isinstance(key, bytes):
        raise ValueError(f"a key must be bytes, got {type(key).__name__}")
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise ValueError(
            f"a key must have 1 to {MAX_KEY_BYTES} bytes, got {len(key)}; use a digest of it"
        )
    return key
