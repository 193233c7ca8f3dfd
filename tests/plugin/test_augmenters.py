"""Augmentation baselines by name, with our DIN and RecBole's own."""

from pathlib import Path

import numpy as np
import pytest
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import run_recbole

from recbole_mars.data import TRAIN
from recbole_mars.plugin.augmenters import HEURISTICS
from recbole_mars.plugin.dataset import AUGMENTERS, BORROWED_FIELD, ROW_FIELD, MultimodalDataset

LABELED = {
    "mode": "labeled",
    "split": {"LS": "valid_and_test"},
    "order": "TO",
}
TEMPORAL = {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": None, "mode": "labeled"}


@pytest.fixture
def bare(tiny):
    """Without anything that features could be made of."""
    return {k: v for k, v in tiny.items() if k not in ("text_fields", "image_dir")}


def splits_of(bare, name, model="MARS", **changes):
    settings = {**bare, "augmentation": name, "MAX_ITEM_LIST_LENGTH": 30, **changes}
    config = Config(model, "world", config_dict=settings)
    return config, data_preparation(config, create_dataset(config))


def test_every_name_has_its_builder():
    assert set(AUGMENTERS) >= {"mars", *HEURISTICS}


@pytest.mark.parametrize("name", HEURISTICS)
@pytest.mark.parametrize("model", ["MARS", "DIN"])
def test_one_epoch(bare, model, name):
    """No features, no stage 1: the run needs interactions only."""
    settings = {**bare, "augmentation": name, "epochs": 1}
    if model == "DIN":
        settings |= {
            "eval_args": LABELED,
            "train_neg_sample_args": None,
            "threshold": {"rating": 4},
            "metrics": ["AUC", "LogLoss"],
            "valid_metric": "AUC",
        }
    else:
        settings["history_labels"] = True
    result = run_recbole(model=model, dataset="world", config_dict=settings)
    assert 0 < result["test_result"]["auc"] < 1
    assert not list(Path("saved").glob("features*"))
    assert not list(Path("saved").glob("mars/world-*"))


def test_builtin_models_keep_recboles_own_protocol(bare):
    """Stage 1 needs labels, these do not: nothing but the histories changes."""
    for name in HEURISTICS:
        config = Config("DIN", "world", config_dict={**bare, "augmentation": name})
        assert config["threshold"] is None
        assert config["train_neg_sample_args"]["distribution"] == "uniform"


def test_models_without_histories_are_refused(bare):
    with pytest.raises(ValueError, match="FM reads none"):
        Config("FM", "world", config_dict={**bare, "augmentation": "cmr"})


def histories(config, loader):
    """Rows, and the log's rows in their histories, of everything that the loader's set holds."""
    split = loader._dataset
    rows = split.inter_feat[ROW_FIELD].numpy()
    positions, lengths, borrowed = split.histories.gather(
        rows, config["MAX_ITEM_LIST_LENGTH"], split.phase
    )
    own = split.histories.index.lengths(rows)
    own = np.minimum(own, config["MAX_ITEM_LIST_LENGTH"])
    return rows, positions, lengths.numpy(), borrowed.numpy(), own


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"history": "positive"},
        {"mars_donor_time": "before"},
        {"eval_args": TEMPORAL},
        {"eval_args": TEMPORAL, "mars_donor_time": "any", "min_history": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", HEURISTICS)
def test_nothing_leaks_into_a_history(bare, name, changes):
    config, loaders = splits_of(bare, name, **changes)
    log = loaders[0]._dataset.log
    before = changes.get("mars_donor_time") == "before" or (
        "eval_args" in changes and "mars_donor_time" not in changes
    )
    foreign = 0
    for loader in loaders:
        rows, positions, lengths, borrowed, own = histories(config, loader)
        before_target = loader._dataset.histories.index.rows_before(rows, 30)[0]
        for i, row in enumerate(rows):
            history = positions[i, : lengths[i]]
            assert 0 <= borrowed[i] <= lengths[i]
            assert borrowed[i] == (lengths[i] - own[i] if name == "random" else 0)
            history = history[history >= 0]
            assert row not in history
            assert (history[log.users[history] == log.users[row]] < row).all()
            if changes.get("history") == "positive":
                assert (log.labels[history] > 0).all()
            added = history[~np.isin(history, before_target[i])]
            assert (log.phases[added] == TRAIN).all()
            if before:
                assert (log.times[added] < log.times[row]).all()
            foreign += len(added)
    assert (foreign > 0) is (name in ("random", "cmrsi"))


@pytest.mark.parametrize("name", HEURISTICS)
def test_borrowed_lengths_reach_the_model(bare, name):
    _, (train, _, _) = splits_of(bare, name)
    batch = train._dataset[list(range(len(train._dataset)))]
    assert (batch[BORROWED_FIELD] >= 0).all()
    assert bool(batch[BORROWED_FIELD].any()) is (name == "random")


def test_masked_behaviours_read_as_nothing(bare):
    _, (train, _, _) = splits_of(bare, "cmr", cmr_mask=1.0, history_labels=True)
    split = train._dataset
    batch = split[list(range(len(split)))]
    positions, lengths, _ = split.histories.gather(split.inter_feat[ROW_FIELD].numpy(), 30, TRAIN)
    inside = np.arange(positions.shape[1]) < lengths.numpy()[:, None]
    masked = inside & (positions < 0)
    assert masked.any()
    assert not batch["item_id_list"].numpy()[masked].any()
    assert not batch["label_list"].numpy()[masked].any()
    assert (batch["item_length"] == lengths).all()


@pytest.mark.parametrize("name", HEURISTICS)
def test_fingerprints_tell_settings_seeds_and_names_apart(bare, name):
    changes = [{}, {"seed": 7}]
    changes += [{"random_items": 3, "random_seq_items": 3, "cmr_mask": 0.1, "reppad_repeats": 2}]
    found = [splits_of(bare, name, **each)[1][0]._dataset.fingerprint() for each in changes]
    found += [splits_of(bare, "none")[1][0]._dataset.fingerprint()]
    assert len(set(found)) == 4
    assert splits_of(bare, name)[1][0]._dataset.fingerprint() == found[0]


@pytest.mark.parametrize("model", ["MARS", "DIN", "GRU4Rec"])
def test_trainers_tell_the_epoch(bare, model, monkeypatch):
    """Ours and RecBole's own, before a batch is asked for."""
    seen = []
    gather = MultimodalDataset._add_histories

    def noting(self, batch):
        if self.phase == TRAIN:
            seen.append(self.histories.epoch)
        return gather(self, batch)

    monkeypatch.setattr(MultimodalDataset, "_add_histories", noting)
    settings = {**bare, "augmentation": "cmr", "epochs": 3, "stopping_step": 9}
    if model == "GRU4Rec":
        settings["train_neg_sample_args"] = None  # for its cross-entropy
    run_recbole(model=model, dataset="world", config_dict=settings)
    assert sorted(set(seen)) == [0, 1, 2]
    assert seen == sorted(seen)


def test_loader_processes_draw_the_same(bare):
    lists = []
    for worker in (0, 2):
        _, (train, _, _) = splits_of(bare, "cmrsi", worker=worker, shuffle=False)
        for epoch in (0, 1):
            train._dataset.histories.epoch = epoch
            lists.append([batch["item_id_list"].numpy() for batch in train])
    for alone, worked in zip(lists[:2], lists[2:]):
        assert all(np.array_equal(a, b) for a, b in zip(alone, worked))
    assert not all(np.array_equal(a, b) for a, b in zip(lists[0], lists[1]))
