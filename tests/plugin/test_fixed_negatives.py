"""Data of clicks only: each click with the same negatives in every run."""

from __future__ import annotations

import numpy as np
import pytest
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import run_recbole

from recbole_mars.data import TEST, TRAIN, VALID
from recbole_mars.plugin.dataset import ROW_FIELD
from recbole_mars.plugin.metrics import cold_items

SPLITS = [
    {"split": {"LS": "valid_and_test"}},
    {"split": {"RS": [8, 1, 1]}},
    {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": None},
]


def prepared(tiny, model="MARS", **changes):
    settings = {**tiny, "augmentation": "none", "fixed_negatives": 2, **changes}
    config = Config(model, "world", config_dict=settings)
    data = create_dataset(config)
    return data, data_preparation(config, data)


SAMPLED_BY_RECBOLE = {
    "fixed_negatives": 0,
    "threshold": None,
    "valid_metric": "LogLoss",
    "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
}


def everything(loader):
    """All rows that a loader gives, by their place in the log."""
    batch = loader._dataset[list(range(len(loader._dataset)))]
    return batch[np.argsort(batch[ROW_FIELD].numpy())]


@pytest.mark.parametrize("eval_args", SPLITS)
@pytest.mark.parametrize("min_history", [0, 1])
def test_each_click_has_its_negatives_in_its_split_and_they_its_history(
    tiny, eval_args, min_history
):
    settings = {**tiny, "eval_args": eval_args, "min_history": min_history}
    data, loaders = prepared(settings)
    plain, plain_loaders = prepared(settings, **SAMPLED_BY_RECBOLE)
    met = set(zip(plain.log.users.tolist(), plain.log.items.tolist()))
    for loader, plain_loader in zip(loaders, plain_loaders):
        found, clicks = everything(loader), everything(plain_loader)
        n = len(clicks)
        assert found["label"].reshape(n, 3).tolist() == [[0, 0, 1]] * n
        assert (found["user_id"].reshape(n, 3) == clicks["user_id"][:, None]).all()
        items = found["item_id"].reshape(n, 3)
        assert (items[:, 2] == clicks["item_id"]).all()
        pairs = zip(clicks["user_id"].repeat_interleave(2).tolist(), items[:, :2].ravel().tolist())
        assert not met & set(pairs)
        histories, width = clicks["item_id_list"], found["item_id_list"].shape[1]
        assert (found["item_id_list"].reshape(n, 3, width) == histories[:, None]).all()
    assert np.array_equal(data.log.phases, np.repeat(plain.log.phases, 3))
    assert np.array_equal(data.log.training_counts(), plain.log.training_counts())
    assert np.array_equal(cold_items(data.log, data.config), cold_items(plain.log, plain.config))


def test_they_are_the_same_for_every_seed_and_model(tiny):
    first, _ = prepared(tiny, seed=1)
    for model in ("DMAE", "DIN", "DIEN", "FM"):
        other, loaders = prepared(tiny, model, seed=2, metrics=["AUC"], valid_metric="AUC")
        assert np.array_equal(first.log.items, other.log.items), model
        held_out = [loader._dataset for loader in loaders[1:]]
        assert [len(part) for part in held_out] == [
            int((first.log.phases == phase).sum()) for phase in (VALID, TEST)
        ]
    popular, _ = prepared(tiny, fixed_negatives_by="popularity")
    moment, _ = prepared(tiny, fixed_negatives_by="moment")
    assert (moment.log.items != popular.log.items).any()
    assert not np.array_equal(first.log.items, popular.log.items)


@pytest.mark.parametrize("model", ["MARS", "DMAE", "DIMO", "DIN", "DIEN", "FM"])
def test_models_train_on_them(tiny, model):
    settings = {**tiny, "metrics": ["AUC"], "valid_metric": "AUC", "epochs": 1}
    result = run_recbole(
        model, "world", config_dict={**settings, "fixed_negatives": 1, "augmentation": "none"}
    )
    assert 0 < result["test_result"]["auc"] < 1


@pytest.mark.parametrize("scope", ["behaviour", "user"])
@pytest.mark.parametrize("changes", [{}, {"mars_donor_time": "before"}])
def test_they_borrow_what_their_click_borrows(tiny, scope, changes):
    """And nobody borrows them, nor learns from them whom to ask."""
    asked = {"augmentation": "mars", "retrieval_scope": scope, "mars_theta": 0.0, **changes}
    _, (train, valid, test) = prepared(tiny, **asked)
    log = train._dataset.log
    borrowing = 0
    for loader in (train, valid, test):
        found = everything(loader)
        n, width = len(found) // 3, found["item_id_list"].shape[1]
        for name in ("borrowed_length", "item_length"):
            each = found[name].reshape(n, 3)
            assert (each == each[:, 2:]).all()
        items = found["item_id_list"].reshape(n, 3, width)
        assert (items == items[:, 2:]).all()
        borrowing += int((found["borrowed_length"] > 0).sum())
    assert borrowing > 0
    table = train._dataset.histories.augmenter._values
    assert len(table)
    assert not log.drawn[table].any()
    assert (log.phases[table] == TRAIN).all()


def test_stage_one_as_a_model(tiny):
    settings = {**tiny, "metrics": ["AUC"], "valid_metric": "AUC", "fixed_negatives": 1}
    result = run_recbole("MARSAlign", "world", config_dict={**settings, "augmentation": "none"})
    assert 0 < result["test_result"]["auc"] < 1


def test_rows_of_the_matrix_are_clicks(tiny):
    data, (train, *_) = prepared(tiny)
    plain, (plain_train, *_) = prepared(tiny, **SAMPLED_BY_RECBOLE)
    for part, expected in ((data, plain), (train._dataset, plain_train._dataset)):
        assert (part.inter_matrix() != expected.inter_matrix()).nnz == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"fixed_negatives": -1}, "fixed_negatives must be a whole number"),
        ({"fixed_negatives": 1.5}, "fixed_negatives must be a whole number"),
        ({"fixed_negatives": True}, "fixed_negatives must be a whole number"),
        ({"fixed_negatives_by": "chance"}, "fixed_negatives_by must be"),
        ({"threshold": {"rating": 4}}, r"\d+ of \d+ are labelled 0; set threshold"),
        (
            {"mars_agreement": True, "opinion_field": "timestamp"},
            "agreement is of clicks, which hold no opinions, and opinion_field is 'timestamp'",
        ),
        ({"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}, "draws more"),
        ({"eval_args": {"mode": "uni10"}}, "valid_neg_sample_args draws more"),
    ],
)
def test_what_cannot_go_with_them_is_said(tiny, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        prepared(tiny, **changes)
