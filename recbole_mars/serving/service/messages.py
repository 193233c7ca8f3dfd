"""Requests and responses as JSON, with their limits.

Annotations here are read when the program runs, on Python 3.9 too: hence Optional.
"""

from __future__ import annotations

from typing import Annotated, Optional

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from recbole_mars.serving.events import MAX_TOKEN_BYTES
from recbole_mars.serving.service.answers import Question, Recent
from recbole_mars.serving.service.errors import ServiceError
from recbole_mars.serving.service.settings import ServiceSettings

__all__ = ["CTRRequest", "CTRResponse", "ErrorBody", "read_question", "request_model"]

_MAX_VALUE = 1e6
_MAX_TIME = 1e18
_MAX_NAME = 100  # characters of an unknown field's name that are told


def _short(token: str) -> str:
    if len(token.encode()) > MAX_TOKEN_BYTES:
        raise ValueError(f"must have at most {MAX_TOKEN_BYTES} bytes of UTF-8")
    return token


Token = Annotated[str, Field(min_length=1, max_length=MAX_TOKEN_BYTES), AfterValidator(_short)]


class _Strict(BaseModel):
    """Nothing is converted, nothing unknown is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class RecentBehaviour(_Strict):
    """A behaviour of the user that the store may not know yet; told twice it counts once."""

    item: Token
    value: float = Field(
        ge=-_MAX_VALUE, le=_MAX_VALUE, description="as in the log, a rating for example"
    )
    time: float = Field(ge=-_MAX_TIME, le=_MAX_TIME, description="in the log's unit")


class CTRRequest(_Strict):
    """Who is asked about what; the lists' limits are set by the service."""

    user: Token = Field(description="the user's name, as in the log")
    candidates: list[Token] = Field(min_length=1, description="names of items")
    recent: Optional[list[RecentBehaviour]] = None  # noqa: UP045
    time: Optional[float] = Field(  # noqa: UP045
        None,
        ge=-_MAX_TIME,
        le=_MAX_TIME,
        description="now, in the log's unit; after all that is known by default",
    )
    explain: bool = Field(False, description="tell what the history was augmented with")
    augment: bool = Field(True, description="false: score the user's own history alone")


class Prediction(BaseModel):
    """known: false for an item that the model was not trained with."""

    item: str
    probability: float
    known: bool


class NeighbourTold(BaseModel):
    user: str
    similarity: float


class AddedBehaviour(BaseModel):
    item: str
    liked: bool
    similarity: float
    donor: str


class ProbabilityPair(BaseModel):
    item: str
    with_augmentation: float
    without_augmentation: float


class Explanation(BaseModel):
    """history_length: behaviours of the user that the model reads. added: oldest first."""

    history_length: int
    neighbours: list[NeighbourTold]
    added: list[AddedBehaviour]
    probabilities: list[ProbabilityPair]


class CTRResponse(BaseModel):
    """user_known: null if the store could not tell. augmented: whether behaviours of others were
    put before the history. degraded: what failed and was left out, "store" or "augmentation".
    recent_ignored: recent behaviours that were left out, on items that the model does not know, or,
    where it reads values, with some far from all ratings."""

    snapshot: str
    user_known: Optional[bool]  # noqa: UP045
    augmented: bool
    degraded: list[str]
    recent_ignored: int
    predictions: list[Prediction]
    explanation: Optional[Explanation]  # noqa: UP045


class ErrorTold(BaseModel):
    """field: of the request, where one is at fault."""

    code: str
    message: str
    field: Optional[str]  # noqa: UP045


class ErrorBody(BaseModel):
    error: ErrorTold


def request_model(settings: ServiceSettings) -> type[CTRRequest]:
    """CTRRequest with the limits of these settings."""
    candidates = Field(
        min_length=1, max_length=settings.max_candidates, description="names of items"
    )
    recent = Field(None, max_length=settings.max_recent)
    return create_model(
        "CTRRequest",
        __base__=CTRRequest,
        candidates=(list[Token], candidates),
        recent=(Optional[list[RecentBehaviour]], recent),
    )


def read_question(body: bytes, model: type[CTRRequest]) -> Question:
    """Read a request's body; raises ServiceError, 400 for what is no JSON, else 422."""
    try:
        request = model.model_validate_json(body)
    except ValidationError as error:
        # What was sent stays out of what is said, but for the name of an unknown field.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ServiceError(400, "no_json", f"the body is no JSON: {first['msg']}") from None
        place, message = list(first["loc"]), first["msg"]
        if first["type"] == "extra_forbidden":
            message = "this field is not known here; leave it out"
        raise ServiceError(422, "invalid", message, _path(place)) from None
    recent = [Recent(told.item, told.value, told.time) for told in request.recent or ()]
    return Question(
        request.user, request.candidates, recent, request.time, request.explain, request.augment
    )


def _path(place: list[int | str]) -> str | None:
    """Such as recent[3].item; None for the body as a whole."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part[:_MAX_NAME]}" for part in place)
    return "".join(parts).removeprefix(".") or None
