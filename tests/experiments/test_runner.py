"""Runs in their order, never twice, past failures, beside other processes; training is faked."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_mars.evaluation import auc
from recbole_mars.experiments.plan import planned_runs
from recbole_mars.experiments.records import Records, load_scores
from recbole_mars.experiments.runner import Runner
from recbole_mars.experiments.spec import read_experiment

KEYS = ("augmentation", "seed")
ALL = [("none", 2020), ("mars", 2020), ("none", 2021), ("mars", 2021)]


@pytest.fixture
def go(content, world, training, empty_cwd):
    """Run the experiment as its content stands; returns what was told and what failed."""

    def run(only=None, folder="out", data=world):
        lines: list[str] = []
        experiment = read_experiment(content)
        runner = Runner(
            experiment, Path(folder), data_path=str(data), train=training, tell=lines.append
        )
        failed = runner.run(planned_runs(experiment, only))
        return lines, failed

    return run


def record(method="DIN", seed=2020, folder="out"):
    file = Path(folder, "records", f"world.leave-one-out.{method}.{seed}.json")
    return json.loads(file.read_text())


def test_a_record_holds_what_a_report_needs(go, training, world):
    lines, failed = go()
    assert failed == []
    assert training.named(*KEYS) == ALL  # seed by seed
    assert training.tested == [True] * 4
    found = record("MARS", 2021)
    names = {"experiment": "tiny", "groups": ["all"], "dataset": "world", "method": "MARS"}
    assert {**found, **names, "seed": 2021, "split": "leave-one-out"} == found
    assert found["test"]["auc"] == pytest.approx(0.8)
    # One click, of a low-active user; each user has one impression.
    assert set(found["test"]) == {"auc", "log_loss", "auc_low"}
    assert found["valid"]["auc"] == pytest.approx(0.7)
    assert found["seconds"]["total"] == 3
    assert (found["epochs"], found["best_epoch"], found["peak_memory_mb"]) == (2, 1, 100)
    assert found["curves"] == {"train_loss": [0.5, 0.4], "valid_auc": [0.6, 0.7]}
    statistics = {"users": 2, "items": 2, "interactions": 3, "mean_length": 1.5, "sparsity": 0.25}
    assert found["statistics"] == {**statistics, "positive_share": pytest.approx(2 / 3)}
    assert found["config"]["image_dir"] == "{data_path}/world/images"
    assert found["config"]["mars_theta"] == 0.8  # a default
    assert found["version"]
    assert len(found["data_fingerprint"]) == 64
    assert {"cpu", "threads", "torch"} <= set(found["machine"])
    assert str(world) not in json.dumps(found)
    assert str(Path.cwd()) not in json.dumps(found)
    spec = yaml.safe_load(Path("out/spec.yaml").read_text())
    assert (spec["base"], list(spec["methods"])) == ("DIN", ["DIN", "MARS"])
    assert lines[0].startswith("[1/4] world leave-one-out DIN seed 2020: test AUC 0.8000, 3 s; 9 s")
    assert lines[-1] == "[4/4] world leave-one-out MARS seed 2021: test AUC 0.8000, 3 s"
    assert not list(Path("out").rglob("*.tmp"))


def test_scores_are_kept_small_and_readable(go):
    go({"method": ["DIN"], "seed": ["2020"]})
    file = Path("out/scores/world.leave-one-out.DIN.2020.npz")
    with np.load(file, allow_pickle=False) as stored:
        kinds = {name: str(stored[name].dtype) for name in stored}
    assert kinds == {
        "users": "int32",
        "groups": "int8",
        "labels": "int8",
        "scores": "float32",
        "lengths": "int32",
    }
    found = load_scores(file)
    assert auc(found.labels, found.scores) == record()["test"]["auc"]


def test_never_twice(go, training):
    go({"seed": ["2020"]})
    before = Path("out/records/world.leave-one-out.DIN.2020.json").read_bytes()
    lines, _ = go()
    assert training.named(*KEYS) == ALL
    assert sum("already recorded" in line for line in lines) == 2
    assert Path("out/records/world.leave-one-out.DIN.2020.json").read_bytes() == before
    Path("out/scores/world.leave-one-out.DIN.2020.npz").unlink()  # as in a fresh checkout
    go()
    assert len(training.calls) == 4


def test_a_kill_leaves_what_was_finished(go, training):
    def kill(settings):
        if settings["seed"] == 2021:
            raise KeyboardInterrupt

    training.before = kill
    with pytest.raises(KeyboardInterrupt):
        go()
    assert training.named(*KEYS) == ALL[:3]
    training.before = lambda settings: None
    training.calls.clear()
    go()
    assert training.named(*KEYS) == ALL[2:]
    folders = {call["checkpoint_dir"] for call in training.calls}
    assert folders == {str(Path("out/artifacts"))}  # where the trainer finds what was killed


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("records/{}.json", b""),
        ("records/{}.json", b'{"dataset": "world"}'),
        ("records/{}.json", b"[]"),
        ("records/{}.json", b"\xff"),
        ("scores/{}.npz", b"PK\x03\x04"),
        ("scores/{}.npz", b""),
    ],
)
def test_what_is_damaged_is_told_and_made_again(go, training, file, damage):
    go()
    path = Path("out", file.format("world.leave-one-out.MARS.2020"))
    path.write_bytes(damage)
    lines, _ = go()
    assert training.named(*KEYS)[4:] == [("mars", 2020)]
    assert any(f"{path} is damaged" in line and line.endswith("run again") for line in lines)
    assert record("MARS")["test"]["auc"] == pytest.approx(0.8)


def test_a_flipped_byte_of_the_scores_is_damage(go, training):
    """Wherever it is: zipfile, zlib and NumPy each raise their own errors."""
    go({"method": ["DIN"], "seed": ["2020"]})
    file = Path("out/scores/world.leave-one-out.DIN.2020.npz")
    sound = file.read_bytes()
    harmed = 0
    for place in range(0, len(sound), 3):
        file.write_bytes(sound[:place] + bytes([sound[place] ^ 0xFF]) + sound[place + 1 :])
        try:
            load_scores(file)
        except ValueError as damage:
            assert f"{file} is damaged" in str(damage)  # noqa: PT017
            harmed += 1
    assert harmed > len(sound) / 6
    middle = len(sound) // 2
    file.write_bytes(sound[:middle] + bytes([sound[middle] ^ 0xFF]) + sound[middle + 1 :])
    go({"method": ["DIN"], "seed": ["2020"]})
    assert len(training.calls) == 2
    assert file.read_bytes() == sound


@pytest.mark.parametrize("name", ["auc", "log_loss", "auc_low"])
@pytest.mark.parametrize("value", [float("nan"), None, "0.5", 0.51, "gone"])
def test_metrics_that_do_not_follow_from_the_scores_are_made_again(go, training, name, value):
    go({"method": ["DIN"], "seed": ["2020"]})
    file = Path("out/records/world.leave-one-out.DIN.2020.json")
    sound = json.loads(file.read_text())
    test = {**sound["test"], name: value}
    if value == "gone":
        del test[name]
    file.write_text(json.dumps({**sound, "test": test}))
    lines, _ = go({"method": ["DIN"], "seed": ["2020"]})
    assert len(training.calls) == 2
    assert any("damaged: " in line and name in line and "run again" in line for line in lines)
    assert record()["test"] == sound["test"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: {**c, "scores": np.where(c["labels"], np.nan, c["scores"])}, "one is nan"),
        (lambda c: {**c, "scores": c["scores"] + 1}, "scores must be in 0..1, one is 1."),
        (lambda c: {**c, "scores": c["scores"][::-1]}, "the scores is"),
        (lambda c: {**c, "labels": c["labels"] + 1}, "labels must be in [0, 1], one is 2"),
        (lambda c: {**c, "groups": c["groups"] - 1}, "groups must be in [0, 1, 2], one is -1"),
        (lambda c: {**c, "lengths": -c["lengths"]}, "lengths must be >= 0, one is -1"),
        (lambda c: {**c, "users": c["users"].astype(str)}, "users are no column of numbers"),
        (lambda c: {**c, "users": c["users"][1:]}, "its columns differ in length"),
        (lambda c: {name: column[:-2] for name, column in c.items()}, "the scores is"),
        (lambda c: {name: c[name] for name in c if name != "lengths"}, "it has no lengths"),
    ],
)
def test_scores_that_no_run_gives_are_made_again(go, training, change, said):
    go({"method": ["DIN"], "seed": ["2020"]})
    file = Path("out/scores/world.leave-one-out.DIN.2020.npz")
    with np.load(file) as stored:
        columns = dict(stored)
    np.savez(file, **change(columns))
    lines, _ = go({"method": ["DIN"], "seed": ["2020"]})
    assert len(training.calls) == 2
    assert any("damaged" in line and said in line for line in lines)


def test_truncated_scores_are_damage(go, training):
    go({"method": ["DIN"], "seed": ["2020"]})
    path = Path("out/scores/world.leave-one-out.DIN.2020.npz")
    path.write_bytes(path.read_bytes()[:-30])
    go({"method": ["DIN"], "seed": ["2020"]})
    assert len(training.calls) == 2


def test_a_change_is_told_and_runs_again(go, training, content):
    go({"seed": ["2020"]})
    content["methods"]["MARS"]["mars_theta"] = 0.5
    lines, _ = go({"seed": ["2020"]})
    assert training.named(*KEYS)[2:] == [("mars", 2020)]
    assert any("before a change of mars_theta 0.8 -> 0.5; run again" in line for line in lines)
    assert record("MARS")["config"]["mars_theta"] == 0.5


def test_other_data_runs_again(go, training, world, tmp_path):
    go({"seed": ["2020"]})
    other = tmp_path / "other"
    for file in (world / "world").rglob("*"):
        if file.is_file():
            copy = other / "world" / file.relative_to(world / "world")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    go({"seed": ["2020"]}, data=other)
    assert len(training.calls) == 2  # the same data at another place
    lines = (other / "world" / "world.inter").read_text().splitlines()
    (other / "world" / "world.inter").write_text("\n".join(lines[:-1]) + "\n")
    told, _ = go({"seed": ["2020"]}, data=other)
    assert len(training.calls) == 4
    assert any("a change of the data or feature files" in line for line in told)


def test_new_groups_rewrite_the_names_only(go, training, content):
    go()
    content["groups"] = {"table-2": ["DIN", "MARS"], "table-3": ["MARS"]}
    go()
    assert len(training.calls) == 4
    assert record("MARS")["groups"] == ["table-2", "table-3"]
    assert record("MARS")["test"]["auc"] == pytest.approx(0.8)
    assert load_scores(Path("out/scores/world.leave-one-out.MARS.2020.npz")).users.size == 11


def test_a_failure_stops_no_other_and_is_tried_again(go, training):
    def fail(settings):
        if (settings["augmentation"], settings["seed"]) == ("mars", 2020):
            raise RuntimeError("no luck")

    training.before = fail
    lines, failed = go()
    assert [failure.title for failure in failed] == ["world leave-one-out MARS seed 2020"]
    assert str(failed[0].error) == "no luck"
    assert training.named(*KEYS) == ALL
    reason = Path("out/failed/world.leave-one-out.MARS.2020.txt")
    assert "Traceback" in reason.read_text()
    assert "RuntimeError: no luck" in reason.read_text()
    assert any("FAILED, RuntimeError: no luck" in line and str(reason) in line for line in lines)
    training.before = lambda settings: None
    _, failed = go()
    assert failed == []
    assert training.named(*KEYS)[4:] == [("mars", 2020)]
    assert not reason.exists()


def test_a_run_in_other_hands_is_left_to_them(go, training):
    """The other process finishes it while ours does the rest."""
    go({"method": ["DIN"], "seed": ["2020"]}, folder="theirs")
    stem = "world.leave-one-out.DIN.2020"
    taken, go_on = threading.Event(), threading.Event()

    def other_process():
        with Records(Path("out")).lock(stem):
            taken.set()
            go_on.wait(20)
            time.sleep(0.3)  # by then ours waits for the lock
            theirs = json.loads(Path("theirs/records", f"{stem}.json").read_text())
            Records(Path("out")).write(stem, theirs, None)

    def last(settings):
        if (settings["augmentation"], settings["seed"]) == ALL[-1]:
            go_on.set()

    other = threading.Thread(target=other_process)
    other.start()
    taken.wait(20)
    training.calls.clear()
    training.before = last
    lines, failed = go()
    other.join()
    assert failed == []
    assert training.named(*KEYS) == ALL[1:]
    assert "in the hands of another process" in lines[0]
    assert "DIN seed 2020: already recorded" in lines[-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"lerning_rate": 1}}, "unknown key lerning_rate.*did you mean learning_rate"),
        ({"settings": {"mars_tetha": 1.0}}, "unknown key mars_tetha"),
        ({"settings": {"mars_theta": "high"}}, "mars_theta must be a number"),
        ({"settings": {"augmentation": "copy"}}, "augmentation must be one of"),
        ({"settings": {"model": "DINN"}}, "model 'DINN' is not known"),
        (
            {"settings": {"model": "FM"}},
            "must be a sequential one, or a context model with augmentation: none",
        ),
        ({"settings": {"text_features": "{data_path}/none"}}, "text_features: there is no file"),
        ({"settings": {"text_fields": ["nope"]}}, "text_fields: .* has no column 'nope'"),
        ({"datasets": {"moon": {}}}, "moon leave-one-out DIN: data set moon: there is no .*moon"),
        ({"methods": {"DIN": {}, "twin": {}}}, "twin and world leave-one-out DIN have the same"),
    ],
)
def test_nothing_runs_if_a_run_cannot(go, training, content, change, said):
    content["methods"] = {"DIN": {}}
    content["settings"].update(change.pop("settings", {}))
    content.update(change)
    with pytest.raises(ValueError, match=said):
        go()
    assert training.calls == []
    assert not Path("out").exists()


def test_the_dry_run_says_what_a_run_would_do(go, training, content, world):
    def describe():
        experiment = read_experiment(content)
        runner = Runner(experiment, Path("out"), data_path=str(world), train=training)
        return runner.describe(planned_runs(experiment))

    go({"seed": ["2020"]})
    training.calls.clear()
    content["methods"]["MARS"]["mars_theta"] = 0.5
    base, changed, *later = describe()
    assert base == "world leave-one-out DIN seed 2020: recorded"
    assert changed.startswith("world leave-one-out MARS seed 2020: to do again: ")
    assert "mars_theta 0.8 -> 0.5" in changed
    assert all(line.endswith(": to do") for line in later)
    assert training.calls == []


@pytest.fixture
def keep(content, world, training, empty_cwd):
    """Run DIN, which keeps no model, and MARS with seed 2020, which keeps its."""
    experiment = read_experiment(content)
    stem = "world.leave-one-out.MARS.2020"

    def run(train=training):
        lines: list[str] = []
        runner = Runner(
            experiment,
            Path("out"),
            data_path=str(world),
            train=train,
            tell=lines.append,
            keep_models=[stem],
        )
        failed = runner.run(planned_runs(experiment, {"seed": ["2020"]}))
        return lines, failed

    run.model = Path("out/models", stem)
    run.record = Path("out/records", f"{stem}.json")
    return run


def models():
    return sorted(path.name for path in Path("out/models").iterdir())


def test_a_model_is_kept_beside_its_record(keep, training):
    keep()
    assert models() == [keep.model.name]
    lines, _ = keep()
    assert len(training.calls) == 2
    assert sum("already recorded" in line for line in lines) == 2


def test_a_run_without_its_model_is_made_again(keep, training):
    keep()
    (keep.model / "calls").unlink()
    keep.model.rmdir()
    lines, _ = keep()
    assert training.named("augmentation") == [("none",), ("mars",), ("mars",)]
    assert any(f"its model is not in {keep.model}; run again" in line for line in lines)
    assert (keep.model / "calls").read_text() == "3"


def test_a_model_goes_with_the_settings_of_its_record(keep, training, content, world):
    keep()
    told = json.loads(keep.record.read_text())
    told["config"]["embedding_size"] = 8
    keep.record.write_text(json.dumps(told))
    keep()
    assert (keep.model / "calls").read_text() == "3"
    assert json.loads(keep.record.read_text())["config"]["embedding_size"] == 4
    assert models() == [keep.model.name]


def test_a_run_that_fails_leaves_model_and_record_as_they_were(keep, training):
    keep()
    told = json.loads(keep.record.read_text())
    told["config"]["embedding_size"] = 8
    keep.record.write_text(json.dumps(told))

    def half_made(dataset, settings, *, test=True, model_folder=None):
        model_folder.mkdir(parents=True)
        raise OSError("no space")

    _, (failure,) = keep(half_made)
    assert str(failure.error) == "no space"
    assert (keep.model / "calls").read_text() == "2"
    assert json.loads(keep.record.read_text()) == told
    keep()  # what was half made is in nobody's way
    assert models() == [keep.model.name]
    assert (keep.model / "calls").read_text() == "3"


def test_a_kill_before_the_record_leaves_none(keep, training, monkeypatch):
    keep()
    told = json.loads(keep.record.read_text())
    told["config"]["embedding_size"] = 8
    keep.record.write_text(json.dumps(told))
    with monkeypatch.context() as patch:
        patch.setattr(Records, "write", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            keep()
    # The new model is there: the old settings' record would be of another one.
    assert (keep.model / "calls").read_text() == "3"
    assert not keep.record.exists()
    keep()
    assert (keep.model / "calls").read_text() == "4"
