"""Micro-batching: questions that come within a few milliseconds are scored together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import faiss

from recbole_mars.serving.service.answers import Answer, Question
from recbole_mars.serving.service.engine import Engine, Posed
from recbole_mars.serving.service.settings import ServiceSettings

__all__ = ["Batcher", "QueueFull", "TooLate"]


class QueueFull(Exception):
    """As many questions as are allowed are waiting."""


class TooLate(Exception):
    """The time for a question has passed before it was scored."""


@dataclass(eq=False)
class _Entry:
    question: Question
    deadline: float
    answer: Future[Answer] = field(default_factory=Future)
    posed: Posed | None = None


class Batcher:
    """Questions are posed by a few threads and scored by one.

    An error concerns the question that it came from only. on_batch: told how many questions were
    scored together.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ServiceSettings,
        on_batch: Callable[[int], object] = lambda size: None,
    ) -> None:
        self._engine, self._settings, self._on_batch = engine, settings, on_batch
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = False
        self._posed: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(settings.preparing_threads, "pose", _search_alone)
        self._scorer = threading.Thread(target=self._work, name="score", daemon=True)
        self._scorer.start()

    @property
    def waiting(self) -> int:
        """Questions that are being posed or wait to be scored."""
        return self._waiting

    def submit(self, question: Question, deadline: float) -> Future[Answer]:
        """Ask; the answer raises what went wrong, TooLate among others.

        deadline: on time.monotonic's clock; later nobody wants the answer. A future that was
        cancelled is not worked on any more.
        Raises QueueFull, RuntimeError after close.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the service is stopping")
            if self._waiting >= self._settings.queue:
                raise QueueFull(f"{self._waiting} questions are waiting")
            self._waiting += 1
            entry = _Entry(question, deadline)
            self._pool.submit(self._pose, entry)
        return entry.answer

    def close(self) -> None:
        """Answer all that was asked, then stop. Closing twice is allowed."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True)
        self._posed.put(None)
        self._scorer.join()

    def _pose(self, entry: _Entry) -> None:
        if entry.answer.cancelled() or time.monotonic() > entry.deadline:
            self._drop(entry)
            return
        try:
            entry.posed = self._engine.pose(entry.question)
        except Exception as error:
            self._end(entry, error)
        else:
            self._posed.put(entry)

    def _work(self) -> None:
        stopping = False
        while not stopping:
            first = self._posed.get()
            if first is None:
                return
            batch = [first]
            stopping = self._collect(batch)
            self._score([entry for entry in batch if self._is_wanted(entry)])

    def _collect(self, batch: list[_Entry]) -> bool:
        """Wait a little for more questions, if there are any; returns whether to stop."""
        until = time.monotonic() + self._settings.batch_seconds
        size = len(batch[0].question.candidates)
        while size < self._settings.batch_candidates and len(batch) < self._waiting:
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                entry = self._posed.get(timeout=left)
            except queue.Empty:
                break
            if entry is None:
                return True
            batch.append(entry)
            size += len(entry.question.candidates)
        return False

    def _is_wanted(self, entry: _Entry) -> bool:
        if time.monotonic() <= entry.deadline and entry.answer.set_running_or_notify_cancel():
            return True
        self._drop(entry)
        return False

    def _score(self, entries: list[_Entry]) -> None:
        posed = [entry.posed for entry in entries if entry.posed is not None]
        if not posed:
            return
        try:
            scores = self._engine.score(posed)
        except Exception as error:
            if len(entries) == 1:
                self._end(entries[0], error)
                return
            for entry in entries:  # the others are not to suffer from one
                self._score([entry])
            return
        self._on_batch(len(entries))
        for entry, question, found in zip(entries, posed, scores):
            try:
                self._end(entry, self._engine.reply(question, found))
            except Exception as error:
                self._end(entry, error)

    def _drop(self, entry: _Entry) -> None:
        """End a question that nobody waits for any more."""
        self._end(entry, TooLate("the time for this question has passed"))

    def _end(self, entry: _Entry, result: Answer | Exception) -> None:
        with self._lock:
            self._waiting -= 1
        if entry.answer.cancelled():
            return
        if not entry.answer.running() and not entry.answer.set_running_or_notify_cancel():
            return
        if isinstance(result, Answer):
            entry.answer.set_result(result)
        else:
            entry.answer.set_exception(result)


def _search_alone() -> None:
    """One query is too little to share out: FAISS' other threads would only spin for the next."""
    faiss.omp_set_num_threads(1)  # of searches that this thread begins
