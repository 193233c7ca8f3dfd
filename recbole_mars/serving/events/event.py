"""An interaction on its way from the service to training."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["MAX_JSON_BYTES", "MAX_TOKEN_BYTES", "Event"]

MAX_TOKEN_BYTES = 509  # a token and a prefix of two bytes are a store's key
# Two tokens of the longest, each byte written as an escape of six, and the rest.
MAX_JSON_BYTES = 10_000
_GREATEST = 1e30  # of values, which are kept in float32


@dataclass(frozen=True)
class Event:
    """One interaction of a user with an item.

    user, item: tokens of 1 to 509 bytes in UTF-8. value: the label 0 or 1, or a rating. time:
    as in the log that the model was trained on, its unit and clock. A user's event on the same item
    at the same time is the same one, told again: a producer that is unsure sends it once more.

    Raises ValueError, naming the field but never a content, for anything else.
    """

    user: str
    item: str
    value: float
    time: float

    def __post_init__(self) -> None:
        for name in ("user", "item"):
            _check_token(name, getattr(self, name))
        for name in ("value", "time"):
            object.__setattr__(self, name, _finite(name, getattr(self, name)))
        if abs(self.value) > _GREATEST:
            raise ValueError(f"value must lie in {-_GREATEST:g}..{_GREATEST:g}, got more")

    @classmethod
    def from_json(cls, text: str | bytes) -> Event:
        """Read an object of these fields."""
        if len(text) > MAX_JSON_BYTES:
            raise ValueError(f"event must have at most {MAX_JSON_BYTES} bytes, got {len(text)}")
        try:
            if isinstance(text, bytes):
                text = text.decode("utf-8")
            read = json.loads(text, object_pairs_hook=_without_doubles)
        except RecursionError:
            raise ValueError("event must be a flat JSON object, got one that is nested") from None
        except ValueError as error:
            # A decoding error's message can hold what was decoded.
            reason = error if type(error) is ValueError else type(error).__name__
            raise ValueError(f"event must be a JSON object in UTF-8: {reason}") from None
        if not isinstance(read, dict):
            raise ValueError(f"event must be a JSON object, got {type(read).__name__}")
        known = {field.name for field in fields(cls)}
        missing = sorted(known - set(read))
        if missing or not set(read) <= known:
            raise ValueError(
                f"event must have the fields {sorted(known)} and no others, got"
                f" {len(set(read) - known)} unknown ones, and none of {missing}"
            )
        return cls(**read)

    def to_json(self) -> str:
        """The event as one line of ASCII, which `from_json` reads back to an equal event."""
        content: dict[str, Any] = {
            "user": self.user,
            "item": self.item,
            "value": self.value,
            "time": self.time,
        }
        return json.dumps(content, separators=(",", ":"))


def _check_token(name: str, token: Any) -> None:
    if not isinstance(token, str):
        raise ValueError(f"{name} must be text, got {type(token).__name__}")
    try:
        size = len(token.encode())
    except UnicodeEncodeError:
        message = f"{name} must be text that UTF-8 can hold, got half a surrogate pair"
        raise ValueError(message) from None
    if not 0 < size <= MAX_TOKEN_BYTES:
        raise ValueError(f"{name} must have 1 to {MAX_TOKEN_BYTES} bytes in UTF-8, got {size}")


def _finite(name: str, number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ValueError(f"{name} must be a number, got {type(number).__name__}")
    try:
        converted = float(number)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted):
        raise ValueError(f"{name} must be finite, got one that is not")
    return converted + 0.0  # -0.0 becomes 0.0: equal events have equal keys


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("a field stands there twice")
    return read
