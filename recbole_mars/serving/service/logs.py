"""Logs for machines: one JSON object a line, without anything that a user has sent."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import datetime, timezone

__all__ = ["JSONFormatter", "log_to_stderr"]


class JSONFormatter(logging.Formatter):
    """A record as JSON: time, level, message, and what is in its attribute `fields`.

    Of an exception its type and where it came from are told, not its message, which may hold what
    a user has sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            told["error"] = record.exc_info[0].__name__
            told["where"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return json.dumps(told)


def log_to_stderr(level: str = "info") -> None:
    """Send all logs of the process to the standard error, as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
