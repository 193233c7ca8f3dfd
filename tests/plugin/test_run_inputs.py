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
    found = run_inputs("world", {**tiny, "text_features": str(tmp_path / "text.npy")})
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
