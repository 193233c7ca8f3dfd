"""Every limit of the service, and malformed requests in numbers."""

from __future__ import annotations

import json
import logging
import random
import threading
import time

import pytest

from recbole_mars.serving.service.logs import JSONFormatter

BODY = {"user": "person6", "candidates": ["item3", "item1"]}
JSON = {"Content-Type": "application/json"}
RECENT = {"item": "item1", "value": 1.0, "time": 1.0}


def error(response, status, code, field=None):
    """Check that this is what was answered, in the one form of errors; returns the message."""
    assert response.status_code == status, response.text
    told = response.json()
    assert set(told) == {"error"}
    assert set(told["error"]) == {"code", "message", "field"}
    assert (told["error"]["code"], told["error"]["field"]) == (code, field)
    return told["error"]["message"]


@pytest.fixture
def client(serve, publish):
    publish(1)
    return serve(max_body_bytes=2000, max_candidates=5, max_recent=3, poll_seconds=60)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"user": ""}, "user"),
        ({"user": 5}, "user"),
        ({"user": None}, "user"),
        ({"user": "x" * 510}, "user"),
        ({"user": "€" * 170}, "user"),  # 510 bytes
        ({"candidates": []}, "candidates"),
        ({"candidates": "item1"}, "candidates"),
        ({"candidates": ["item1"] * 6}, "candidates"),
        ({"candidates": ["item1", 3]}, "candidates[1]"),
        ({"candidates": ["item1", ""]}, "candidates[1]"),
        ({"recent": [RECENT] * 4}, "recent"),
        ({"recent": [RECENT, {**RECENT, "value": "5"}]}, "recent[1].value"),
        ({"recent": [{**RECENT, "value": True}]}, "recent[0].value"),
        ({"recent": [{**RECENT, "value": 2e6}]}, "recent[0].value"),
        ({"recent": [{**RECENT, "time": float("nan")}]}, "recent[0].time"),
        ({"recent": [{**RECENT, "time": float("-inf")}]}, "recent[0].time"),
        ({"recent": [{"item": "item1", "value": 1.0}]}, "recent[0].time"),
        ({"recent": [{**RECENT, "extra": 1.0}]}, "recent[0].extra"),
        ({"recent": {}}, "recent"),
        ({"time": "now"}, "time"),
        ({"time": float("inf")}, "time"),
        ({"explain": 1}, "explain"),
        ({"augment": "no"}, "augment"),
        ({"another": 1}, "another"),
        ({"x" * 500: 1}, "x" * 100),
    ],
)
def test_fields_out_of_their_limits_are_named(client, changes, field):
    response = client.post("/v1/ctr", content=json.dumps({**BODY, **changes}), headers=JSON)
    error(response, 422, "invalid", field)


def test_the_limits_themselves_are_allowed(client):
    asked = {
        "user": "€" * 169 + "xx",  # 509 bytes
        "candidates": ["item1"] * 5,
        "recent": [{**RECENT, "value": 1e6, "time": -1e18}] * 3,
        "time": 1e18,
    }
    response = client.post("/v1/ctr", json=asked)
    assert response.status_code == 200, response.text
    nothing = {**BODY, "recent": None, "time": None}
    assert client.post("/v1/ctr", json=nothing).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b'{"user": "a"', b"\xff\xfe", b"[" * 1500, b"nul"])
def test_what_is_no_json_is_400(client, body):
    error(client.post("/v1/ctr", content=body, headers=JSON), 400, "no_json")


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"text"'])
def test_json_that_is_no_object_is_422(client, body):
    error(client.post("/v1/ctr", content=body, headers=JSON), 422, "invalid")


def test_half_a_character_is_no_name(client):
    body = b'{"user": "\\ud800", "candidates": ["item1"]}'
    response = client.post("/v1/ctr", content=body, headers=JSON)
    assert response.status_code in (400, 422)
    assert response.json()["error"]["message"]


def test_bodies_that_are_too_large_are_413(client):
    padded = json.dumps(BODY).encode().ljust(2000)
    assert client.post("/v1/ctr", content=padded, headers=JSON).status_code == 200
    error(client.post("/v1/ctr", content=padded + b" ", headers=JSON), 413, "too_large")
    error(client.post("/v1/ctr", content=iter([padded, b" "]), headers=JSON), 413, "too_large")
    small = {**JSON, "Content-Length": "5"}
    error(client.post("/v1/ctr", content=padded + b" ", headers=small), 413, "too_large")
    huge = {**JSON, "Content-Length": "9" * 5000}
    error(client.post("/v1/ctr", content=b"{}", headers=huge), 413, "too_large")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        {"Content-Type": "application/json-patch"},
        {**JSON, "Content-Encoding": "gzip"},
    ],
)
def test_other_content_is_415(client, headers):
    response = client.post("/v1/ctr", content=json.dumps(BODY), headers=headers)
    assert response.status_code == 415
    assert response.json()["error"]["message"]


def test_json_may_name_its_charset(client):
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    response = client.post("/v1/ctr", content=json.dumps(BODY), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/ctr", 405), ("GET", "/x", 404)]
)
def test_other_paths_and_methods_are_refused(client, method, path, status):
    error(client.request(method, path), status, "refused")


def test_the_key_opens_all_but_the_probes(serve, publish):
    publish(1)
    client = serve(api_key="schlüssel")
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    good = {"X-API-Key": "schlüssel".encode()}
    for path in ("/metrics", "/docs", "/openapi.json", "/x"):
        error(client.get(path), 401, "no_key")
        assert client.get(path, headers=good).status_code in (200, 404)
    for wrong in ({}, {"X-API-Key": ""}, {"X-API-Key": "schl"}, {"X-API-Key": b"\xff\xfe"}):
        response = client.post("/v1/ctr", content=b"{", headers={**JSON, **wrong})
        error(response, 401, "no_key")
        assert "schl" not in response.text
    twice = [("X-API-Key", good["X-API-Key"])] * 2
    error(client.get("/metrics", headers=twice), 401, "no_key")
    assert client.post("/v1/ctr", json=BODY, headers=good).status_code == 200


class Asking(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, client):
        super().__init__()
        self.client = client
        self.start()

    def run(self):
        self.response = self.client.post("/v1/ctr", json=BODY)

    def answered(self):
        self.join(30)
        return self.response


def wait_for(condition):
    while not condition():
        time.sleep(0.002)


def test_more_requests_at_once_are_429(serve, publish, store):
    publish(1)
    client = serve(concurrency=2, preparing_threads=2)
    store.gate.clear()
    running = [Asking(client) for _ in range(2)]
    wait_for(lambda: store.asked == 2)
    response = client.post("/v1/ctr", json=BODY)
    error(response, 429, "too_many")
    assert response.headers["retry-after"] == "1"
    assert client.get("/healthz").status_code == 200
    store.gate.set()
    assert [each.answered().status_code for each in running] == [200, 200]
    assert client.post("/v1/ctr", json=BODY).status_code == 200


def test_a_full_queue_is_503(serve, publish, store):
    publish(1)
    client = serve(queue=1)
    store.gate.clear()
    running = Asking(client)
    wait_for(lambda: store.asked == 1)
    response = client.post("/v1/ctr", json=BODY)
    error(response, 503, "queue_full")
    assert response.headers["retry-after"] == "1"
    store.gate.set()
    assert running.answered().status_code == 200


def test_what_takes_too_long_is_504_and_holds_no_place(serve, publish, store):
    publish(1)
    client = serve(seconds=0.2, concurrency=1, preparing_threads=1)
    store.gate.clear()
    error(client.post("/v1/ctr", json=BODY), 504, "too_late")
    store.gate.set()
    wait_for(lambda: client.post("/v1/ctr", json=BODY).status_code == 200)


WORDS = [
    None,
    True,
    False,
    0,
    -1,
    1e308,
    10**30,
    0.5,
    "",
    "person6",
    "item3",
    "\u0000",
    "💥",
    [],
    {},
]


def malformed(rng):
    """A body of JSON or not: one that is right, changed in some places."""
    body = {
        "user": "person6",
        "candidates": ["item3", "item1"],
        "recent": [{"item": "item2", "value": 4, "time": 50.0}],
        "time": 60,
        "explain": rng.random() < 0.3,
        "augment": rng.random() < 0.8,
    }
    for _ in range(rng.randrange(3)):
        recent = body.get("recent")
        inner = recent[0] if isinstance(recent, list) and recent else None
        place = inner if isinstance(inner, dict) and rng.random() < 0.3 else body
        name = rng.choice([*place, "other", "", "__class__"])
        if rng.random() < 0.3:
            place.pop(name, None)
        else:
            value = rng.choice(WORDS)
            place[name] = rng.choice([value, [value] * rng.randrange(9), {"item": value}])
    text = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode()
    if rng.random() < 0.4:
        raw = bytearray(text)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(raw))
            how = rng.randrange(3)
            if how == 0:
                raw[at] = rng.randrange(256)
            elif how == 1:
                del raw[at : at + rng.randrange(1, 30)]
                raw += b" "
            else:
                raw[at:at] = rng.choice([b"NaN", b"1e999", b"\\ud800", b'"', b"[[[[", b"\x00"])
        text = bytes(raw)
    return text


def test_malformed_requests_are_never_the_services_fault(client, caplog):
    caplog.set_level(logging.DEBUG)
    rng = random.Random(20)
    statuses = {}
    for _ in range(2000):
        headers = dict(JSON)
        if rng.random() < 0.05:
            headers["Content-Type"] = rng.choice(["", "text/html", "\x00", "application/json;;;"])
        if rng.random() < 0.05:
            headers["X-API-Key"] = "geheim"
        method = rng.choice(["POST"] * 30 + ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
        path = rng.choice(
            ["/v1/ctr"] * 30 + ["/v1/ctr/", "/v1", "/%00", "/metrics?x=person6", "//"]
        )
        body = malformed(rng)
        response = client.request(method, path, content=body, headers=headers)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        assert response.status_code < 500, body
        if response.status_code == 200 or method == "HEAD":
            continue
        assert "Traceback" not in response.text
        assert "person" not in response.text, body
        told = response.json()["error"]
        assert error(response, response.status_code, told["code"], told["field"])
    assert set(statuses) >= {200, 400, 404, 405, 415, 422}
    assert statuses[200] > 100
    assert statuses[422] > 100
    lines = [
        JSONFormatter().format(record)
        for record in caplog.records
        if record.name.startswith("recbole_mars")
    ]
    assert len(lines) >= 2000
    assert not any("person" in line or "Traceback" in line for line in lines)
    assert client.post("/v1/ctr", json=BODY).status_code == 200
