"""Searches: as many trials for each method, judged by validation only, continued, never twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from recbole_mars.experiments.plan import planned_runs
from recbole_mars.experiments.runner import Runner
from recbole_mars.experiments.spec import read_experiment

RATES = [0.001, 0.002, 0.003, 0.004]


@pytest.fixture
def searching(content):
    content["methods"]["side"] = {"like": "MARS", "mars_theta": 0.5}
    content["search"] = {
        "trials": 3,
        "seed": 7,
        "space": {"learning_rate": RATES},
        "methods": {"MARS": {"mars_theta": [0.6, 0.7]}},
        "settings": {"epochs": 1},
    }
    return content


@pytest.fixture
def go(searching, world, training, empty_cwd):
    training.valid_auc = lambda settings: RATES.index(settings["learning_rate"]) + 5

    def run():
        lines: list[str] = []
        experiment = read_experiment(searching)
        runner = Runner(
            experiment, Path("out"), data_path=str(world), train=training, tell=lines.append
        )
        return runner.run(planned_runs(experiment)), lines

    return run


def trials(method):
    files = sorted(Path("out/search").glob(f"world.leave-one-out.{method}.trial-*.json"))
    return [json.loads(file.read_text()) for file in files]


def test_every_method_gets_the_same_budget_and_the_best_is_used(go, training):
    failed, lines = go()
    assert failed == []
    assert len(training.calls) == 2 * 3 + 3 * 2
    for method in ("DIN", "MARS"):
        found = trials(method)
        assert len(found) == 3
        drawn = [trial["drawn"] for trial in found]
        assert len({str(values) for values in drawn}) == 3
        best = max(drawn, key=lambda values: values["learning_rate"])
        file = Path(f"out/chosen/world.leave-one-out.{method}.yaml")
        assert yaml.safe_load(file.read_text())["learning_rate"] == best["learning_rate"]
        assert "best of 3 trials by validation AUC" in file.read_text()
        for seed in (2020, 2021):
            name = f"out/records/world.leave-one-out.{method}.{seed}.json"
            config = json.loads(Path(name).read_text())["config"]
            assert config["learning_rate"] == best["learning_rate"]
            assert config["epochs"] == 2  # the trials' own settings are not the runs'
    assert set(trials("DIN")[0]["drawn"]) == {"learning_rate"}
    assert set(trials("MARS")[0]["drawn"]) == {"learning_rate", "mars_theta"}
    # Like MARS: no search of its own, what was chosen for MARS, but for what it sets itself.
    side = json.loads(Path("out/records/world.leave-one-out.side.2020.json").read_text())
    mars = json.loads(Path("out/records/world.leave-one-out.MARS.2020.json").read_text())
    assert not trials("side")
    assert side["config"]["learning_rate"] == mars["config"]["learning_rate"]
    assert (side["config"]["mars_theta"], mars["config"]["mars_theta"] >= 0.6) == (0.5, True)
    assert lines[0].startswith("[ 1/12] world leave-one-out DIN trial 1, learning_rate 0.0")


def test_trials_see_no_test_rows_and_no_reported_seed(go, training):
    go()
    searched = [call for call, tested in zip(training.calls, training.tested) if not tested]
    assert len(searched) == 6
    assert {(call["seed"], call["epochs"]) for call in searched} == {(7, 1)}
    assert {call["seed"] for call in training.calls if call not in searched} == {2020, 2021}
    assert all("test" not in trial for trial in trials("DIN") + trials("MARS"))
    assert not list(Path("out/scores").glob("*trial*"))


def test_a_search_is_continued_and_never_done_twice(go, training):
    go()
    expected = training.named("learning_rate", "seed")
    Path("out/search/world.leave-one-out.DIN.trial-3.json").unlink()
    training.calls.clear()
    _, lines = go()
    assert training.named("learning_rate", "seed") == expected[2:3]
    assert sum("already recorded" in line for line in lines) == 11


def test_a_killed_search_goes_on(go, training):
    count = []

    def kill(settings):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt

    training.before = kill
    with pytest.raises(KeyboardInterrupt):
        go()
    go()
    assert len(training.calls) == 1 + 12  # only the killed one again


def test_failed_trials_are_passed_over(go, training):
    def fail(settings):
        if settings["seed"] == 7 and settings["augmentation"] == "mars":
            raise RuntimeError("diverged")

    training.before = fail
    failed, lines = go()
    titles = [failure.title for failure in failed]
    assert sum("trial" in title for title in titles) == 3
    # Without values for MARS there is no run of it, nor of the method like it.
    assert sum("MARS seed" in title for title in titles) == 2
    assert sum("side seed" in title for title in titles) == 2
    assert "no trial of its search succeeded" in lines[-1]
    assert len(list(Path("out/records").iterdir())) == 2


def test_the_dry_run_counts_trials(go, searching, training, world):
    experiment = read_experiment(searching)
    runner = Runner(experiment, Path("out"), data_path=str(world), train=training)
    lines = runner.describe(planned_runs(experiment))
    assert sum("trial" in line and line.endswith("to do") for line in lines) == 6
    assert len(lines) == 12
    go()
    assert all(line.endswith(": recorded") for line in runner.describe(planned_runs(experiment)))


def test_bad_values_of_a_space_are_found_before_anything_runs(go, searching, training):
    searching["search"]["space"] = {"learning_rat": [1, 2, 3]}
    with pytest.raises(ValueError, match="unknown key learning_rat"):
        go()
    assert training.calls == []


@pytest.mark.parametrize("place", [1, 3])
def test_every_value_of_a_space_is_looked_at(go, searching, training, place):
    values = [0.1, 0.2, 0.3, 0.4]
    values[place] = "fast"
    searching["search"]["space"]["learning_rate"] = values
    with pytest.raises(ValueError, match="learning_rate must be a number > 0, got 'fast'"):
        go()
    searching["search"]["space"]["learning_rate"] = RATES
    searching["search"]["methods"]["MARS"]["mars_theta"] = [0.6, "high"]
    with pytest.raises(ValueError, match="mars_theta must be a number"):
        go()
    assert training.calls == []


def test_failed_trials_are_not_counted_in_the_budget(go, training):
    count = []

    def fail(settings):
        count.append(1)
        if len(count) == 1:
            raise RuntimeError("diverged")

    training.before = fail
    go()
    first = Path("out/chosen/world.leave-one-out.DIN.yaml").read_text().splitlines()[0]
    assert "best of 2 of 3 trials (1 failed) by validation AUC" in first
    other = Path("out/chosen/world.leave-one-out.MARS.yaml").read_text().splitlines()[0]
    assert "best of 3 trials by validation AUC" in other


def test_the_dry_run_sees_what_is_damaged(go, searching, training, world):
    go()
    experiment = read_experiment(searching)
    runner = Runner(experiment, Path("out"), data_path=str(world), train=training)
    trial = Path("out/search/world.leave-one-out.DIN.trial-2.json")
    whole = trial.read_text()
    for damage in ("{", whole.replace('"epochs": 1', '"epochs": 3')):
        trial.write_text(damage)
        told = [x for x in runner.describe(planned_runs(experiment)) if "recorded" not in x]
        assert [line.split(":")[:2] for line in told] == [
            ["world leave-one-out DIN trial 2", " to do again"]
        ]
    trial.write_text(whole)
    for damage in ("a: [", "[1]", "\xff"):
        chosen = Path("out/chosen/world.leave-one-out.DIN.yaml")
        chosen.write_bytes(damage.encode("latin-1"))
        told = [x for x in runner.describe(planned_runs(experiment)) if "recorded" not in x]
        assert len(told) == 2
        assert all(f"to do again: {chosen} is damaged" in line for line in told)
        assert all("\n" not in line for line in told)
    calls = len(training.calls)
    assert go()[0] == []
    assert len(training.calls) == calls
    assert "learning_rate" in yaml.safe_load(chosen.read_text())
