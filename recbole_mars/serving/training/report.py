"""A line a minute on how training gets on."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from recbole_mars.serving.events import Event
from recbole_mars.serving.training.recent import RecentScores
from recbole_mars.serving.training.state import Progress

__all__ = ["Report"]

_SECONDS = 60.0

_logger = logging.getLogger(__name__)


class Report:
    """Counts events, and tells each minute of their rate, of lag and loss.

    The lag is between now and the time of the event that was read last.
    """

    def __init__(self) -> None:
        self._events, self._since = 0, time.monotonic()
        self._last: float | None = None

    def tell(
        self, events: Sequence[tuple[str, Event]], progress: Progress, recent: RecentScores
    ) -> None:
        """Count what was read; log, if the minute is over."""
        self._events += len(events)
        if events:
            self._last = events[-1][1].time
        passed = time.monotonic() - self._since
        if passed < _SECONDS:
            return
        figures = recent.figures()
        _logger.info(
            "%.1f events/s, lag %s, step %d, %d samples, skipped %s, log loss %s, AUC %s",
            self._events / passed,
            "unknown" if self._last is None else f"{time.time() - self._last:.0f} s",
            progress.step,
            progress.samples,
            dict(progress.skipped),
            figures["log_loss"],
            figures["auc"],
        )
        self._events, self._since = 0, time.monotonic()
