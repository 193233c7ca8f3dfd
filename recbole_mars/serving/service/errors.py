"""What the service says when it does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

__all__ = ["ServiceError", "error_response"]


class ServiceError(Exception):
    """A request is not answered, for a reason that its sender may know.

    code: for programs. field: of the request, where one is at fault. retry_after: seconds after
    which to try again.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field = status, code, message, field
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


def error_response(
    status: int,
    code: str,
    message: str,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The one form of all errors."""
    content: dict[str, Any] = {"code": code, "message": message, "field": field}
    return JSONResponse({"error": content}, status, dict(headers or {}))
