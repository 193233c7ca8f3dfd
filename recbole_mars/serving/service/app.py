"""The online service over HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from recbole_mars import __version__
from recbole_mars.serving.service.answers import Answer, Question
from recbole_mars.serving.service.batching import Batcher, QueueFull, TooLate
from recbole_mars.serving.service.engine import Engine
from recbole_mars.serving.service.errors import ServiceError, error_response
from recbole_mars.serving.service.front import Front, visit_of
from recbole_mars.serving.service.messages import (
    CTRResponse,
    ErrorBody,
    read_question,
    request_model,
)
from recbole_mars.serving.service.metrics import ServiceMetrics
from recbole_mars.serving.service.openapi import describe, docs_page
from recbole_mars.serving.service.settings import ServiceSettings

__all__ = ["create_app"]

_RETRY_AFTER = 1  # second
_WRITER = TypeAdapter(dict[str, Any])
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in (
        (400, "the body is no JSON"),
        (401, "the API key is missing or wrong"),
        (408, "the body came too slowly"),
        (413, "the body is too large"),
        (415, "the body is not declared as application/json, or is compressed"),
        (422, "a field is missing, unknown or out of its limits"),
        (429, "too many requests at once; Retry-After tells when to come back"),
        (500, "a failure, which the log tells more of under the request's id"),
        (503, "no snapshot is loaded, or too many requests wait"),
        (504, "the answer took too long"),
    )
}

_logger = logging.getLogger(__name__)


class Service:
    """What the routes share: the engine, the batches, the metrics and the limits."""

    def __init__(self, engine: Engine, settings: ServiceSettings) -> None:
        self.engine, self.settings = engine, settings
        self.metrics = ServiceMetrics(engine, lambda: self.batcher.waiting)
        self.batcher = Batcher(engine, settings, self.metrics.batch)
        self.request = request_model(settings)
        self._running = 0

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Look for new snapshots while the service runs; at its end answer what was asked."""
        polling = asyncio.create_task(self._poll())
        yield
        polling.cancel()
        await asyncio.to_thread(self.batcher.close)

    async def ctr(self, request: Request) -> Response:
        """How likely the user clicks on each candidate, by the user's history.

        Unknown users and items get an answer too, and are flagged. What fails on the way is left
        out and named under `degraded`.
        """
        visit = visit_of(request.scope)
        self._check_headers(request)
        if self._running >= self.settings.concurrency:
            text = f"{self.settings.concurrency} requests are being answered"
            raise ServiceError(429, "too_many", text, retry_after=_RETRY_AFTER)
        self._running += 1
        self.metrics.running.set(self._running)
        try:
            if self.engine.loaded is None:
                text = "no snapshot is loaded yet"
                raise ServiceError(503, "not_ready", text, retry_after=_RETRY_AFTER)
            deadline = visit.begun + self.settings.seconds
            question = read_question(await self._body(request, deadline), self.request)
            visit.notes["candidates"] = len(question.candidates)
            answer = await self._ask(question, deadline)
        finally:
            self._running -= 1
            self.metrics.running.set(self._running)
        self.metrics.answer(answer)
        visit.notes.update(
            augmented=answer.augmented, degraded=answer.degraded, snapshot=answer.snapshot
        )
        # Pydantic's writer takes a fifth of the time of the one of JSONResponse.
        return Response(_WRITER.dump_json(answer.to_json()), media_type="application/json")

    async def healthz(self) -> Response:
        """Whether the process answers at all."""
        return JSONResponse({"status": "ok"})

    async def readyz(self) -> Response:
        """Whether a snapshot is loaded."""
        loaded = self.engine.loaded
        if loaded is None:
            raise ServiceError(503, "not_ready", "no snapshot is loaded yet")
        return JSONResponse({"status": "ok", "snapshot": loaded.name})

    async def show_metrics(self) -> Response:
        """Metrics for Prometheus."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    def _check_headers(self, request: Request) -> None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ServiceError(415, "no_json", "Content-Type must be application/json")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ServiceError(415, "compressed", "the body must not be compressed")
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told[:20]) > self.settings.max_body_bytes:
            raise self._too_large()

    async def _body(self, request: Request, deadline: float) -> bytes:
        try:
            return await asyncio.wait_for(self._read(request), deadline - time.monotonic())
        except asyncio.TimeoutError:
            raise ServiceError(408, "slow_body", "the body came too slowly") from None
        except ClientDisconnect:
            raise ServiceError(400, "cut_off", "the body was cut off") from None

    async def _read(self, request: Request) -> bytes:
        pieces, size = [], 0
        async for piece in request.stream():
            size += len(piece)
            if size > self.settings.max_body_bytes:
                raise self._too_large()
            pieces.append(piece)
        return b"".join(pieces)

    def _too_large(self) -> ServiceError:
        text = f"the body must have at most {self.settings.max_body_bytes} bytes"
        return ServiceError(413, "too_large", text)

    async def _ask(self, question: Question, deadline: float) -> Answer:
        try:
            asked = asyncio.wrap_future(self.batcher.submit(question, deadline))
            return await asyncio.wait_for(asked, deadline - time.monotonic())
        except QueueFull:
            text = "too many requests wait"
            raise ServiceError(503, "queue_full", text, retry_after=_RETRY_AFTER) from None
        except (asyncio.TimeoutError, TooLate):
            text = f"there was no answer within {self.settings.seconds:g} s"
            raise ServiceError(504, "too_late", text) from None

    async def _poll(self) -> None:
        while True:
            try:
                self.metrics.reload(await asyncio.to_thread(self.engine.reload_if_new))
            except Exception:
                _logger.exception("looking for a new snapshot failed")
            await asyncio.sleep(self.settings.poll_seconds)


def create_app(engine: Engine, settings: ServiceSettings | None = None) -> FastAPI:
    """The service as an ASGI application.

    It serves from when a snapshot is loaded, which it looks for by itself. An application is
    started and stopped once.
    """
    settings = settings or ServiceSettings()
    service = Service(engine, settings)
    app = FastAPI(
        title="recbole_mars",
        version=__version__,
        description="Click probabilities from histories that retrieval augments.",
        lifespan=service.lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    route = app.add_api_route
    route("/v1/ctr", service.ctr, methods=["POST"], response_model=CTRResponse, responses=_ERRORS)
    route("/healthz", service.healthz, methods=["GET"])
    route("/readyz", service.readyz, methods=["GET"], responses={503: _ERRORS[503]})
    route("/metrics", service.show_metrics, methods=["GET"])
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(describe(app, service.request, settings.api_key is not None))
        return document

    async def docs() -> Response:
        return HTMLResponse(docs_page(openapi()))

    route("/docs", docs, methods=["GET"], include_in_schema=False)
    app.state.engine = engine
    app.openapi = openapi  # type: ignore[method-assign]
    app.add_exception_handler(ServiceError, _told)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(
        Front,
        metrics=service.metrics,
        api_key=settings.api_key,
        paths=frozenset(("/v1/ctr", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")),
        open_paths=frozenset(("/healthz", "/readyz")),
    )
    return app


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    visit_of(request.scope).notes["error"] = error.code
    return error_response(error.status, error.code, error.message, error.field, error.headers)


async def _refused(request: Request, error: Exception) -> Response:
    """What the framework refuses: paths and methods that are not there."""
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, "refused", error.detail, headers=error.headers)
