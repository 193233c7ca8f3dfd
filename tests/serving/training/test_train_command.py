"""`train`: from its options to a trainer, and how it stops."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from small_world import Deployment, events

from recbole_mars.serving import NoSnapshot, Snapshots
from recbole_mars.serving.commands import train
from recbole_mars.serving.training import StreamSettings, report
from recbole_mars.serving.training.recent import RecentScores
from recbole_mars.serving.training.state import Progress


def options(deployment: Deployment, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    places = {
        "snapshots": deployment.snapshots.root,
        "events": deployment.root / "log",
        "state": deployment.state,
    }
    named = [text for name, place in places.items() for text in (f"--{name}", str(place))]
    return parser.parse_args([*named, *more])


@pytest.fixture
def kept_signals() -> Any:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("kept_signals")
def test_once_trains_to_the_queues_end_and_publishes(deployment: Deployment) -> None:
    deployment.append(events(70))
    train.run(options(deployment, "--once", "--batch-size", "16", "--learning-rate", "0.01"))
    training = deployment.snapshots.current().notes["training"]
    assert (training["step"], training["samples"]) == (4, 64)


@pytest.mark.usefixtures("kept_signals")
def test_every_option_reaches_the_settings(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    class Seen(Exception):
        pass

    def see(snapshots: Any, queue: Any, state: Any, settings: StreamSettings) -> None:
        found.append(settings)
        raise Seen

    monkeypatch.setattr("recbole_mars.serving.training.StreamTrainer", see)
    given = {name: kind(7) for name, (kind, _) in train._NUMBERS.items()}
    texts = [x for name, n in given.items() for x in (f"--{name.replace('_', '-')}", str(n))]
    for more in ([], [*texts, "--accept-loss", "--take-over"]):
        with pytest.raises(Seen):
            train.run(options(deployment, *more))
    assert found == [StreamSettings(), StreamSettings(**given, accept_loss=True, take_over=True)]


@pytest.mark.usefixtures("kept_signals")
def test_it_waits_for_the_first_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deployment = Deployment(tmp_path, publish=False)
    deployment.append(events(16))
    later = threading.Timer(1.0, deployment.run_offline)
    later.start()
    asked = iter([False] * 3 + [True] * 10)
    caplog.set_level(logging.INFO)
    train._wait_for_the_first(deployment.snapshots, lambda: False)
    later.join()
    assert caplog.text.count("has no snapshot yet") == 1
    train._wait_for_the_first(Snapshots(tmp_path / "none"), asked.__next__)  # until it is stopped
    with pytest.raises(NoSnapshot):
        train.run(options(Deployment(tmp_path / "other", publish=False), "--once"))


@pytest.mark.parametrize("number", ["0", "-1", "some"])
def test_a_number_of_threads_is_one_or_more(deployment: Deployment, number: str, capsys) -> None:
    with pytest.raises(SystemExit):
        options(deployment, "--torch-threads", number)
    assert f"invalid threads value: '{number}'" in capsys.readouterr().err


def test_sigterm_saves_and_leaves(deployment: Deployment) -> None:
    deployment.append(events(70))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train.run(options(deployment, "--batch-size", "8", "--commit-batches", "3"))
            status = 0
        finally:
            os._exit(status)
    # Saved are 6 of 8 batches; the rest is saved as it leaves.
    committed = deployment.root / "log" / "committed" / "training"
    deadline = time.monotonic() + 120
    while not committed.exists() or committed.read_text() < _offset(deployment, 48):
        assert time.monotonic() < deadline, "nothing was saved"
        time.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status)
    assert os.WEXITSTATUS(status) == 0
    assert deployment.snapshots.names() == ["00000001"]
    assert deployment.saved()["recent.labels"].shape[0] in (48, 56, 64)
    samples = int(deployment.saved()["recent.labels"].shape[0])
    assert committed.read_text() == _offset(deployment, samples)


def _offset(deployment: Deployment, number: int) -> str:
    with deployment.queue() as queue:
        return queue.read(None, number)[-1][0]


def test_a_line_a_minute_tells_rate_lag_and_loss(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(report.time, "time", lambda: 1034.0)
    progress = Progress(run="r", base="00000001", step=3, samples=24)
    told = [(str(place), event) for place, event in enumerate(events(30))]  # the last at 1029
    with caplog.at_level(logging.INFO):
        line = report.Report()
        for passed in (30, 31, 10, 60):
            now[0] += passed
            line.tell(told if passed < 60 else [], progress, RecentScores(5))
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("1.0 events/s, lag 5 s, step 3, 24 samples")
    assert caplog.messages[1].startswith("0.4 events/s, lag 5 s")
