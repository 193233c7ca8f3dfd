"""Events: what is one, and its JSON."""

from __future__ import annotations

import json

import pytest

from recbole_mars.serving.events import Event
from recbole_mars.serving.events.event import MAX_JSON_BYTES

EVENT = Event("ann", "film 7", 1, 978300760.5)


def changed(**fields) -> dict:
    return {**json.loads(EVENT.to_json()), **fields}


def test_json_is_read_back():
    for event in (
        EVENT,
        Event("u", "i", 3.5, -1e-3),
        Event("käthe\u2028", "\U0001f600\t\n", 0, 1e300),
    ):
        line = event.to_json()
        assert line.isascii()
        assert "\n" not in line
        assert Event.from_json(line) == event
        assert Event.from_json(line.encode()) == event


def test_json_by_hand():
    assert EVENT.to_json() == ('{"user":"ann","item":"film 7","value":1.0,"time":978300760.5}')
    read = Event.from_json(b' {"time": 5, "item": "i", "user": "\xc3\xa4", "value": 0}\n')
    assert read == Event("ä", "i", 0.0, 5.0)
    assert isinstance(read.time, float)


def test_longest_event_is_read_back():
    longest = Event("\U0001f600" * 127, "\x01" * 509, 0.1, 0.1)
    assert len(longest.to_json()) <= MAX_JSON_BYTES
    assert Event.from_json(longest.to_json()) == longest


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"user": ""}, "user must have 1 to 509 bytes in UTF-8, got 0"),
        ({"item": "secret" * 200}, "item must have 1 to 509 bytes in UTF-8, got 1200"),
        ({"user": 7}, "user must be text, got int"),
        ({"item": None}, "item must be text, got NoneType"),
        ({"user": "secret\ud800"}, "user must be text that UTF-8 can hold"),
        ({"value": True}, "value must be a number, got bool"),
        ({"value": "1"}, "value must be a number, got str"),
        ({"time": None}, "time must be a number, got NoneType"),
        ({"time": [1]}, "time must be a number, got list"),
        ({"time": 10**400}, "time must be finite"),
        ({"time": float("inf")}, "time must be finite"),
        ({"value": float("nan")}, "value must be finite"),
        ({"value": -1e31}, r"value must lie in -1e\+30..1e\+30"),
        ({"secret": 1}, "got 1 unknown ones"),
    ],
)
def test_other_contents_are_refused_without_being_shown(fields, found):
    with pytest.raises(ValueError, match=found) as caught:
        Event.from_json(json.dumps(changed(**fields)))
    assert "secret" not in str(caught.value)
    if "secret" not in fields:
        with pytest.raises(ValueError, match=found):
            Event(**changed(**fields))


@pytest.mark.parametrize("name", ["user", "item", "value", "time"])
def test_missing_field_is_named(name):
    content = changed()
    del content[name]
    with pytest.raises(ValueError, match=rf"none of \['{name}'\]"):
        Event.from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", "must be a JSON object in UTF-8: JSONDecodeError"),
        (b"secret", "JSONDecodeError"),
        (b"\xff\xfe{}", "UnicodeDecodeError"),
        (b'"secret"', "must be a JSON object, got str"),
        (b"[]", "got list"),
        (b"null", "got NoneType"),
        (b'{"user":"secret","user":"u","item":"i","value":1,"time":1}', "stands there twice"),
        (b"[" * 9_000, "must be a flat JSON object"),
        (b'{"user":' * 1200, "must be a"),
        (b'{"value":' + b"9" * 9_000 + b"}", "must "),
        (b" " * (MAX_JSON_BYTES + 1), f"at most {MAX_JSON_BYTES} bytes, got"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value[:12]),
)
def test_other_texts_are_refused_without_being_shown(text, found):
    for form in (text, text.decode("latin-1")):
        if form == text or text.isascii():
            with pytest.raises(ValueError, match=found) as caught:
                Event.from_json(form)
            assert "secret" not in str(caught.value)
