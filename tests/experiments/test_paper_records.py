from __future__ import annotations

import json
import math

import numpy as np
import pytest
from paper_records import record, runs, scored_runs, write

from recbole_mars.experiments.paper_report.records import METRICS, Setting, read_records
from recbole_mars.experiments.paper_report.results import read_results


def test_a_record_is_read_as_it_is(tmp_path):
    write(tmp_path, record(statistics={"users": 3}, variant="labels", peak_memory_mb=None))
    (found,) = read_records(tmp_path)
    assert found.setting == Setting("ml-1m", "leave-one-out", "labels")
    assert str(found.setting) == "ml-1m, leave-one-out, labels"
    assert (found.method, found.seed, found.groups) == ("MARS", 1, ("table-2",))
    assert (found.seconds, found.epochs, found.valid_auc) == (100.0, 8.0, 0.75)
    assert found.test["auc"] == 0.75
    assert math.isnan(found.peak_memory_mb)
    assert found.machine == "cpu: abacus, threads: 2"
    assert found.statistics == {"users": 3.0}


def test_undefined_metrics_are_nan_whether_null_or_absent(tmp_path):
    test = {"auc": 0.7, "auc_low": None}
    write(tmp_path, record(test=test, seconds=12.5, valid=None))
    (found,) = read_records(tmp_path)
    undefined = {name for name, value in found.test.items() if math.isnan(value)}
    assert undefined == set(METRICS) - {"auc"}
    assert found.seconds == 12.5
    assert math.isnan(found.valid_auc)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": None}, "test must be a mapping, got None"),
        ({"test": {"auc": "0.7"}}, r"test\.auc must be a number or null, got '0\.7'"),
        ({"test": {"auc": 70}}, r"test\.auc must be in 0\.\.1, got 70"),
        (
            {"test": {"auc": math.nan}},
            r"test\.auc must be a number or null, got nan; start",
        ),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"groups": "table-2"}, "groups must be a list of words"),
        ({"valid": 0.7}, "valid must be a mapping"),
        ({"config": [1]}, "config must be a mapping"),
        ({"variant": 3}, "variant must be a word, got 3"),
    ],
)
def test_wrong_values_are_named_with_their_file(tmp_path, changes, words):
    write(tmp_path, record(**changes))
    with pytest.raises(ValueError, match=rf"MARS\.(1|True)(\.3)?\.json: {words}"):
        read_records(tmp_path)


@pytest.mark.parametrize("name", ["dataset", "split", "method"])
def test_a_record_needs_its_names(tmp_path, name):
    broken = tmp_path / "records" / "x.json"
    write(tmp_path, record())
    text = next((tmp_path / "records").iterdir()).read_text("utf-8")
    broken.write_text(text.replace(f'"{name}"', '"other"'), "utf-8")
    with pytest.raises(ValueError, match=rf"x\.json: {name} must be a word, got None"):
        read_records(tmp_path)


@pytest.mark.parametrize(("text", "words"), [("{", "be JSON"), ("[]", "hold a JSON object")])
def test_files_that_are_no_records(tmp_path, text, words):
    write(tmp_path)
    (tmp_path / "records" / "x.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=rf"x\.json must {words}"):
        read_records(tmp_path)


def test_no_records(tmp_path):
    with pytest.raises(ValueError, match="found none; run the experiment first"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    "change", [{"method": "Mars"}, {"dataset": "toys"}, {"split": "s"}, {"seed": 2}]
)
def test_a_record_is_of_the_run_that_its_file_is_named_after(tmp_path, change):
    write(tmp_path, record())
    (file,) = (tmp_path / "records").iterdir()
    file.write_text(json.dumps({**record(), **change}), "utf-8")
    with pytest.raises(ValueError, match=r"MARS\.1\.json must be named after its run, .* mends it"):
        read_records(tmp_path)


def test_an_auc_is_missing_only_where_the_scores_have_none(tmp_path):
    (found,) = scored_runs(tmp_path, "MARS", 0.5, seeds=(1,), impressions=100)
    del found["test"]["auc"]
    write(tmp_path, found)
    with pytest.raises(ValueError, match=r"MARS\.1\.json: test\.auc must be a number, since"):
        read_records(tmp_path)
    file = tmp_path / "scores" / "ml-1m.leave-one-out.MARS.1.npz"
    np.savez(file, labels=np.ones(3))
    assert math.isnan(read_records(tmp_path)[0].test["auc"])
    file.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"MARS\.1\.npz is damaged.*; start the experiment again"):
        read_records(tmp_path)


def test_spec_gives_base_order_and_what_is_wanted(tmp_path):
    spec = {
        "name": "full",
        "base": "plain",
        "datasets": {"b": {}, "a": {}},
        "splits": {"s": {"split": {"LS": "valid_and_test"}, "order": "TO"}},
        "methods": {"MARS": {}, "plain": {}, "side": {"seeds": [1]}},
        "seeds": [1, 2],
        "groups": {"table-2": ["MARS", "plain"], "few": {"methods": ["side"], "datasets": ["a"]}},
        "search": {"trials": 2, "seed": 9, "space": {"learning_rate": [0.1, 0.2]}},
    }
    found = [record(d, m, split="s") for d in "ab" for m in ("side", "plain", "MARS")]
    results = read_results(write(tmp_path, *found, spec=spec))
    assert (results.name, results.base, results.measured, results.trials) == (
        "full",
        "plain",
        "MARS",
        2,
    )
    assert results.order == ("plain", "MARS", "side")
    assert [setting.dataset for setting in results.settings()] == ["b", "a"]
    a, b = Setting("a", "s", ""), Setting("b", "s", "")
    both = frozenset({1, 2})
    assert results.wanted == {
        **{(setting, method): both for setting in (a, b) for method in ("MARS", "plain")},
        (a, "side"): frozenset({1}),
    }


def test_without_spec_names_and_the_paper_say_it(tmp_path):
    found = [
        *runs("DIN"),
        *runs("Random-Seq", seeds=(1, 9)),
        *runs("Random"),
        *runs("Mars", seeds=(1,)),
    ]
    results = read_results(
        write(tmp_path, *found, record("amazon-toys", "DIN"), record("abc", "DIN"))
    )
    assert (results.base, results.measured) == ("DIN", "Mars")
    assert results.order == ("DIN", "Random", "Random-Seq", "Mars")
    assert [s.dataset for s in results.settings()] == ["ml-1m", "amazon-toys", "abc"]
    assert results.wanted[results.settings()[0], "Mars"] == {1, 2, 3, 4, 5, 9}


def test_a_base_is_needed(tmp_path):
    write(tmp_path, record(method="A"))
    with pytest.raises(ValueError, match="must name the method to compare with as `base`"):
        read_results(tmp_path)


def test_a_bad_spec_is_said(tmp_path):
    write(tmp_path, record(method="DIN"))
    (tmp_path / "spec.yaml").write_text("a: [", "utf-8")
    with pytest.raises(ValueError, match=r"spec\.yaml"):
        read_results(tmp_path)


def test_best_baseline_is_chosen_by_validation(tmp_path):
    good_test = [record(method="CMR", seed=s, auc=0.9, valid={"auc": 0.60}) for s in (1, 2)]
    good_valid = [record(method="Random", seed=s, auc=0.5, valid={"auc": 0.61}) for s in (1, 2)]
    untold = [record(method="RepPad", auc=0.99, valid=None)]
    own = [record(method="better MARS", auc=0.99)]
    write(tmp_path, record(method="DIN"), *good_test, *good_valid, *untold, *own)
    results = read_results(tmp_path)
    assert results.best_baseline(results.settings()[0]) == "Random"


def test_validation_judges_those_with_the_most_seeds(tmp_path):
    """Seed 1 is easy: whoever has only that one must not be chosen for it."""
    lucky = [record(method="CMR", seed=1, valid={"auc": 0.82})]
    even = [record(method="Random", seed=s, valid={"auc": v}) for s, v in ((1, 0.81), (2, 0.6))]
    write(tmp_path, *lucky, *even, record(method="DIN", seed=1))
    results = read_results(tmp_path)
    (setting,) = results.settings()
    assert results.best(setting, ["CMR", "Random"]) == "Random"
    write(tmp_path, record(method="RepPad", seed=3, valid={"auc": 0.9}))
    results = read_results(tmp_path)
    assert results.best(setting, ["CMR", "Random", "RepPad"]) == "Random"
    assert results.best(setting, ["CMR", "RepPad"]) is None  # no seed in common


def test_gain_is_over_shared_seeds_with_the_metric(tmp_path):
    write(
        tmp_path,
        *[record(method="DIN", seed=s, auc=0.6 + s / 100) for s in (1, 2, 3)],
        *[record(method="MARS", seed=s, auc=0.7 + s / 100) for s in (2, 3, 4)],
        record(method="MARS", seed=1, test={"auc": None}),
    )
    results = read_results(tmp_path)
    gain = results.gain(results.settings()[0], "MARS", "DIN")
    assert gain.seeds == (2, 3)
    assert (gain.before, gain.after) == pytest.approx((0.625, 0.725))
    assert gain.tested.difference == pytest.approx(0.1)
    assert math.isnan(gain.tested.p_value)  # both gain alike: the spread is unknown
    assert gain.rela_impr == pytest.approx(80.0)
    low = results.gain(results.settings()[0], "MARS", "DIN", "auc_low")
    assert low.seeds == ()
    assert math.isnan(low.tested.difference)
    assert math.isnan(low.rela_impr)
