"""The service over HTTP: answers, health, metrics, logs, and new snapshots under load."""

from __future__ import annotations

import json
import logging
import re
import threading
import time

import numpy as np
import pytest

from recbole_mars.serving import Request
from recbole_mars.serving.service.logs import JSONFormatter

BODY = {"user": "person6", "candidates": ["item3", "item1", "no such item"]}


def metric(client, metric_name, **labels):
    """The value of a metric, None if it is not there."""
    told = "".join(rf'(?=[^}}]*{key}="{re.escape(value)}")' for key, value in labels.items())
    pattern = rf"^recbole_mars_{metric_name}{told}(?:\{{[^}}]*\}})? (\S+)$"
    found = re.search(pattern, client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else None


def probabilities(response):
    assert response.status_code == 200, response.text
    return [told["probability"] for told in response.json()["predictions"]]


def test_answers_are_the_scorers(serve, publish, scorers, records):
    publish(1)
    client = serve()
    response = client.post("/v1/ctr", json=BODY)
    request = Request("person6", records["person6"], np.array([3, 1, 0]))
    expected = scorers(1).score([scorers(1).prepare(request)])[0]
    np.testing.assert_allclose(probabilities(response), expected, atol=1e-6)
    told = response.json()
    assert [each["item"] for each in told.pop("predictions")] == BODY["candidates"]
    assert told == {
        "snapshot": "00000001",
        "user_known": True,
        "augmented": True,
        "degraded": [],
        "recent_ignored": 0,
        "explanation": None,
    }
    assert response.headers["content-type"] == "application/json"


def test_all_that_can_be_asked_reaches_the_engine(serve, publish):
    publish(1)
    client = serve()
    plain = probabilities(client.post("/v1/ctr", json={**BODY, "augment": False}))
    assert plain != probabilities(client.post("/v1/ctr", json=BODY))
    recent = [
        {"item": "item9", "value": 5, "time": 99},
        {"item": "strange", "value": 1.5, "time": 98.5},
    ]
    asked = {**BODY, "recent": recent, "time": 100, "explain": True, "augment": True}
    told = client.post("/v1/ctr", json=asked).json()
    assert told["recent_ignored"] == 1
    assert told["explanation"]["history_length"] == 4
    assert [near["user"][:6] for near in told["explanation"]["neighbours"]] == ["person"] * 3
    assert set(told["explanation"]["added"][0]) == {"item", "liked", "similarity", "donor"}
    unknown = client.post("/v1/ctr", json={**BODY, "user": "nobody"}).json()
    assert unknown["user_known"] is False
    assert [each["known"] for each in unknown["predictions"]] == [True, True, False]


def test_what_fails_is_left_out_and_named(serve, publish, store):
    publish(1)
    client = serve()
    store.fails = True
    told = client.post("/v1/ctr", json=BODY).json()
    assert (told["degraded"], told["user_known"], told["augmented"]) == (["store"], None, False)
    assert metric(client, "degraded_total", part="store") == 1
    store.fails = False
    while client.post("/v1/ctr", json=BODY).json()["degraded"]:
        time.sleep(0.001)


def test_readiness_follows_the_first_snapshot(serve, publish):
    client = serve(ready=False)
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "not_ready")
    asked = client.post("/v1/ctr", json=BODY)
    assert (asked.status_code, asked.headers["retry-after"]) == (503, "1")
    publish(1)
    while client.get("/readyz").status_code == 503:
        time.sleep(0.005)
    assert client.get("/readyz").json() == {"status": "ok", "snapshot": "00000001"}
    assert client.post("/v1/ctr", json=BODY).status_code == 200


def test_metrics_tell_what_happened(serve, publish, snapshots):
    publish(1)
    client = serve()
    client.post("/v1/ctr", json=BODY)
    client.post("/v1/ctr", json={**BODY, "user": "nobody"})
    client.post("/v1/ctr", json={"user": "nobody"})
    client.get("/no/such/path/person6")
    for name, labels, value in (
        ("requests_total", {"path": "/v1/ctr", "status": "200"}, 2),
        ("requests_total", {"path": "/v1/ctr", "status": "422"}, 1),
        ("requests_total", {"path": "other", "status": "404"}, 1),
        ("request_seconds_count", {}, 3),
        ("batch_requests_sum", {}, 2),
        ("candidates_total", {}, 6),
        ("unknown_items_total", {}, 2),
        ("unknown_users_total", {}, 1),
        ("augmented_total", {}, 1),
        ("degraded_total", {"part": "store"}, 0),
        ("reloads_total", {"outcome": "loaded"}, 1),
        ("reloads_total", {"outcome": "refused"}, 0),
        ("snapshot", {"name": "00000001"}, 1),
        ("running_requests", {}, 0),
        ("queue_length", {}, 0),
    ):
        assert metric(client, name, **labels) == value, name
    assert 0 <= metric(client, "snapshot_age_seconds") < 600
    publish(2)
    while not metric(client, "snapshot", name="00000002"):
        time.sleep(0.005)
    assert metric(client, "snapshot", name="00000001") is None
    snapshots.publish(lambda folder: (folder / "file").write_text("no model") and {})
    while not metric(client, "reloads_total", outcome="refused"):
        time.sleep(0.005)
    assert metric(client, "snapshot", name="00000002") == 1
    assert "person6" not in client.get("/metrics").text


def test_logs_are_json_without_what_users_sent(serve, publish, caplog):
    publish(1)
    caplog.set_level(logging.INFO)
    client = serve()
    caplog.clear()
    response = client.post("/v1/ctr", json={**BODY, "explain": True})
    client.post("/v1/ctr", json={"user": "person6", "item9": 1})
    client.get("/person6")
    lines = [
        json.loads(JSONFormatter().format(record))
        for record in caplog.records
        if record.name.startswith("recbole_mars")
    ]
    assert [(line["path"], line["status"]) for line in lines] == [
        ("/v1/ctr", 200),
        ("/v1/ctr", 422),
        ("other", 404),
    ]
    first = lines[0]
    assert first["id"] == response.headers["x-request-id"]
    assert 0 < first["seconds"] < 20
    told = {key: first[key] for key in ("candidates", "augmented", "degraded", "snapshot")}
    assert told == {"candidates": 3, "augmented": True, "degraded": [], "snapshot": "00000001"}
    assert lines[1]["error"] == "invalid"
    for private in ("person", "item"):
        assert private not in json.dumps(lines)


def test_failures_have_an_id_that_is_in_the_log(serve, publish, caplog, monkeypatch):
    publish(1)
    client = serve()
    engine_kind = client.app.state.engine.__class__

    def fail(self, question):
        raise LookupError(f"private: {question.user}")

    monkeypatch.setattr(engine_kind, "pose", fail)
    response = client.post("/v1/ctr", json=BODY)
    assert response.status_code == 500
    name = response.headers["x-request-id"]
    assert name in response.json()["error"]["message"]
    (record,) = (r for r in caplog.records if r.levelno == logging.ERROR)
    line = json.loads(JSONFormatter().format(record))
    assert (line["id"], line["error"]) == (name, "LookupError")
    assert any("in fail" in place or " fail" in place for place in line["where"])
    for text in (response.text, json.dumps(line)):
        assert "person6" not in text
    assert "LookupError" not in response.text
    assert metric(client, "requests_total", path="/v1/ctr", status="500") == 1


def test_snapshots_are_exchanged_under_load_without_a_failed_request(
    serve, publish, scorers, records
):
    publish(1)
    client = serve()
    stop = threading.Event()
    answers, failures = [], []

    def ask():
        while not stop.is_set():
            response = client.post("/v1/ctr", json=BODY)
            if response.status_code != 200:
                failures.append(response.text)
                return
            told = response.json()
            answers.append((told["snapshot"], [p["probability"] for p in told["predictions"]]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for seed in (2, 3, 4):
        name = publish(seed)
        while client.get("/readyz").json()["snapshot"] != name:
            time.sleep(0.005)
    counted = len(answers)
    while len(answers) < counted + 8 and not failures:
        time.sleep(0.005)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert {name for name, _ in answers} >= {"00000001", "00000004"}
    request = Request("person6", records["person6"], np.array([3, 1, 0]))
    expected = {
        f"0000000{seed}": scorers(seed).score([scorers(seed).prepare(request)])[0]
        for seed in (1, 2, 3, 4)
    }
    for name, found in answers:
        np.testing.assert_allclose(found, expected[name], atol=1e-6)


def test_a_damaged_snapshot_is_passed_over(serve, publish, snapshots):
    publish(1)
    client = serve()
    before = probabilities(client.post("/v1/ctr", json=BODY))
    name = publish(2)
    # The service may load the new version before it is damaged, so the older one is chosen.
    while client.get("/readyz").json()["snapshot"] != name:
        time.sleep(0.005)
    path = snapshots.root / "00000001" / "model" / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    (snapshots.root / "CURRENT").write_text("00000001\n")
    while not metric(client, "reloads_total", outcome="refused"):
        time.sleep(0.005)
    response = client.post("/v1/ctr", json=BODY)
    assert response.json()["snapshot"] == name
    assert probabilities(response) != before


def test_the_documentation_needs_nothing_from_elsewhere(serve, publish):
    publish(1)
    client = serve(max_candidates=17, max_recent=5, api_key="geheim")
    key = {"X-API-Key": "geheim"}
    document = client.get("/openapi.json", headers=key).json()
    asked = document["paths"]["/v1/ctr"]["post"]
    reference = asked["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert reference == "#/components/schemas/CTRRequest"
    schemas = document["components"]["schemas"]
    fields = schemas["CTRRequest"]["properties"]
    assert fields["candidates"]["maxItems"] == 17
    assert fields["recent"]["anyOf"][0]["maxItems"] == 5
    assert set(asked["responses"]) >= {"200", "400", "401", "413", "415", "422", "429", "503"}
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in schemas
    page = client.get("/docs", headers=key).text
    assert "POST /v1/ctr" in page
    assert "RecentBehaviour" in page
    assert "geheim" not in page
    assert not re.search(r"<script|https?://|src=|@import", page)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"])
def test_only_scoring_takes_a_body(serve, publish, path):
    publish(1)
    client = serve()
    assert client.get(path).status_code == 200
    response = client.post(path, json=BODY)
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "refused"
