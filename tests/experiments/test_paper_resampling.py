from __future__ import annotations

import json

import numpy as np
import pytest
from paper_records import record, runs, scored_runs, write

from recbole_mars.evaluation import paired_bootstrap
from recbole_mars.experiments.paper_report.resampling import Resampled
from recbole_mars.experiments.paper_report.results import read_results


@pytest.fixture
def folder(tmp_path):
    scored_runs(tmp_path, "DIN", 0.0, seeds=(1, 2), impressions=400)
    scored_runs(tmp_path, "MARS", 0.6, seeds=(1, 2), impressions=400)
    return tmp_path


def resampled(folder, samples=50):
    results = read_results(folder)
    return results, results.settings()[0], Resampled(results, folder, samples)


def scores(folder, method, seed):
    with np.load(folder / "scores" / f"ml-1m.leave-one-out.{method}.{seed}.npz") as stored:
        return dict(stored)


def save(folder, method, seed, **columns):
    np.savez(folder / "scores" / f"ml-1m.leave-one-out.{method}.{seed}.npz", **columns)


def test_gain_is_that_of_the_tables_and_its_interval_that_of_the_mean(folder):
    results, setting, found = resampled(folder)
    gain = found.gain(setting, "MARS", "DIN")
    table = results.gain(setting, "MARS", "DIN").tested
    assert gain.difference == pytest.approx(table.difference)
    sides = [[scores(folder, m, s)["scores"] for s in (1, 2)] for m in ("DIN", "MARS")]
    labels = scores(folder, "DIN", 1)["labels"]
    assert gain == paired_bootstrap(labels, *map(np.stack, sides), samples=50)
    assert found.gain(setting, "DIN", "DIN") is None


def test_bins_hold_every_impression_once_and_their_own_gain(folder):
    _, setting, found = resampled(folder)
    bins = found.by_length(setting, "MARS", "DIN")
    columns = scores(folder, "DIN", 1)
    assert sum(b.impressions for b in bins) == 400
    assert 4 <= len(bins) <= 8
    assert bins[0].shortest == columns["lengths"].min()
    assert bins[-1].longest == columns["lengths"].max()
    for before, after in zip(bins, bins[1:]):
        assert after.shortest == before.longest + 1
    mine = (columns["lengths"] >= bins[1].shortest) & (columns["lengths"] <= bins[1].longest)
    assert bins[1].mean == columns["lengths"][mine].mean()
    sides = [
        np.stack([scores(folder, m, s)["scores"][mine] for s in (1, 2)]) for m in ("DIN", "MARS")
    ]
    expected = paired_bootstrap(columns["labels"][mine], *sides, samples=50)
    assert (bins[1].difference, bins[1].low, bins[1].high) == expected[:3]
    assert bins[0].difference > bins[-1].difference  # planted: the gain fades with the length


def test_bins_of_one_class_are_left_out(folder):
    for method in ("DIN", "MARS"):
        for seed in (1, 2):
            columns = scores(folder, method, seed)
            lengths = np.where(columns["labels"] == 1, 9, np.arange(400) % 2 * 9)
            save(folder, method, seed, **{**columns, "lengths": lengths})
    _, setting, found = resampled(folder)
    bins = found.by_length(setting, "MARS", "DIN")
    assert [(b.shortest, b.longest) for b in bins] == [(1, 9)]  # length 0: non-clicks only


def test_what_was_kept_replaces_scores_until_the_records_change(folder):
    _, setting, found = resampled(folder)
    gain, bins = found.gain(setting, "MARS", "DIN"), found.by_length(setting, "MARS", "DIN")
    found.keep()
    before = (folder / "significance.json").read_bytes()
    for file in (folder / "scores").iterdir():
        file.unlink()

    _, _, again = resampled(folder)
    assert again.gain(setting, "MARS", "DIN") == gain
    assert again.by_length(setting, "MARS", "DIN") == bins
    again.keep()
    assert (folder / "significance.json").read_bytes() == before
    entry = json.loads(before)["gain | ml-1m | leave-one-out |  | MARS | DIN"]
    assert (entry["seeds"], entry["samples"], entry["impressions"]) == ([1, 2], 50, 400)

    assert resampled(folder, samples=51)[2].gain(setting, "MARS", "DIN") is None
    write(folder, record(method="MARS", seed=2, auc=0.9))
    assert resampled(folder)[2].gain(setting, "MARS", "DIN") is None
    assert resampled(folder)[2].by_length(setting, "MARS", "DIN") == []


def test_without_the_scores_of_every_seed_there_is_no_result(folder):
    (folder / "scores" / "ml-1m.leave-one-out.MARS.2.npz").unlink()
    _, setting, found = resampled(folder)
    assert found.gain(setting, "MARS", "DIN") is None
    found.keep()
    assert not (folder / "significance.json").exists()


def test_lengths_are_optional(folder):
    for method in ("DIN", "MARS"):
        for seed in (1, 2):
            columns = scores(folder, method, seed)
            del columns["lengths"]
            save(folder, method, seed, **columns)
    _, setting, found = resampled(folder)
    assert found.by_length(setting, "MARS", "DIN") == []
    assert found.gain(setting, "MARS", "DIN") is not None


def test_wrong_scores_are_named(folder):
    columns = scores(folder, "MARS", 2)
    name = r"leave-one-out\.MARS\.2\.npz"

    def refuses(words, **changed):
        save(folder, "MARS", 2, **changed)
        _, setting, found = resampled(folder)
        with pytest.raises(ValueError, match=name + words):
            found.gain(setting, "MARS", "DIN")

    refuses(" must be the scores of .*theirs is", **{**columns, "scores": 1 - columns["scores"]})
    refuses(" must have the users of .*DIN", **{**columns, "users": columns["users"] + 1})
    refuses(" is damaged: it has no users; start the exp", scores=np.ones(1), labels=np.ones(1))
    (folder / "scores" / "ml-1m.leave-one-out.MARS.2.npz").write_bytes(b"nothing")
    _, setting, found = resampled(folder)
    with pytest.raises(ValueError, match=name + " is damaged: .*; start the experiment again"):
        found.gain(setting, "MARS", "DIN")


@pytest.mark.parametrize(("text", "said"), [("{", "be JSON"), ("[1]", "hold a JSON object")])
def test_broken_significance_is_named(tmp_path, text, said):
    results = read_results(write(tmp_path, *runs("DIN")))
    (tmp_path / "significance.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=rf"significance\.json must {said}.*; remove it"):
        Resampled(results, tmp_path)
