"""What a run would read, known before it starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recbole_mars.plugin.run_inputs import RunInputs, run_inputs


def test_the_config_is_resolved_plain_and_of_no_machine(tiny, world):
    found = run_inputs("world", {**tiny, "seed": 5})
    assert found.config["mars_width"] == 8
    assert found.config["mars_beta"] == 0.1  # a default of ours
    assert found.config["shuffle"] is True  # of RecBole
    assert found.config["seed"] == 5
    assert found.config == json.loads(json.dumps(found.config))
    assert not {"device", "data_path", "checkpoint_dir", "state"} & set(found.config)
    assert str(world) not in json.dumps(found.config)
    assert found.config["image_dir"] == "{data_path}/world/images"
    assert "mars_width" in found.given
    assert "mars_beta" not in found.given


def test_a_place_outside_the_data_shows_its_name_only(tiny, tmp_path):
    np.save(tmp_path / "text.npy", np.zeros((1, 2)))
    ready = {"text_features": str(tmp_path / "text.npy"), "feature_ids": "rows"}
    found = run_inputs("world", {**tiny, **ready})
    assert found.config["text_features"] == ".../text.npy"


def test_the_fingerprint_is_of_contents(tiny, world, tmp_path):
    ids = tmp_path / "ids.csv"
    ids.write_text("item_id\n1\n")
    settings = {**tiny, "feature_ids": str(ids)}
    first = run_inputs("world", settings).fingerprint
    assert run_inputs("world", {**settings, "mars_theta": 0.1}).fingerprint == first
    assert run_inputs("world", {**tiny, "feature_ids": "rows"}).fingerprint != first
    ids.write_text("item_id\n2\n")
    assert run_inputs("world", settings).fingerprint != first
    other = tmp_path / "elsewhere.csv"
    other.write_text("item_id\n1\n")
    assert run_inputs("world", {**tiny, "feature_ids": str(other)}).fingerprint == first


def test_ml_100k_is_recbole_s_own_unless_a_folder_is_named(empty_cwd):
    assert run_inputs("ml-100k", {"augmentation": "none"}).fingerprint
    with pytest.raises(ValueError, match=r"there is no here/ml-100k/ml-100k\.inter"):
        run_inputs("ml-100k", {"augmentation": "none", "data_path": "here"})


def test_a_built_in_model_needs_our_data_set(tiny):
    theirs = {"model": "DIN", "data_path": tiny["data_path"]}
    with pytest.raises(ValueError, match="must run on our data set"):
        run_inputs("world", theirs)
    assert run_inputs("world", {**theirs, "augmentation": "none"}).config["model"] == "DIN"


def test_changes_by_hand():
    now = RunInputs({"a": 1, "b": 2, "new": 3, "image_dir": "x"}, frozenset("a"), "f")
    assert now.changes_since({"a": 1, "b": 2, "image_dir": "y", "old": 0}, "f") == []
    assert now.changes_since({"a": 1, "b": 5}, "g") == ["the data or feature files", "b 5 -> 2"]
    asked = RunInputs({"a": 1, "new": 3}, frozenset(["new"]), "f")
    assert asked.changes_since({"a": 1}, "f") == ["new -> 3"]


def test_a_folder_s_locks_do_not_count(tiny, tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    settings = {**tiny, "text_features": str(folder)}
    first = run_inputs("world", settings).fingerprint
    (folder / "x.lock").write_text("")
    assert run_inputs("world", settings).fingerprint == first
    (folder / "a.txt").rename(folder / "b.txt")
    assert run_inputs("world", settings).fingerprint != first
    assert Path(folder).is_dir()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": "two"}, "epochs must be a whole number >= 1, got 'two'"),
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"epochs": -1}, "epochs must be"),
        ({"epochs": True}, "epochs must be"),
        ({"train_batch_size": 0.5}, "train_batch_size must be a whole number"),
        ({"learning_rate": "fast"}, "learning_rate must be a number > 0, got 'fast'"),
        ({"learning_rate": 0}, "learning_rate must be a number > 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number > 0"),
        ({"MAX_ITEM_LIST_LENGTH": "long"}, "MAX_ITEM_LIST_LENGTH must be an integer"),
        ({"augmentation": "random", "random_items": -1}, "random_items"),
        ({"augmentation": "random_seq", "random_seq_items": -1}, "random_seq_items"),
        ({"augmentation": "cmr", "cmr_crop": 2.0}, "cmr_crop"),
        ({"augmentation": "cl4srec", "cmr_mask": 2.0}, "cmr_mask"),
        ({"augmentation": "cl4srec", "contrast_temperature": -1.0}, "contrast_temperature"),
        ({"augmentation": "coserec", "cmrsi_insert": 2.0}, "cmrsi_insert"),
        ({"augmentation": "mars", "mars_candidates": 0}, "mars_candidates"),
        ({"augmentation": "mars", "mars_align_epochs": -1}, "mars_align_epochs"),
        ({"mars_agreement": True, "mars_agreement_factors": -1}, "mars_agreement_factors"),
        ({"mars_donor_time": "later"}, "mars_donor_time must be auto, any or before"),
    ],
)
def test_values_that_could_not_run(tiny, change, said):
    with pytest.raises(ValueError, match=said):
        run_inputs("world", {**tiny, "augmentation": "none", **change})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": {"RS": [8, 1]}}, r"split must be .* got {'RS': \[8, 1\]}"),
        ({"split": {"RS": [8, 1, 0]}}, "split must be"),
        ({"split": {"RS": "8"}}, "split must be"),
        ({"split": {"LSS": "valid_and_test"}}, "split must be"),
        ({"split": {"LS": "valid_only"}}, "split must be"),
        ({"split": {"LS": "valid_and_test", "RS": [8, 1, 1]}}, "split must be"),
        ({"split": None}, "split must be"),
        ({"order": "OT"}, "order must be TO or RO, got 'OT'"),
        ({"group_by": "item"}, "group_by must be user or none, got 'item'"),
        ({"mode": "full"}, "RecBole refuses the configuration: Full sort.*mode: labeled"),
        ({"mode": 5}, "RecBole refuses the configuration"),
    ],
)
def test_splits_that_could_not_run(tiny, change, said):
    split = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "labeled", **change}
    with pytest.raises(ValueError, match=said):
        run_inputs("world", {**tiny, "augmentation": "none", "eval_args": split})


@pytest.mark.parametrize("split", [{"RS": [8, 1, 1]}, {"RS": [0.8, 0.1, 0.1]}, {"TS": [8, 1, 1]}])
@pytest.mark.parametrize("group_by", [None, "user"])
def test_other_splits_are_allowed(tiny, split, group_by):
    eval_args = {"split": split, "order": "TO", "mode": "labeled", "group_by": group_by}
    found = run_inputs("world", {**tiny, "augmentation": "none", "eval_args": eval_args})
    assert found.config["eval_args"]["split"] == split
