from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_mars.alignment import (
    AlignmentNetwork,
    AlignmentSettings,
    TrainingHistory,
    TrainingSettings,
    train_alignment,
)
from recbole_mars.alignment.training import _auc
from recbole_mars.data import TRAIN, VALID, InteractionLog

SETTINGS = TrainingSettings(epochs=3, patience=9, batch_users=3, max_length=8, learning_rate=0.01)
RANDOM = {"dropout": 0.3, "stein_items": 4, "history_labels": True}  # draw in every step
LENGTHS = [5, 9, 12, 4, 7, 20, 6]
BATCHES = 4  # in an epoch of these settings and lengths


def train(
    network: AlignmentNetwork,
    log: InteractionLog,
    settings: TrainingSettings = SETTINGS,
    folder: Path | None = None,
) -> TrainingHistory:
    return train_alignment(network, log, settings=settings, folder=folder, progress=False)


def assert_same_weights(one: AlignmentNetwork, other: AlignmentNetwork) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def planted_log() -> tuple[InteractionLog, np.ndarray]:
    """Users like one of two kinds of items, told by the text; their past tells which."""
    generator = np.random.default_rng(0)
    n_users, length, n_items = 60, 12, 30
    kinds = np.arange(n_items + 1) % 2
    users = np.repeat(np.arange(1, n_users + 1), length)
    items = generator.integers(1, n_items + 1, len(users))
    liked = kinds[items] == users % 2
    labels = np.where(generator.random(len(users)) < 0.1, ~liked, liked).astype(np.float32)
    phases = np.full((n_users, length), TRAIN, dtype=np.int8)
    phases[:, -3:] = VALID
    times = np.tile(np.arange(length, dtype=np.float64), n_users)
    log = InteractionLog(users, items, labels, times, phases.ravel(), n_users + 1, n_items + 1)
    noise = generator.normal(size=(n_items + 1, 4))
    return log, (noise + 3 * (2 * kinds[:, None] - 1)).astype(np.float32)


def test_auc_of_hand_values() -> None:
    labels = np.array([False, False, True, True])
    assert _auc(np.array([0.1, 0.4, 0.35, 0.8]), labels) == pytest.approx(0.75)
    assert _auc(np.array([1.0, 1.0, 1.0, 1.0]), labels) == pytest.approx(0.5)


def test_auc_equals_counting_pairs() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.integers(0, 6, 50), generator.random(50) < 0.4
    wins = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    assert _auc(scores, labels) == pytest.approx(np.mean(wins))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_planted_taste_is_learned(precision: str) -> None:
    log, features = planted_log()
    present = np.ones(log.n_items, dtype=bool)
    settings = AlignmentSettings(id_width=8, width=8, ffn_width=8, history_labels=True)
    torch.manual_seed(0)
    network = AlignmentNetwork(settings, log.n_items, features, present, features, present)
    taught = TrainingSettings(
        epochs=9, patience=9, batch_users=10, learning_rate=0.05, precision=precision
    )
    history = train(network, log, taught)
    aucs = [record["auc"] for record in history.epochs]
    assert max(aucs) > 0.7
    assert history.epochs[-1]["ctr"] < history.epochs[0]["ctr"]


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(
    make_log: Callable[..., InteractionLog],
    make_network: Callable[..., AlignmentNetwork],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
) -> None:
    log = make_log(LENGTHS)
    whole = make_network(**RANDOM)
    history = train(whole, log)

    broken, resumed = make_network(**RANDOM), make_network(seed=1, **RANDOM)
    calls, loss = [], broken.loss

    def killed(*args: torch.Tensor) -> object:
        calls.append(args)
        if len(calls) > BATCHES * epoch + 1:
            raise KeyboardInterrupt
        return loss(*args)

    monkeypatch.setattr(broken, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train(broken, log, folder=tmp_path)

    calls.clear()
    loss = resumed.loss
    monkeypatch.setattr(resumed, "loss", lambda *args: calls.append(args) or loss(*args))
    assert train(resumed, log, folder=tmp_path) == history
    assert len(calls) == BATCHES * (SETTINGS.epochs - epoch)
    assert_same_weights(resumed, whole)


def test_a_finished_run_is_not_trained_again(
    make_log: Callable[..., InteractionLog],
    make_network: Callable[..., AlignmentNetwork],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, first, second = make_log(LENGTHS), make_network(), make_network()
    history = train(first, log, folder=tmp_path)
    monkeypatch.setattr(second, "loss", None)
    assert train(second, log, folder=tmp_path) == history
    assert_same_weights(first, second)
    assert [path.name for path in tmp_path.iterdir()] == ["alignment.pt"]


@pytest.mark.parametrize("spoil", ["cut", "garbage", "settings", "labels"])
def test_a_checkpoint_that_does_not_fit_is_reported_and_replaced(
    make_log: Callable[..., InteractionLog],
    make_network: Callable[..., AlignmentNetwork],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: str,
) -> None:
    log = make_log(LENGTHS)
    fresh = make_network()
    history = train(fresh, log)

    path = tmp_path / "alignment.pt"
    other = replace(log, labels=1 - log.labels) if spoil == "labels" else log
    train(make_network(), other, replace(SETTINGS, seed=int(spoil == "settings")), tmp_path)
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif spoil == "garbage":
        path.write_bytes(b"not a checkpoint")
    anew = make_network()
    with caplog.at_level(logging.WARNING):
        assert train(anew, log, folder=tmp_path) == history
    expected = "is damaged" if spoil in ("cut", "garbage") else "is of other settings or data"
    assert f"{path} {expected}" in caplog.text
    assert "training starts anew" in caplog.text
    assert_same_weights(anew, fresh)


def test_bfloat16_is_for_the_products_of_training_alone(
    make_log: Callable[..., InteractionLog],
    make_network: Callable[..., AlignmentNetwork],
) -> None:
    log, network = make_log(LENGTHS), make_network()
    dtypes = {True: set(), False: set()}
    network.ffn[0].register_forward_hook(
        lambda module, _, output: dtypes[module.training].add(output.dtype)
    )
    train(network, log, replace(SETTINGS, epochs=1, precision="bfloat16"))
    assert dtypes == {True: {torch.bfloat16}, False: {torch.float32}}
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


def test_training_leaves_the_global_generator_alone(
    make_log: Callable[..., InteractionLog], make_network: Callable[..., AlignmentNetwork]
) -> None:
    log, network = make_log(LENGTHS), make_network(**RANDOM)
    before = torch.get_rng_state()
    train(network, log)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_is_all_that_training_draws_from(
    make_log: Callable[..., InteractionLog], make_network: Callable[..., AlignmentNetwork]
) -> None:
    log = make_log(LENGTHS)
    losses = []
    for seed, ambient in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(ambient)
            history = train(make_network(**RANDOM), log, replace(SETTINGS, epochs=1, seed=seed))
        losses.append(history.epochs[0]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_every_epoch_mixes_its_batches_anew(
    make_log: Callable[..., InteractionLog],
    make_network: Callable[..., AlignmentNetwork],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = make_network()
    batches, loss = [], network.loss
    monkeypatch.setattr(network, "loss", lambda *args: batches.append(args[0]) or loss(*args))
    train(network, make_log(LENGTHS), replace(SETTINGS, epochs=2))
    first, second = batches[:BATCHES], batches[BATCHES:]
    assert not all(torch.equal(one, other) for one, other in zip(first, second))


def test_patience_stops_and_the_best_weights_come_back(
    make_log: Callable[..., InteractionLog],
    make_network: Callable[..., AlignmentNetwork],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, network = make_log(LENGTHS), make_network()
    aucs, weights = iter([0.6, 0.7, 0.65, 0.7, 0.9]), []

    def validate(network: AlignmentNetwork, *_: object) -> float:
        weights.append(network.ffn[0].weight.detach().clone())
        return next(aucs)

    monkeypatch.setattr("recbole_mars.alignment.training._validate", validate)
    history = train(network, log, replace(SETTINGS, epochs=9, patience=2))
    assert (history.best_epoch, len(history.epochs)) == (2, 4)
    assert torch.equal(network.ffn[0].weight, weights[1])
    assert not torch.equal(weights[1], weights[3])
    assert not network.training


def test_the_validation_auc_is_that_of_single_forwards(
    make_log: Callable[..., InteractionLog], make_network: Callable[..., AlignmentNetwork]
) -> None:
    log, network = make_log([5, 6, 8, 4, 7, 8, 6]), make_network(history_labels=True)
    history = train(network, log, replace(SETTINGS, epochs=1, max_length=20))
    scores, labels = [], []
    for row in np.flatnonzero(log.phases == VALID):
        stretch = slice(log.offsets[log.users[row]], row + 1)
        items, given = (torch.from_numpy(c[stretch])[None] for c in (log.items, log.labels))
        scores.append(network(items, items > 0, given).logits[0, -1].item())
        labels.append(log.labels[row] > 0)
    assert history.epochs[0]["auc"] == pytest.approx(_auc(np.array(scores), np.array(labels)))


@pytest.mark.parametrize("valid", ["none", "one class"])
def test_without_a_validation_all_epochs_are_trained(
    make_log: Callable[..., InteractionLog],
    make_network: Callable[..., AlignmentNetwork],
    caplog: pytest.LogCaptureFixture,
    valid: str,
) -> None:
    log = make_log(LENGTHS)
    if valid == "none":
        log = replace(log, phases=np.where(log.phases == VALID, TRAIN, log.phases))
    else:
        log = replace(log, labels=np.where(log.phases == VALID, 1, log.labels).astype(np.float32))
    with caplog.at_level(logging.WARNING):
        history = train(make_network(), log, replace(SETTINGS, patience=1))
    assert "validation rows do not hold both classes" in caplog.text
    assert len(history.epochs) == history.best_epoch == SETTINGS.epochs
    assert "auc" not in history.epochs[0]


def test_training_labels_of_one_class_are_refused(
    make_log: Callable[..., InteractionLog], make_network: Callable[..., AlignmentNetwork]
) -> None:
    log = make_log(LENGTHS)
    liked = replace(log, labels=np.where(log.phases == TRAIN, 1, log.labels).astype(np.float32))
    with pytest.raises(ValueError, match=r"training labels must hold both classes, got \[1.0\]"):
        train(make_network(), liked)


def test_a_loss_that_is_not_finite_stops_training(
    make_log: Callable[..., InteractionLog], make_network: Callable[..., AlignmentNetwork]
) -> None:
    network = make_network()
    with torch.no_grad():
        network.ffn[0].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="became nan in epoch 1; lower learning_rate"):
        train(network, make_log(LENGTHS))
