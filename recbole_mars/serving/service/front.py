"""What every request passes first and last: the API key, the log, the count, and stray errors."""

from __future__ import annotations

import hmac
import logging
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recbole_mars.serving.service.errors import error_response
from recbole_mars.serving.service.metrics import ServiceMetrics

__all__ = ["Front", "Visit", "visit_of"]

_VISIT = "recbole_mars.visit"
_log = logging.getLogger("recbole_mars.serving.requests")
_logger = logging.getLogger(__name__)


@dataclass
class Visit:
    """One request under way. notes: what its log line tells beside time and status."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    begun: float = field(default_factory=time.monotonic)
    status: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


def visit_of(scope: Mapping[str, Any]) -> Visit:
    """The visit that Front has put into a request's scope."""
    return scope[_VISIT]


class Front:
    """ASGI middleware around the service.

    paths: those that the service has; others are counted and logged as "other", since clients
    write them. open_paths: those that need no API key.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: ServiceMetrics,
        api_key: str | None,
        paths: Collection[str],
        open_paths: Collection[str],
    ) -> None:
        self._app, self._metrics = app, metrics
        self._key = None if api_key is None else api_key.encode()
        self._paths, self._open_paths = paths, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = scope[_VISIT] = Visit()

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                own = (b"x-request-id", visit.id.encode())
                message["headers"] = [*message.get("headers", ()), own]
            await send(message)

        try:
            app = self._app if self._may_enter(scope) else _no_key()
            await app(scope, receive, note_status)
        except Exception:
            _logger.exception("request %s failed", visit.id, extra={"fields": {"id": visit.id}})
            if not visit.status:
                await _failed(visit.id)(scope, receive, note_status)
        finally:
            self._note(scope["path"], visit)

    def _may_enter(self, scope: Scope) -> bool:
        if self._key is None or scope["path"] in self._open_paths:
            return True
        given = [value for name, value in scope["headers"] if name == b"x-api-key"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._key)

    def _note(self, path: str, visit: Visit) -> None:
        path = path if path in self._paths else "other"
        seconds = time.monotonic() - visit.begun
        self._metrics.request(path, visit.status, seconds)
        told = {
            "id": visit.id,
            "path": path,
            "status": visit.status,
            "seconds": round(seconds, 6),
            **visit.notes,
        }
        _log.info("request", extra={"fields": told})


def _no_key() -> JSONResponse:
    return error_response(401, "no_key", "the header X-API-Key must hold the service's key")


def _failed(name: str) -> JSONResponse:
    return error_response(500, "internal", f"something failed; the log tells more under {name}")
