"""`enqueue`: files and streams of interactions into a queue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recbole_mars.serving.__main__ import main
from recbole_mars.serving.commands import enqueue
from recbole_mars.serving.events import Event, LocalLog

GOOD = [Event(f"u{n}", "Amélie", float(n % 5), 10.0 * n) for n in range(7)]


def queued(folder: Path) -> list[Event]:
    with LocalLog(folder) as queue:
        return [event for _, event in queue.read(None, 100)]


def lines(events: list[Event]) -> bytes:
    return "".join(event.to_json() + "\n" for event in events).encode()


def put(file: Path, log: Path) -> None:
    main(["enqueue", str(file), "--events", str(log)])


@pytest.mark.parametrize(
    "content",
    [
        lines(GOOD),
        lines(GOOD)[:-1],
        b"\xef\xbb\xbf" + lines(GOOD),
        lines(GOOD).replace(b"\n", b"\r\n\r\n"),
        json.dumps({"user": "u0", "item": "Am\u00e9lie", "value": 0, "time": 0}).encode()
        + b"\n"
        + lines(GOOD[1:]),
    ],
)
def test_json_lines(tmp_path: Path, content: bytes, capsys) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(content)
    put(file, tmp_path / "log")
    assert queued(tmp_path / "log") == GOOD
    assert capsys.readouterr().out == "7 events\n"


def test_a_pipe_is_no_file(tmp_path: Path, capsys) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SystemExit):
        put(pipe, tmp_path / "log")
    assert f"{pipe} must be a file, which is read twice; give JSON" in capsys.readouterr().err


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table(tmp_path: Path, mark: str) -> None:
    file = tmp_path / "new.inter"
    rows = "".join(f"{e.time}\t{e.item}\t{e.value}\tx\t{e.user}\n" for e in GOOD)
    head = "timestamp:float\titem_id:token\trating:float\tmore:token\tuser_id:token\n"
    file.write_text(mark + head + rows, encoding="utf-8")
    put(file, tmp_path / "log")
    assert queued(tmp_path / "log") == GOOD


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.jsonl", lines(GOOD) + b"{}\n", "line 8: event must have the fields"),
        ("e.jsonl", lines(GOOD) + b"\xe9\n", "line 8: event must be a JSON object in UTF-8"),
        ("e.jsonl", lines(GOOD[:3]) + b'{"user":\n', "line 4: event must be a JSON object"),
        ("e.inter", b"user_id:token\titem_id:token\n", "must have the column rating"),
        (
            "e.inter",
            b"user_id\titem_id\trating\ttimestamp\nu\ti\t1\t1\nu\tAm\xe9lie\t1\t2\n",
            "line 3: item must be text that UTF-8 can hold",
        ),
        (
            "e.inter",
            b"user_id\titem_id\trating\ttimestamp\nu\ti\t1\t1\nu\ti\tnan\t2\n",
            "line 3: value must be finite",
        ),
    ],
)
def test_of_a_file_with_a_bad_line_nothing_is_queued(
    tmp_path: Path, monkeypatch, name: str, content: bytes, message: str, capsys
) -> None:
    monkeypatch.setattr(enqueue, "_BATCH", 2)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as end:
        put(tmp_path / name, tmp_path / "log")
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


def test_a_stream_is_queued_as_it_comes(tmp_path: Path) -> None:
    """Whole lines at once; what came before a bad one stays, and is told."""
    command = [sys.executable, "-m", "recbole_mars.serving", "enqueue", "-", "--events"]
    with subprocess.Popen(
        [*command, str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdin is not None
        content = lines(GOOD[:3])
        os.write(process.stdin.fileno(), content[:-20])
        deadline = time.monotonic() + 60
        while not (tmp_path / "log").is_dir() or queued(tmp_path / "log") != GOOD[:2]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.write(process.stdin.fileno(), content[-20:] + b"no event\n" + lines(GOOD[3:]))
        process.stdin.close()
        assert process.stderr is not None
        told = process.stderr.read().decode()
    assert process.returncode == 2
    assert "stdin, line 4: event must be a JSON object" in told
    assert "the 3 events before it are in the queue" in told
    assert queued(tmp_path / "log") == GOOD[:3]
