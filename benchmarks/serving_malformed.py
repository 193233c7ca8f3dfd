"""Requests that a service must refuse, drawn from a seed: mutations of good ones, and noise."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["Malformed", "malformed_requests"]

_STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    10**400,
    "",
    " ",
    "\0",
    "\ud800",
    "é" * 600,
    "x" * 5000,
    [],
    [[]],
    {},
    {"": {}},
    [None],
    ["item1", 3],
    "item1",
    "../../etc/passwd",
    "'; DROP TABLE users; --",
    "{{7*7}}",
]
_RAW = ["NaN", "Infinity", "-Infinity", "1e999", "0x10", "1.", "'x'", "undefined", '"\\ud800"']


class Malformed(NamedTuple):
    """A request as it goes over the wire. kind: what was done to it."""

    kind: str
    message: bytes


def malformed_requests(number: int, seed: int) -> Iterator[Malformed]:
    """So many requests, of all kinds in turn; some of them may be good by chance."""
    drawn = random.Random(seed)
    kinds = list(_KINDS)
    for place in range(number):
        kind = kinds[place % len(kinds)]
        yield Malformed(kind, _KINDS[kind](drawn))


def _good(drawn: random.Random) -> dict[str, Any]:
    return {
        "user": f"user{drawn.randrange(1, 400)}",
        "candidates": [f"item{drawn.randrange(1, 600)}" for _ in range(drawn.randrange(1, 9))],
        "recent": [{"item": "item3", "value": 5.0, "time": 1.9e9}],
        "time": 2e9,
        "explain": drawn.random() < 0.5,
        "augment": drawn.random() < 0.5,
    }


def _wire(body: bytes, drawn: random.Random, **changed: str) -> bytes:
    heads = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(body))}
    heads.update({name.replace("_", "-"): value for name, value in changed.items()})
    lines = [f"{name}: {value}" for name, value in heads.items()]
    return "\r\n".join(["POST /v1/ctr HTTP/1.1", *lines, "", ""]).encode("latin-1") + body


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


def _field_changed(drawn: random.Random) -> bytes:
    asked = _good(drawn)
    asked[drawn.choice(list(asked))] = drawn.choice(_STRANGE)
    return _wire(_encoded(asked), drawn)


def _field_missing(drawn: random.Random) -> bytes:
    asked = _good(drawn)
    for name in drawn.sample(list(asked), drawn.randrange(1, 4)):
        del asked[name]
    return _wire(_encoded(asked), drawn)


def _field_added(drawn: random.Random) -> bytes:
    asked = {**_good(drawn), drawn.choice(["User", "__class__", "", "x" * 99]): 1}
    return _wire(_encoded(asked), drawn)


def _inner_changed(drawn: random.Random) -> bytes:
    asked = _good(drawn)
    if drawn.random() < 0.5:
        told = dict(asked["recent"][0])
        told[drawn.choice([*told, "more"])] = drawn.choice(_STRANGE)
        asked["recent"] = [told] * drawn.choice([1, 2, 600])
    else:
        asked["candidates"] = [drawn.choice(_STRANGE) for _ in range(drawn.choice([1, 3, 1200]))]
    return _wire(_encoded(asked), drawn)


def _raw_value(drawn: random.Random) -> bytes:
    asked = _good(drawn)
    name = drawn.choice(list(asked))
    asked[name] = "@"
    return _wire(_encoded(asked).replace(b'"@"', drawn.choice(_RAW).encode()), drawn)


def _not_an_object(drawn: random.Random) -> bytes:
    return _wire(_encoded(drawn.choice(_STRANGE)), drawn)


def _cut(drawn: random.Random) -> bytes:
    body = _encoded(_good(drawn))
    return _wire(body[: drawn.randrange(len(body))], drawn)


def _bytes_changed(drawn: random.Random) -> bytes:
    body = bytearray(_encoded(_good(drawn)))
    for _ in range(drawn.randrange(1, 6)):
        body[drawn.randrange(len(body))] = drawn.randrange(256)
    return _wire(bytes(body), drawn)


def _noise(drawn: random.Random) -> bytes:
    return _wire(drawn.randbytes(drawn.choice([0, 1, 30, 3000])), drawn)


def _nested(drawn: random.Random) -> bytes:
    depth = drawn.choice([10, 1000, 100_000])
    opening, closing = drawn.choice([(b"[", b"]"), (b'{"user":', b"}")])
    return _wire(opening * depth + b"1" + closing * depth, drawn)


def _large(drawn: random.Random) -> bytes:
    return _wire(b'{"user": "' + b"x" * drawn.choice([1 << 20, 3 << 20]) + b'"}', drawn)


def _double(drawn: random.Random) -> bytes:
    body = _encoded(_good(drawn))
    return _wire(body[:-1] + b', "user": "other", "candidates": []}', drawn)


def _heads_changed(drawn: random.Random) -> bytes:
    body = _encoded(_good(drawn))
    changed = drawn.choice(
        [
            {"Content_Type": "text/plain"},
            {"Content_Type": "application/json; charset=utf-16"},
            {"Content_Type": ""},
            {"Content_Encoding": "gzip"},
            {"Content_Encoding": "br"},
            {"X_API_Key": "\xff" * 50},
            {"Content_Length": str(len(body) - 1)},
            {"Content_Length": "-5"},
            {"Content_Length": "9" * 30},
            {"Content_Length": "x"},
            {"Transfer_Encoding": "chunked"},
            {"Transfer_Encoding": "nonsense"},
            {"Expect": "100-continue"},
            {"X_Long": "y" * 100_000},
        ]
    )
    return _wire(body, drawn, **changed)


def _path_changed(drawn: random.Random) -> bytes:
    method = drawn.choice(["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "POST"])
    path = drawn.choice(["/v1/ctr", "/v1/ctr/", "/v1", "/../v1/ctr", "/%00", "/metrics", "//", "*"])
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()


def _no_http(drawn: random.Random) -> bytes:
    lines = [b"GET\r\n\r\n", b"POST /v1/ctr\r\n\r\n", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0"]
    return drawn.choice([*lines, drawn.randbytes(40)]) + b"\r\n\r\n"


_KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "a field of another kind": _field_changed,
    "a field missing": _field_missing,
    "a field added": _field_added,
    "an element of another kind, or too many": _inner_changed,
    "a number that JSON does not have": _raw_value,
    "no object": _not_an_object,
    "JSON cut off": _cut,
    "bytes changed": _bytes_changed,
    "noise": _noise,
    "deep nesting": _nested,
    "a large body": _large,
    "a field twice": _double,
    "strange headers": _heads_changed,
    "another path or method": _path_changed,
    "no HTTP": _no_http,
}
