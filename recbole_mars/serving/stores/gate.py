"""A gate that many pass together and one passes alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Gate"]


class Gate:
    """Lets threads through together, or one thread alone once the others have left.

    Once a thread wants to be alone nobody else enters, so that a steady stream of others cannot
    keep it out. A thread inside must not enter again.
    """

    def __init__(self) -> None:
        self._one_alone = threading.Lock()
        self._is_open = threading.Event()
        self._is_open.set()
        self._left = threading.Condition()
        self._inside = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        while True:
            # Looked at without a lock: of locks that others take all the time, Python lets a
            # thread wait for minutes.
            if not self._is_open.is_set():
                self._is_open.wait()
            with self._left:
                if self._is_open.is_set():
                    self._inside += 1
                    break
        try:
            yield
        finally:
            with self._left:
                self._inside -= 1
                if not self._inside:
                    self._left.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._one_alone:
            self._is_open.clear()
            try:
                with self._left:
                    self._left.wait_for(lambda: not self._inside)
                yield
            finally:
                self._is_open.set()
