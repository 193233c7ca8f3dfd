"""`make serve` as a user runs it: from the main job's result to answers, or to what is missing."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

pytest.importorskip("fastapi")

from recbole_mars import serve_demo
from recbole_mars.data.synthetic import SyntheticSettings, generate, write_atomic
from recbole_mars.experiments import compare
from recbole_mars.serving import read_manifest


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the main job leaves, on a tiny data set."""
    folder = tmp_path_factory.mktemp("made")
    data = generate(SyntheticSettings(n_users=40, n_items=60, high_length=(12, 20), seed=3))
    write_atomic(data, folder, "world")
    settings = {
        "data_path": str(folder),
        "text_fields": ["title"],
        "image_dir": str(folder / "world" / "images"),
        "MAX_ITEM_LIST_LENGTH": 10,
        "epochs": 1,
        "embedding_size": 4,
        "mars_align_epochs": 1,
        "mars_width": 8,
        "mars_id_width": 8,
        "mars_theta": -1.0,
        "mars_theta_kind": "cosine",
        "show_progress": False,
        "state": "ERROR",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["pytest"])

        def go(seeds=(1,)):
            lines = []
            compare(
                "world",
                settings,
                folder / "out",
                seeds=seeds,
                command="",
                version="0",
                tell=lines.append,
                keep_model=True,
            )
            return "\n".join(lines)

        go()
        yield folder / "out", go


@pytest.fixture
def run(made, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(made[0], tmp_path / "runs" / "demo"))


def model_of(run):
    return run / json.loads((run / "metrics.json").read_text())["model"]


def test_the_main_job_keeps_its_model_and_titles(made):
    out, go = made
    assert model_of(out) == out / "models" / "world.split.MARS.1"
    assert read_manifest(model_of(out))["dataset"] == "world"
    cards = json.loads((out / "items.json").read_text())
    assert len(cards) == 60
    assert all(card["title"] for card in cards.values())
    pictured = [card["picture"] for card in cards.values() if card["picture"]]
    assert pictured
    assert all((out / picture).is_file() for picture in pictured)
    assert go().count("already recorded") == 2


def test_another_seeds_model_stands_beside(made):
    out, go = made
    go((2, 1))
    assert model_of(out).name == "world.split.MARS.2"
    assert go((1,)).count("already recorded") == 2
    assert model_of(out).name == "world.split.MARS.1"
    assert sorted(path.name for path in (out / "models").iterdir()) == [
        "world.split.MARS.1",
        "world.split.MARS.2",
    ]


def test_real_questions_are_answered(run, capsys):
    serve_demo.main(["--run", str(run), "--once", "--port", "0"])
    told = capsys.readouterr().out
    titles = {card["title"][:40] for card in json.loads((run / "items.json").read_text()).values()}
    history, _, rest = told.partition("similar active users")
    assert sum(title in history for title in titles) >= 3
    borrowed, _, scores = rest.partition("scores, in")
    assert " liked" in borrowed
    assert "augmented  own history" in scores
    assert "who has just disliked" in scores
    unknown = next(line for line in scores.splitlines() if line.startswith("  an item nobody"))
    assert unknown.split()[-2:] == ["+0.0000", "unknown"]
    assert "Ctrl-C" not in told


def test_a_new_model_takes_the_place_of_the_old_ones_store(run, capsys):
    (run / "serving" / "older" / "store").mkdir(parents=True)
    arguments = ["--run", str(run), "--once", "--port", "0"]
    serve_demo.main(arguments)
    serve_demo.main(arguments)
    (place,) = (run / "serving").iterdir()
    assert place.name != "older"
    assert sorted(path.name for path in (place / "snapshots").glob("0*")) == [
        "00000001",
        "00000002",
    ]


@pytest.mark.parametrize("lost", ["metrics.json", "models", "all"])
def test_without_a_model_the_tiny_main_job_is_run(run, lost, monkeypatch, capsys):
    monkeypatch.chdir(run.parents[1])
    aside = Path(shutil.copytree(run, "aside"))
    if lost == "all":
        shutil.rmtree(run)
    elif lost == "models":
        shutil.rmtree(run / lost)
    else:
        (run / lost).unlink()
    asked = []

    def make(command):
        asked.append(command)
        shutil.copytree(aside, "runs/smoke")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", make)
    serve_demo.main(["--once", "--port", "0"])
    told = capsys.readouterr().out
    assert told.startswith("runs/demo has no model to serve; `make demo` makes one")
    assert "Model      runs/smoke/models" in told
    ((_, *command),) = asked
    assert command[:5] == ["-m", "recbole_mars.demo", "--smoke", "--output", "runs/smoke"]


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM])
def test_the_page_is_served_until_it_is_ended(run, ends):
    command = [sys.executable, "-m", "recbole_mars.serve_demo", "--run", str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        told = []
        while "Ctrl-C" not in "".join(told):
            told.append(process.stdout.readline())
            assert told[-1], "".join(told)
        (address,) = re.findall(r"Page +(\S+)", "".join(told))
        with urlopen(address, timeout=30) as page:
            assert b"<title>MARS, live</title>" in page.read()
        process.send_signal(ends)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def fails(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        serve_demo.main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_main_job_that_fails_ends_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(subprocess, "run", lambda command: failed)
    assert "has left no model; it says why above" in fails(["--port", "0"], capsys)


def test_a_taken_port_is_told_before_anything_runs(run, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        told = fails(["--run", str(run), "--port", str(port)], capsys)
    assert f"port {port} cannot be had" in told
    assert "take another" in told
    assert "port 99999 cannot be had" in fails(["--run", str(run), "--port", "99999"], capsys)
    assert not (run / "serving").exists()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_result_is_told(run, text, capsys):
    (run / "metrics.json").write_text(text)
    assert "metrics.json is damaged" in fails(["--run", str(run), "--port", "0"], capsys)


def test_a_damaged_model_is_told(run, capsys):
    with open(model_of(run) / "network.safetensors", "r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    told = fails(["--run", str(run), "--port", "0"], capsys)
    assert "network.safetensors was changed" in told
