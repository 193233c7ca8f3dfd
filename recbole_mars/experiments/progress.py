"""How far an experiment is and when it will end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

__all__ = ["Progress", "duration"]


class Progress:
    """Counts jobs; what is left is expected to take the mean of what was like it.

    jobs: stem of each job, with its data set and method. left: stems of those without a record.
    """

    def __init__(
        self,
        jobs: Iterable[tuple[str, str, str]],
        left: Iterable[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._kinds = {stem: (dataset, method) for stem, dataset, method in jobs}
        self._left = dict.fromkeys(left)
        self._handled: set[str] = set()
        self._seconds: list[tuple[tuple[str, str], float]] = []
        self._now = now

    def done(self, stem: str, seconds: float | None = None) -> None:
        """A job has been dealt with; seconds: that it took now or when it was recorded."""
        self._handled.add(stem)
        self._left.pop(stem, None)
        if seconds is not None:
            self._seconds.append((self._kinds[stem], seconds))

    def position(self) -> str:
        """As in "[ 7/120]"."""
        total = len(self._kinds)
        return f"[{len(self._handled):{len(str(total))}d}/{total}]"

    def expected_end(self) -> str:
        """In words; "" when nothing is left, or nothing is known yet."""
        if not self._left or not self._seconds:
            return ""
        left = sum(self._expected(*self._kinds[stem]) for stem in self._left)
        end = datetime.fromtimestamp(self._now()) + timedelta(seconds=left)
        return f"{duration(left)} left, until {end:%a %d %b %H:%M}"

    def _expected(self, dataset: str, method: str) -> float:
        """Mean over this method on this data set, else over the data set, else over everything."""
        alike = [s for kind, s in self._seconds if kind == (dataset, method)]
        alike = alike or [s for kind, s in self._seconds if kind[0] == dataset]
        alike = alike or [s for _, s in self._seconds]
        return sum(alike) / len(alike)


def duration(seconds: float) -> str:
    """As in "45 s", "12 min" or "3 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
