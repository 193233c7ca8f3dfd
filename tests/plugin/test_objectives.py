"""CL4SRec, CoSeRec and BASRec as objectives on MARS's DIN, through RecBole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import run_recbole
from recbole.utils import init_seed

import recbole_mars
from recbole_mars.plugin.config import OBJECTIVES
from recbole_mars.plugin.dataset import VIEW_PREFIXES
from recbole_mars.plugin.trainer import MARSTrainer

OFF = {
    "contrast_weight": 0.0,
    "basrec_single_weight": 0.0,
    "basrec_cross_weight": 0.0,
}
HISTORY_FIELDS = ("item_id_list", "label_list", "item_length")


@pytest.fixture
def plain(tiny):
    """No features and no stage 1 are needed; views from the first epoch on."""
    del tiny["text_fields"], tiny["image_dir"]
    return {**tiny, "basrec_start": 0, "coserec_short": 3}


def prepared(settings, **changes):
    config = Config("MARS", "world", config_dict={**settings, **changes})
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    return config, recbole_mars.MARS(config, train._dataset), train, valid, test


def gradients(model, batch):
    model.zero_grad()
    torch.manual_seed(0)
    loss = model.calculate_loss(batch)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run(plain, name):
    result = run_recbole(model="MARS", dataset="world", config_dict={**plain, "augmentation": name})
    assert 0 < result["test_result"]["auc"] < 1
    assert not list(Path("saved/mars").glob("world-*"))  # no stage 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_views_are_in_training_batches_only(plain, name):
    config, _, train, valid, test = prepared(plain, augmentation=name)
    batch = next(iter(train))
    for prefix in VIEW_PREFIXES:
        view = {field: batch[prefix + field] for field in HISTORY_FIELDS}
        n, width = view["item_id_list"].shape
        assert n == len(batch)
        assert width == view["item_length"].max() <= config["MAX_ITEM_LIST_LENGTH"]
        assert view["label_list"].shape == (n, width)
        beyond = torch.arange(width) >= view["item_length"].unsqueeze(1)
        assert not view["item_id_list"][beyond].any()
        assert batch[prefix + "rate"].shape == (n,)
    for loader in (valid, test):
        first = next(iter(loader))[0]
        assert not [field for field in first.columns if field.startswith("view")]


def test_histories_without_labels_have_views_without(plain):
    _, model, train, _, _ = prepared(plain, augmentation="coserec", history_labels=False)
    batch = next(iter(train))
    assert "view_1_label_list" not in batch
    assert model.calculate_loss(batch).isfinite()


def test_views_change_with_the_epoch(plain):
    _, _, train, _, _ = prepared(plain, augmentation="cl4srec")
    dataset = train._dataset
    rows = torch.arange(40)

    def views(epoch):
        dataset.histories.epoch = epoch
        return dataset[rows]["view_1_item_id_list"]

    first = views(0)
    assert torch.equal(views(0), first)
    assert views(1).shape != first.shape or not torch.equal(views(1), first)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_weight_zero_is_exactly_plain_din(plain, name, dropout):
    settings = {**plain, "mars_dropout": dropout}
    _, with_objective, train, _, _ = prepared(settings, augmentation=name, **OFF)
    _, without, _, _, _ = prepared(settings, augmentation="none")
    without.load_state_dict(with_objective.state_dict())
    batch = next(iter(train))
    assert "view_1_item_id_list" in batch
    loss, found = gradients(with_objective.train(), batch)
    plain_loss, expected = gradients(without.train(), batch)
    assert loss == plain_loss
    assert all(torch.equal(found[n], expected[n]) for n in expected)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objective_adds_to_the_loss_and_moves_the_weights(plain, name):
    _, model, train, _, _ = prepared(plain, augmentation=name)
    batch = next(iter(train))
    loss, found = gradients(model.train(), batch)
    bare = batch[torch.arange(len(batch))]
    for field in [f for f in bare.columns if f.startswith("view")]:
        del bare.interaction[field]
    plain_loss, expected = gradients(model, bare)
    assert loss > plain_loss
    moved = [n for n in expected if not torch.equal(found[n], expected[n])]
    assert "network.items.id_embedding.weight" in moved
    assert ("network.score.weight" in moved) == (name == "basrec")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_evaluation_is_that_of_plain_din(plain, name):
    """Same weights, same logits, to the last bit."""
    _, model, _, _, test = prepared(plain, augmentation=name)
    _, without, _, _, plain_test = prepared(plain, augmentation="none")
    assert model.state_dict().keys() == without.state_dict().keys()
    without.load_state_dict(model.state_dict())
    model.eval(), without.eval()
    for batch, plain_batch in zip(test, plain_test):
        assert torch.equal(model.predict(batch[0]), without.predict(plain_batch[0]))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_marks_and_sampled_negatives_go_together_with_views(plain, name):
    settings = {
        **plain,
        "mars_mark_borrowed": True,
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
    }
    _, model, train, _, _ = prepared(settings, augmentation=name)
    assert model.calculate_loss(next(iter(train))).isfinite()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_killed_run_has_the_losses_of_an_uninterrupted_one(plain, name, monkeypatch):
    settings = {**plain, "augmentation": name, "epochs": 4, "mars_dropout": 0.2, "basrec_start": 1}
    train_epoch = MARSTrainer._train_epoch
    losses = []

    def noted(self, train_data, epoch_idx, *args, **options):
        losses.append(train_epoch(self, train_data, epoch_idx, *args, **options))
        return losses[-1]

    def killed_after_two(self, train_data, epoch_idx, *args, **options):
        if epoch_idx == 2:
            self._save_state(epoch_idx)
            raise KeyboardInterrupt
        return train_epoch(self, train_data, epoch_idx, *args, **options)

    def run(folder):
        found = {**settings, "checkpoint_dir": folder}
        return run_recbole(model="MARS", dataset="world", config_dict=found)

    monkeypatch.setattr(MARSTrainer, "_train_epoch", noted)
    expected = run("a")
    uninterrupted = list(losses)
    assert run("c") == expected  # the same seed, the same losses
    assert losses[len(uninterrupted) :] == uninterrupted
    monkeypatch.setattr(MARSTrainer, "_train_epoch", killed_after_two)
    with pytest.raises(KeyboardInterrupt):
        run("b")
    monkeypatch.setattr(MARSTrainer, "_train_epoch", noted)
    losses.clear()
    assert run("b") == expected
    assert losses == uninterrupted[2:]


def test_basrec_starts_late(plain):
    _, _, train, _, _ = prepared(plain, augmentation="basrec", basrec_start=2)
    found = []
    for epoch in range(3):
        train._dataset.histories.epoch = epoch
        found.append("view_1_rate" in next(iter(train)))
    assert found == [False, False, True]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("model", ["DIN", "SASRec", "MARSAlign"])
def test_models_without_the_objective_are_refused(plain, model, name):
    with pytest.raises(ValueError, match=f"augmentation {name} trains MARS .* {model} cannot"):
        Config(model, "world", config_dict={**plain, "augmentation": name})


def test_a_model_of_the_users_own_may_derive_from_mars(plain):
    class Derived(recbole_mars.MARS):
        pass

    config = Config(Derived, "world", config_dict={**plain, "augmentation": "cl4srec"})
    assert config["augmentation"] == "cl4srec"


def test_bad_settings_name_their_keys(plain):
    for augmentation, key, value, message in (
        ("cl4srec", "contrast_temperature", 0.0, "contrast_temperature must be > 0, got 0.0"),
        ("coserec", "contrast_weight", -1.0, "contrast_weight must be >= 0"),
        ("cl4srec", "contrast_representation", "mean", "contrast_representation must be one of"),
        ("coserec", "coserec_short", -1, "coserec_short must be >= 0, got -1"),
        ("basrec", "basrec_alpha", 0.0, "basrec_alpha must be > 0"),
        ("basrec", "basrec_rates", [], "basrec_rates must hold at least one"),
        ("basrec", "basrec_rates", [0.5, 1.5], "basrec_rates must lie in 0..1, got 1.5"),
        ("basrec", "basrec_start", -1, "basrec_start must be >= 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message.replace(".", r"\.")):
            prepared(plain, augmentation=augmentation, **{key: value})


def test_several_processes_are_refused(plain):
    config = Config("MARS", "world", config_dict={**plain, "augmentation": "cl4srec"})
    train, _, _ = data_preparation(config, create_dataset(config))
    config["single_spec"] = False
    with pytest.raises(ValueError, match=r"compares the rows of a whole batch.* take nproc 1"):
        recbole_mars.MARS(config, train._dataset)


def test_views_stand_for_training_behaviours_only(plain):
    """Substituted and inserted rows were seen in training, and the targets are none of them."""
    _, _, train, _, _ = prepared(plain, augmentation="coserec", cmrsi_insert=1.0)
    dataset = train._dataset
    histories, log = dataset.histories, dataset.log
    rows = dataset.inter_feat["log_row"].numpy()
    positions, lengths = histories.index.rows_before(rows, 10)
    for view in histories.views(rows, positions, lengths, 10):
        for row, inside in zip(rows, view.histories):
            inside = inside[inside >= 0]
            assert row not in inside
            assert (log.phases[inside[log.users[inside] != log.users[row]]] == 0).all()
            assert (inside[log.users[inside] == log.users[row]] < row).all()
    assert np.any(lengths > 3)
