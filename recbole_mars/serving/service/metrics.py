"""What can be counted and measured of a running service, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from recbole_mars.serving.service.answers import Answer
from recbole_mars.serving.service.engine import Engine

__all__ = ["ServiceMetrics"]

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self, engine: Engine, waiting: Callable[[], int]) -> None:
        """waiting: how many questions are being posed or wait to be scored."""
        self.registry = CollectorRegistry()
        self._engine = engine

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"recbole_mars_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"recbole_mars_{name}", text, labels, registry=self.registry)

        self._requests = counter("requests", "Requests answered", "path", "status")
        self._seconds = Histogram(
            "recbole_mars_request_seconds",
            "Time of scoring requests, their arrival included",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._batches = Histogram(
            "recbole_mars_batch_requests",
            "Requests scored together",
            registry=self.registry,
            buckets=_SIZES,
        )
        self._candidates = counter("candidates", "Candidates scored")
        self._unknown_items = counter("unknown_items", "Candidates that the model does not know")
        self._unknown_users = counter("unknown_users", "Answers for users of whom nothing is kept")
        self._augmented = counter("augmented", "Answers with behaviours of other users")
        self._degraded = counter("degraded", "Answers without a part that failed", "part")
        self._reloads = counter("reloads", "New snapshots", "outcome")
        self.running = gauge("running_requests", "Scoring requests that are being answered")
        self._snapshot = gauge("snapshot", "1 for the snapshot in use", "name")
        gauge("queue_length", "Requests being prepared or waiting to be scored").set_function(
            waiting
        )
        gauge("snapshot_age_seconds", "Since the snapshot in use was published").set_function(
            self._age
        )
        for outcome in ("loaded", "refused"):
            self._reloads.labels(outcome)
        for part in ("store", "augmentation"):
            self._degraded.labels(part)
        ProcessCollector(registry=self.registry)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request. path: as the service names it, not as the client wrote it."""
        self._requests.labels(path, status).inc()
        if path == "/v1/ctr":
            self._seconds.observe(seconds)

    def answer(self, answer: Answer) -> None:
        known = int(answer.known.sum())
        self._candidates.inc(len(answer.known))
        self._unknown_items.inc(len(answer.known) - known)
        self._unknown_users.inc(answer.user_known is False)
        self._augmented.inc(answer.augmented)
        for part in answer.degraded:
            self._degraded.labels(part).inc()

    def batch(self, size: int) -> None:
        self._batches.observe(size)

    def reload(self, outcome: str) -> None:
        """outcome: as Engine.reload_if_new says."""
        if outcome in ("loaded", "refused"):
            self._reloads.labels(outcome).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' own form."""
        self._snapshot.clear()
        if self._engine.loaded is not None:
            self._snapshot.labels(self._engine.loaded.name).set(1)
        return generate_latest(self.registry)

    def _age(self) -> float:
        loaded = self._engine.loaded
        return float("nan") if loaded is None else time.time() - loaded.published
