"""The command: a process that answers, keeps its limits, and stops without dropping a request."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from recbole_mars.serving.__main__ import main
from recbole_mars.serving.stores import LMDBStore, RedisStore

BODY = json.dumps({"user": "person6", "candidates": ["item3", "item1"]}).encode()
HEAD = b"POST /v1/ctr HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HOST = "127.0.0.1"


class Process:
    """`serve` on a free port, and the lines of its log."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "recbole_mars.serving", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        (self.port,) = self.wait_for_line(r"running on http://127\.0\.0\.1:(\d+)")
        while self.request("GET", "/readyz")[0] != 200:
            time.sleep(0.02)

    def _read(self):
        for line in self.process.stderr:
            self.lines.put(line)
        self.lines.put("")

    def wait_for_line(self, pattern):
        seen = []
        while True:
            seen.append(self.lines.get(timeout=60))
            if found := re.search(pattern, seen[-1]):
                return found.groups()
            assert seen[-1], "".join(seen)

    def request(self, method, path, **options):
        connection = http.client.HTTPConnection(HOST, int(self.port), timeout=30)
        connection.request(method, path, **options)
        response = connection.getresponse()
        return response.status, response.read()

    def takes_connections(self):
        try:
            self.connect(b"").close()
        except ConnectionRefusedError:
            return False
        return True

    def connect(self, sent):
        found = socket.create_connection((HOST, int(self.port)), timeout=30)
        found.sendall(sent)
        return found


@pytest.fixture
def lmdb(tmp_path, store):
    folder = tmp_path / "store"
    with LMDBStore(folder) as filled:
        filled.put_many(store.pairs)
    return folder


@pytest.fixture
def start(publish, snapshots, lmdb):
    started = []

    def start(*arguments):
        publish(1)
        started.append(Process("--snapshots", snapshots.root, "--store", lmdb, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def answered(connection):
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def test_connections_that_say_nothing_are_closed(start):
    """Or half of a request's head, however its bytes trickle in; who has asked may pause."""
    process = start("--head-seconds", 2)
    kept = http.client.HTTPConnection(HOST, int(process.port), timeout=30)
    kept.request("GET", "/readyz")
    assert kept.getresponse().read()
    begun = time.monotonic()
    with process.connect(b"") as silent, process.connect(HEAD) as half:
        while time.monotonic() < begun + 1.5:
            half.sendall(b"x")
            time.sleep(0.1)
        assert silent.recv(1) == b""
        with contextlib.suppress(ConnectionResetError):
            assert half.recv(1) == b""
    assert 1.5 < time.monotonic() - begun < 20
    time.sleep(2.5)
    kept.request("POST", "/v1/ctr", BODY, {"Content-Type": "application/json"})
    assert answered(kept.sock)[0] == 200
    for _ in range(3):  # a head in two pieces, on a connection that was used
        kept.sock.sendall(HEAD)
        time.sleep(0.2)
        kept.sock.sendall(b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert answered(kept.sock)[0] == 200


def test_what_is_answered_before_its_body_came_holds_no_connection(start):
    """Its answer arrives all the same, and who sends the rest in time may go on."""
    process = start("--head-seconds", 2)
    plain = HEAD.replace(b"application/json", b"text/plain")
    sized = plain + b"Content-Length: %d\r\n\r\n"
    begun = time.monotonic()
    with process.connect(sized % 5000) as slow, process.connect(sized % 9) as good:
        for connection in (slow, good):
            assert answered(connection)[0] == 415
        good.sendall(b"x" * 9 + HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert answered(good)[0] == 200
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < begun + 20:
                slow.sendall(b"x")
                time.sleep(0.1)
        assert 1.5 < time.monotonic() - begun < 15
        good.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert answered(good)[0] == 200
    size = 20 << 20
    with process.connect(HEAD + b"Content-Length: %d\r\n\r\n" % size) as large:
        large.sendall(b" " * size)
        assert answered(large)[0] == 413


def test_sigterm_lets_a_running_request_finish(start):
    process = start("--seconds", 25)
    with process.connect(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:9]) as running:
        while b"running_requests 1.0" not in process.request("GET", "/metrics")[1]:
            time.sleep(0.02)
        process.process.send_signal(signal.SIGTERM)
        while process.takes_connections():
            time.sleep(0.02)
        assert process.process.poll() is None
        running.sendall(BODY[9:])
        status, told = answered(running)
    assert status == 200
    assert [each["item"] for each in told["predictions"]] == ["item3", "item1"]
    assert told["augmented"] is True
    assert process.process.wait(30) == 0
    logged = [json.loads(line) for line in iter(process.lines.get, "")]
    assert [line["status"] for line in logged if line.get("path") == "/v1/ctr"] == [200]
    assert "person6" not in json.dumps(logged)


def test_the_process_keeps_its_limits(start, tmp_path):
    key = tmp_path / "key"
    key.write_text("geheim\n")
    process = start("--api-key-file", key, "--max-body-bytes", 300, "--seconds", 1)
    headers = {"Content-Type": "application/json", "X-API-Key": "geheim"}
    assert process.request("POST", "/v1/ctr", body=BODY, headers=headers)[0] == 200
    assert process.request("POST", "/v1/ctr", body=BODY)[0] == 401
    chunks = iter([BODY, b" " * 300])  # sent in chunks, without a length
    assert process.request("POST", "/v1/ctr", body=chunks, headers=headers)[0] == 413
    chunks = iter([BODY[:5], BODY[5:]])
    assert process.request("POST", "/v1/ctr", body=chunks, headers=headers)[0] == 200
    slow = HEAD + b"X-API-Key: geheim\r\nContent-Length: 50\r\n\r\n{"
    with process.connect(slow) as connection:
        status, told = answered(connection)
        assert (status, told["error"]["code"]) == (408, "slow_body")
    with process.connect(slow):
        pass  # gone before its body came
    with process.connect(b"\x00\xffno http at all\r\n\r\n") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    assert process.request("POST", "/v1/ctr", body=BODY, headers=headers)[0] == 200
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(30) == 0
    lines = [*iter(process.lines.get, "")]
    logged = [json.loads(line) for line in lines]
    statuses = [told["status"] for told in logged if told.get("path") == "/v1/ctr"]
    assert sorted(statuses) == [200, 200, 200, 400, 401, 408, 413]
    assert all(told["level"] in ("info", "warning") for told in logged)
    assert "geheim" not in "".join(lines)


def test_a_redis_that_hangs_is_left_out_in_time(publish, snapshots, store, own_redis):
    """By the default limits of both: whoever asks waits for neither."""
    publish(1)
    with RedisStore(own_redis.address) as filled:
        filled.put_many(store.pairs)
    process = Process("--snapshots", snapshots.root, "--store", own_redis.address)
    headers = {"Content-Type": "application/json"}

    def ask():
        status, body = process.request("POST", "/v1/ctr", body=BODY, headers=headers)
        assert status == 200, body
        return json.loads(body)

    try:
        assert ask()["degraded"] == []
        own_redis.process.send_signal(signal.SIGSTOP)
        answers = [ask() for _ in range(3)]
        assert [(told["degraded"], told["user_known"]) for told in answers] == [
            (["store"], None)
        ] * 3
        own_redis.process.send_signal(signal.SIGCONT)
        until = time.monotonic() + 20
        while ask()["degraded"]:
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
        process.process.kill()
        process.process.wait()


@pytest.mark.parametrize(
    ("more", "seconds"),
    [([], 0.25), (["--seconds", "0.4"], 0.1), (["--seconds", "60"], 5.0)],
)
def test_a_store_has_a_part_of_a_requests_time(more, seconds, monkeypatch, tmp_path):
    found = []

    class Seen(Exception):
        pass

    def opened(address, **options):
        found.append((address, options))
        raise Seen

    monkeypatch.setattr("recbole_mars.serving.stores.open_store", opened)
    monkeypatch.setattr("recbole_mars.serving.service.logs.log_to_stderr", lambda level: None)
    with pytest.raises(Seen):
        main(["serve", "--snapshots", str(tmp_path), "--store", "x", "--port", "0", *more])
    assert found == [("x", {"read_only": True, "timeout": seconds})]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--snapshots"),
        (["--snapshots", "file", "--store", "x"], "file must be a folder of snapshots, is a file"),
        (["--snapshots", "s", "--store", "nowhere"], "nowhere is not there"),
        (["--snapshots", "s", "--store", "what:ever"], "address must be"),
        (["--snapshots", "s", "--store", "x", "--concurrency", "0"], "concurrency must be >= 1"),
        (["--snapshots", "s", "--store", "x", "--api-key-file", "none"], "--api-key-file none"),
        (["--snapshots", "s", "--store", "x", "--api-key-file", "key"], "no text in UTF-8"),
        (["--snapshots", "s", "--store", "x", "--port", "70000"], "--port 70000 cannot be"),
        (["--snapshots", "s", "--store", "x", "--api-key-file", "/dev/null"], "api_key"),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "key").write_bytes(b"\xff")
    monkeypatch.setattr("recbole_mars.serving.service.logs.log_to_stderr", lambda level: None)
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "serve" in capsys.readouterr().out
