"""What can be chosen in the online service, its limits above all."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["ServiceSettings"]

_AT_LEAST_ONE = (
    "max_body_bytes",
    "max_candidates",
    "max_recent",
    "concurrency",
    "queue",
    "batch_candidates",
    "preparing_threads",
)


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and times of the online service, checked when made.

    max_body_bytes, max_candidates, max_recent: of one request. concurrency: scoring requests at
    once; more are sent away with 429. seconds: that a scoring request may take, its arrival
    included. api_key: what the header X-API-Key must hold, None for an open service.
    batch_seconds: how long a request waits for others to be scored with it, 0 scores each alone.
    batch_candidates: from which on a batch waits for no more. queue: requests that are being
    prepared or wait to be scored; more are sent away with 503. preparing_threads: threads that look
    users up and search. poll_seconds: between looks for a new snapshot.

    Raises ValueError for a number out of range or an empty key.
    """

    max_body_bytes: int = 1 << 20
    max_candidates: int = 1000
    max_recent: int = 500
    concurrency: int = 64
    seconds: float = 1.0
    api_key: str | None = field(default=None, repr=False)
    batch_seconds: float = 0.001
    batch_candidates: int = 4096
    queue: int = 128
    preparing_threads: int = 4
    poll_seconds: float = 5.0

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("seconds", "poll_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number > 0, got {getattr(self, name)}")
        if not 0 <= self.batch_seconds < self.seconds:
            raise ValueError(
                f"batch_seconds must lie in 0..seconds ({self.seconds}), got {self.batch_seconds}"
            )
        if self.api_key is not None and not self.api_key:
            raise ValueError("api_key must not be empty; leave it out for an open service")
