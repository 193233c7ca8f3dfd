"""The embedded store: one LMDB environment in a folder, no server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from recbole_mars.serving.folders import foreign_name
from recbole_mars.serving.optional import import_optional
from recbole_mars.serving.stores.base import MAX_KEY_BYTES, KeyValueStore, StoreError
from recbole_mars.serving.stores.gate import Gate

__all__ = ["LMDBStore"]

_MAX_READERS = 1024  # transactions at once, of all processes
_STEP_ASIDE_SECONDS = 0.0005
_PAGE_PAIRS = 1000
_PAGE_BYTES = 4 << 20

_Result = TypeVar("_Result")


class LMDBStore(KeyValueStore):
    """A store in a folder of a local disk, read by many processes while one at a time writes.

    A writer never waits for readers, nor they for one in another process. A batch is one
    transaction: neither a killed process nor a full disk leaves a part of it. Opening a folder
    twice in one process is refused; threads share a store, forked processes open their own.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        map_size: int = 64 << 20,
        read_only: bool = False,
        durable: bool = True,
    ) -> None:
        """Open the store in `folder`, which is made unless it is only read.

        map_size: bytes of address space at first; it doubles by itself whenever it is full. The
        file takes what its content needs. durable: a batch is on the disk when put_many returns;
        without it a power cut may damage the store as a whole, the end of a process never.
        """
        super().__init__(f"the LMDB store {os.fspath(folder)}", read_only=read_only)
        self._lmdb: Any = import_optional("lmdb")
        self._gate = Gate()
        self._writers = 0
        self._writers_lock = threading.Lock()
        self._environment: Any = None
        try:
            if not read_only:
                if foreign := foreign_name(Path(folder), r"(data|lock)\.mdb"):
                    raise StoreError(
                        f"{self.name} cannot be made where {foreign} is; name an empty folder"
                    )
                Path(folder).mkdir(parents=True, exist_ok=True)
            elif not (Path(folder) / "data.mdb").exists():
                raise StoreError(f"{self.name} is not there; let its writer make it first")
            self._environment = self._lmdb.open(
                os.fspath(folder),
                map_size=map_size,
                readonly=read_only,
                create=not read_only,
                sync=durable,
                metasync=durable,
                readahead=False,  # users are looked up in no order
                max_readers=_MAX_READERS,
            )
            _see_that_it_is_whole(self._environment, Path(folder) / "data.mdb", self.name)
            # A killed reader's place in the table would keep old pages from being used again.
            self._environment.reader_check()
        except StoreError:
            raise
        except (OSError, self._lmdb.Error) as error:
            raise StoreError(f"{self.name} cannot be opened: {error}") from error

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        # In pages, each a transaction of its own: one kept open while the caller works would keep
        # the writer from using freed pages again, and the map from growing.
        last: bytes | None = None
        while True:
            page, is_end = self._within(partial(_page, prefix=prefix, last=last), write=False)
            yield from page
            if is_end:
                return
            last = page[-1][0]

    def ping(self) -> None:
        self._within(lambda transaction: transaction.stat(), write=False)

    def close(self) -> None:
        with self._gate.alone():
            if self._environment is not None:
                self._environment.close()
                self._environment = None

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        return self._within(lambda reading: [reading.get(key) for key in keys], write=False)

    def _put(self, batch: dict[bytes, bytes]) -> None:
        # In the order of their bytes, neighbours go to the same pages.
        pairs = sorted(batch.items())
        size = sum(len(key) + len(value) for key, value in pairs)
        with self._writing():
            self._within(lambda writing: writing.cursor().putmulti(pairs), write=True, size=size)

    def _delete(self, keys: list[bytes]) -> None:
        with self._writing():
            self._within(lambda writing: [writing.delete(key) for key in keys], write=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Let this process's readers step aside.

        For each key that it looks up, LMDB lets go of Python's lock for a microsecond. Threads that
        read all the time thus pass it among each other, and a writer can wait for it for minutes.
        """
        with self._writers_lock:
            self._writers += 1
        try:
            yield
        finally:
            with self._writers_lock:
                self._writers -= 1

    def _within(self, work: Callable[[Any], _Result], *, write: bool, size: int = 0) -> _Result:
        """Do `work` in a transaction, anew after the map was too small. size: bytes written."""
        try:
            while True:
                try:
                    return self._once(work, write)
                except self._lmdb.MapFullError:
                    self._grow(size)
                except self._lmdb.MapResizedError:  # another process has made it larger
                    with self._gate.alone():
                        self._opened().set_mapsize(0)
                except self._lmdb.ReadersFullError:
                    if not self._opened().reader_check():
                        raise
        except self._lmdb.Error as error:
            left = "; nothing of the batch was written" if write else ""
            raise StoreError(f"{self.name} failed: {error}{left}") from error

    def _once(self, work: Callable[[Any], _Result], write: bool) -> _Result:
        if self._writers and not write:
            time.sleep(_STEP_ASIDE_SECONDS)
        with self._gate.together(), self._opened().begin(write=write) as transaction:
            return work(transaction)

    def _grow(self, size: int) -> None:
        """Make the map larger, by at least twice `size` bytes, or free what dead readers held."""
        with self._gate.alone():  # LMDB moves the map, so no thread may be reading it
            environment = self._opened()
            if environment.reader_check():
                return
            before = environment.info()["map_size"]
            environment.set_mapsize(max(2 * before, before + 2 * size))

    def _opened(self) -> Any:
        if self._environment is None:
            raise StoreError(f"{self.name} is closed")
        return self._environment


def _see_that_it_is_whole(environment: Any, file: Path, name: str) -> None:
    """A file that was cut off would end the process at the first page that is missing."""
    pages = environment.info()["last_pgno"] + 1
    needed, there = pages * environment.stat()["psize"], file.stat().st_size
    if there < needed:
        environment.close()
        raise StoreError(f"{name} is cut off: {file.name} must have {needed} bytes, has {there}")


def _page(
    transaction: Any, prefix: bytes, last: bytes | None
) -> tuple[list[tuple[bytes, bytes]], bool]:
    """The next pairs after key `last` whose keys begin with `prefix`, and whether these are all."""
    page: list[tuple[bytes, bytes]] = []
    size = 0
    cursor = transaction.cursor()
    start = (prefix if last is None else last)[:MAX_KEY_BYTES]
    if not (cursor.set_range(start) if start else cursor.first()):
        return page, True
    for key, value in cursor.iternext():
        if key == last:
            continue
        if not key.startswith(prefix):
            return page, True
        page.append((key, value))
        size += len(key) + len(value)
        if len(page) == _PAGE_PAIRS or size >= _PAGE_BYTES:
            return page, False
    return page, True
