"""Snapshots of streaming training: the weights are new, all else is the current one's."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_world import SETTINGS, Deployment, events, records_of, run_once, same, write_model

from recbole_mars.evaluation import log_loss
from recbole_mars.serving import (
    KnownWorld,
    NoSnapshot,
    Request,
    Scorer,
    UserRecord,
    folders,
)
from recbole_mars.serving.events import Event, EventsLost, LocalLog, QueueError
from recbole_mars.serving.offline import OfflineRunner
from recbole_mars.serving.stores import LMDBStore
from recbole_mars.serving.training import Diverged, StreamTrainer, trainer
from recbole_mars.serving.training.behaviours import Behaviours, prepare_samples
from recbole_mars.serving.training.learner import Learner

MODELS: list[dict[str, Any]] = [
    {},
    {"network": "DMAE"},
    {"agreement": True},
    {"augmented": False},
    {"history": "positive"},
    {"network": "AveragePooling"},
    {"network": "DIMO"},
    {"network": "FRNet"},
]


def files_of(snapshot: Path) -> dict[str, str]:
    """Checksums by name."""
    text = (snapshot / folders.MANIFEST).read_text()
    return {name: entry["sha256"] for name, entry in json.loads(text)["files"].items()}


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_snapshot_differs_in_the_networks_weights_alone(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    deployment = Deployment(tmp_path / "d", **model)
    first = deployment.snapshots.current()
    before = files_of(first.folder)
    deployment.append(events(100))
    done = run_once(deployment).progress
    assert (done.step, done.samples, done.based_at) == (12, 96, 12)
    second = deployment.snapshots.current()
    after = files_of(second.folder)
    assert [name for name in after if after[name] != before.get(name)] == [
        "model/network.safetensors"
    ]
    assert before.keys() == after.keys()
    assert files_of(first.folder) == before
    assert deployment.snapshots.at(first.name) == first  # with its own checksums
    notes = dict(second.notes)
    training = notes.pop("training")
    assert notes == first.notes
    assert training["recent"]["events"] == 96
    assert 0 < training["recent"]["log_loss"] < 3
    weights = deployment.weights()
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    saved = deployment.saved()
    assert all(torch.equal(value, saved[f"network.{name}"]) for name, value in weights.items())
    scorer = Scorer.load(second.folder)
    asked = scorer.prepare(Request("new", UserRecord(), np.arange(1, 5)))
    assert np.isfinite(scorer.score([asked])[0]).all()


def test_nothing_new_is_not_published(deployment: Deployment) -> None:
    deployment.append(events(7))
    assert run_once(deployment).progress.step == 0  # no batch is full
    assert deployment.snapshots.names() == ["00000001"]
    deployment.append(events(3, seed=2))
    run_once(deployment)
    run_once(deployment)
    assert deployment.snapshots.names() == ["00000001", "00000002"]


def test_runner_and_trainer_alternate_without_undoing_each_other(deployment: Deployment) -> None:
    published, donors = [], ""
    for stage in range(3):
        deployment.append(events(40, seed=stage + 1))
        step = run_once(deployment).progress.step
        weights = deployment.weights()
        if stage:  # the trainer keeps the runner's donors
            assert files_of(deployment.snapshots.current().folder)["donors/items.npy"] == donors
        deployment.run_offline(with_events=True)
        current = deployment.snapshots.current()
        assert same(deployment.weights(), weights)  # the runner keeps the trainer's weights
        assert current.notes["training"]["step"] == step
        donors = files_of(current.folder)["donors/items.npy"]
        published.append((donors, weights["score.weight"].sum().item()))
    assert len(set(published)) == 3
    assert deployment.snapshots.names() == [f"{number:08d}" for number in range(1, 8)]


def test_another_export_replaces_streamed_weights_and_ends_their_training(
    deployment: Deployment,
) -> None:
    deployment.append(events(40))
    run_once(deployment)
    retrained = write_model(deployment.root / "retrained", seed=1)
    with LMDBStore(deployment.root / "store") as store:
        OfflineRunner(retrained, store, deployment.snapshots).run()
    current = deployment.snapshots.current()
    assert (
        files_of(current.folder)["model/network.safetensors"]
        == (files_of(retrained)["network.safetensors"])
    )
    assert "training" not in current.notes
    deployment.append(events(40, seed=2))
    with pytest.raises(ValueError, match=r"00000003, is of another model .* empty state folder"):
        run_once(deployment)
    assert deployment.snapshots.current_name() == "00000003"
    shutil.rmtree(deployment.state)
    run_once(deployment)
    assert deployment.snapshots.current_name() == "00000004"


def test_two_trainers_do_not_undo_each_other(deployment: Deployment) -> None:
    with deployment.queue() as queue:
        one = StreamTrainer(deployment.snapshots, queue, deployment.root / "one", SETTINGS)
        with pytest.raises(ValueError, match=r"another trainer uses .*one"):
            StreamTrainer(deployment.snapshots, queue, deployment.root / "one", SETTINGS)
        two = StreamTrainer(deployment.snapshots, queue, deployment.root / "two", SETTINGS)
        deployment.append(events(40))
        with one, two:
            one.run(once=True)
            with pytest.raises(ValueError, match="another training publishes to"):
                two.run(once=True)
        # A training that starts from the other's weights takes over.
        shutil.rmtree(deployment.root / "two")
        taken = replace(SETTINGS, take_over=True)
        deployment.append(events(40, seed=2))
        with StreamTrainer(deployment.snapshots, queue, deployment.root / "two", taken) as two:
            two.run(once=True)
    assert deployment.snapshots.names() == ["00000001", "00000002", "00000003"]


def test_pruned_snapshots_are_not_missed(deployment: Deployment) -> None:
    whole = Deployment(deployment.root / "whole")
    for each in (deployment, whole):
        each.append(events(40))
        run_once(each)
        each.append(events(40, seed=2))
    deployment.run_offline()
    for name in ("00000001", "00000002"):
        shutil.rmtree(deployment.snapshots.root / name)
    for each in (deployment, whole):
        run_once(each)
    assert deployment.snapshots.names() == ["00000003", "00000004"]
    assert same(deployment.saved(), whole.saved())


def test_donors_that_are_gone_are_replaced_by_the_current_ones(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.append(events(40))
    run_once(deployment)
    deployment.run_offline(with_events=True)
    shutil.rmtree(deployment.state / "bases" / "00000002")
    deployment.append(events(40, seed=2))
    with caplog.at_level(logging.WARNING):
        run_once(deployment)
    assert "The donors of snapshot 00000002 are gone" in caplog.text
    assert deployment.snapshots.current_name() == "00000004"


def test_a_damaged_state_is_refused(deployment: Deployment) -> None:
    deployment.append(events(40))
    run_once(deployment)
    base = deployment.state / "bases" / "00000002" / "model" / "columns.safetensors"
    data = base.read_bytes()
    base.unlink()
    base.write_bytes(data[:-1] + b"?")
    current = deployment.snapshots.current().folder / "model" / "columns.safetensors"
    run_once(deployment)  # its link is taken anew from the snapshot
    assert base.read_bytes() == data
    for file in (base, current):
        file.unlink()
        file.write_bytes(data[:-1] + b"?")
    with pytest.raises(folders.DamagedFolder, match=r"columns.safetensors was changed"):
        run_once(deployment)
    current.write_bytes(data)
    with LMDBStore(deployment.state / "records") as store:
        store.put_many({b"m/trainer": b'{"run": "x", "more": 1}'})
    with pytest.raises(ValueError, match="state of another version of training"):
        run_once(deployment)
    # Both have freed the folder.
    shutil.rmtree(deployment.state)
    with pytest.raises(ValueError, match="would be trained on twice"):
        run_once(deployment)
    run_once(deployment, replace(SETTINGS, take_over=True))


def test_who_takes_over_trains_on_nothing_twice(deployment: Deployment) -> None:
    """The new training has the histories of all events, and learns from the later ones only."""
    deployment.append(events(43))  # five batches, and three that wait
    run_once(deployment)
    notes = deployment.snapshots.current().notes["training"]
    shutil.rmtree(deployment.state)
    deployment.append(events(37, seed=2))
    successor = run_once(deployment, replace(SETTINGS, take_over=True))
    assert notes["samples"] == 40
    assert successor.progress.known_to == notes["offset"]
    assert (successor.progress.samples, successor.progress.step) == (40, 5)
    found = records_of(deployment)
    other = Deployment(deployment.root / "other")
    other.append(events(43))
    other.append(events(37, seed=2))
    run_once(other)
    assert found == records_of(other)
    # The same command goes on, and needs no permission any more.
    deployment.append(events(8, seed=3))
    assert run_once(deployment).progress.samples == 48


def test_a_loss_is_told_once_while_the_new_log_is_empty(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.append(events(40))
    run_once(deployment)
    shutil.rmtree(deployment.root / "log")
    accepting = replace(SETTINGS, accept_loss=True)
    with deployment.trainer(accepting) as trainer:
        for _ in range(2):
            trainer.run(once=True)
        assert caplog.text.count("Events are lost") == 1
        deployment.append(events(16, seed=2))
        trainer.run(once=True)
    assert trainer.progress.samples == 56


def test_who_takes_over_with_another_log_learns_from_all_of_it(deployment: Deployment) -> None:
    deployment.append(events(40))
    run_once(deployment)
    shutil.rmtree(deployment.state)
    shutil.rmtree(deployment.root / "log")
    deployment.append(events(24, seed=2))
    with pytest.raises(EventsLost, match=r"begins at .*; --accept-loss"):
        run_once(deployment, replace(SETTINGS, take_over=True))
    done = run_once(deployment, replace(SETTINGS, take_over=True, accept_loss=True)).progress
    assert (done.samples, done.known_to) == (24, None)


def test_once_ends_though_more_is_coming(deployment: Deployment, monkeypatch) -> None:
    read, more = LocalLog.read, iter(range(1000))

    def busy(queue: LocalLog, *args: Any) -> list[tuple[str, Event]]:
        queue.append(events(3, seed=next(more)))
        return read(queue, *args)

    monkeypatch.setattr(LocalLog, "read", busy)
    run_once(deployment)
    assert next(more) == 1


def test_a_folder_that_is_no_trainers_is_left_alone(deployment: Deployment) -> None:
    deployment.append(events(40))
    with deployment.queue() as queue, pytest.raises(ValueError, match="is no folder of a training"):
        StreamTrainer(deployment.snapshots, queue, deployment.root, SETTINGS)
    with deployment.queue() as queue, pytest.raises(ValueError, match="is no folder of a training"):
        StreamTrainer(deployment.snapshots, queue, deployment.snapshots.root, SETTINGS)
    assert deployment.snapshots.current_name() == "00000001"
    assert not (deployment.root / "records").exists()


def test_a_damaged_current_snapshot_does_not_end_the_training(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.append(events(40))
    with deployment.trainer() as trainer:
        for offset, event in trainer.queue.read(None, 40):
            trainer._take(offset, event)
        path = deployment.snapshots.current().folder / "model" / "model.json"
        text = path.read_text()
        path.unlink()
        trainer._publish_patiently()
        assert "Publishing failed, the current snapshot stays" in caplog.text
        path.write_text(text)
        trainer._publish_patiently()
    assert deployment.snapshots.current_name() == "00000002"


def test_there_must_be_a_snapshot_to_start_from(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "d", publish=False)
    for _ in range(2):
        with pytest.raises(NoSnapshot, match="publish one first"):
            run_once(deployment)


def test_weights_that_are_worse_are_not_published(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    # With such a rate all is forgotten at each step.
    settings = replace(SETTINGS, learning_rate=3.0, max_loss_increase=0.05)
    deployment.append(events(160))
    with caplog.at_level(logging.WARNING):
        run = run_once(deployment, settings)
    assert deployment.snapshots.names() == ["00000001"]
    assert "Not published: on the latest 160 events the log loss exceeds" in caplog.text
    increase = run.recent.increase()
    assert increase is not None
    assert increase > 0.05
    # The comparison is saved with all else.
    with deployment.trainer(settings) as resumed:
        assert resumed.recent.increase() == increase
        assert resumed.publish() is None
    run_once(deployment, replace(settings, max_loss_increase=1e9))
    notes = deployment.snapshots.current().notes
    assert notes["training"]["recent"]["loss_increase"] == pytest.approx(increase)
    # From now on the weights are compared with these.
    with deployment.trainer(settings) as resumed:
        assert resumed.recent.increase() is None


def test_published_weights_are_compared_on_the_same_events(deployment: Deployment) -> None:
    deployment.append(events(160))
    recent = run_once(deployment, replace(SETTINGS, max_loss_increase=1e9)).recent
    figures = deployment.snapshots.current().notes["training"]["recent"]
    assert recent.increase() is None
    scorer = Scorer.load(deployment.snapshots.root / "00000001")
    world = KnownWorld.load(deployment.model / "world")
    with LMDBStore(deployment.root / "some") as store:
        taking = Behaviours(scorer.model, world, store)
        taken = [taking.take(str(place), event) for place, event in enumerate(events(160))]
    samples = [sample for sample in taken if sample]
    scores = np.concatenate(scorer.score(prepare_samples(scorer, samples)))
    frozen = log_loss([sample.liked for sample in samples], scores)
    assert figures["log_loss"] - figures["loss_increase"] == pytest.approx(frozen)


@pytest.mark.parametrize("where", [(folders, "sync"), (folders, "_digest")])
def test_a_full_disk_while_publishing_leaves_the_current_snapshot(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    deployment.append(events(40))
    current = deployment.snapshots.current()

    def no_space(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with deployment.trainer() as training:
        with monkeypatch.context() as patch:
            patch.setattr(*where, no_space)
            with pytest.raises(OSError, match="No space left"):
                training.run(once=True)
        assert deployment.snapshots.current() == current
        assert deployment.snapshots.names() == ["00000001"]
        training.publish()
    assert deployment.snapshots.current_name() == "00000002"
    saved = deployment.saved()["network.score.weight"]
    assert torch.equal(deployment.weights()["score.weight"], saved)


def test_weights_that_are_not_finite_are_neither_saved_nor_published(
    deployment: Deployment,
) -> None:
    deployment.append(events(40))
    run_once(deployment)
    before = deployment.saved()
    with deployment.trainer() as training:
        network = training.scorer.model.network
        with torch.no_grad():
            network.score.bias.fill_(float("nan"))
        training.progress = replace(training.progress, step=6)
        with pytest.raises(Diverged, match=r"network.score.bias is not finite"):
            training.publish()
    assert same(deployment.saved(), before)
    assert deployment.snapshots.names() == ["00000001", "00000002"]


def test_every_few_minutes_it_publishes_and_tries_again_what_failed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.append(events(40))
    settings = replace(SETTINGS, publish_minutes=1e-6)
    publish, tries = trainer.publish_network, []

    def fail_first(*args: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(28, "No space left on device")
        return publish(*args)

    monkeypatch.setattr(trainer, "publish_network", fail_first)
    with deployment.trainer(settings) as training:
        training.run(stopped=lambda: len(deployment.snapshots.names()) == 2)
    assert len(tries) == 2
    assert "Publishing failed, the current snapshot stays" in caplog.text


def test_a_queue_that_is_away_is_asked_again_and_one_that_lost_events_is_not(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_RETRY_SECONDS", 0.0)
    deployment.append(events(40))
    read, asked = LocalLog.read, []

    def fail_at_first(queue: LocalLog, *args: Any) -> list[tuple[str, Event]]:
        asked.append(1)
        if len(asked) < 3:
            raise QueueError("the server is away")
        return read(queue, *args)

    monkeypatch.setattr(LocalLog, "read", fail_at_first)
    done = threading.Event()
    with deployment.trainer() as training:
        with pytest.raises(QueueError, match="is away"):
            training.run(once=True)

        def stopped() -> bool:
            if training.progress.samples == 40:
                done.set()
            return done.is_set()

        training.run(stopped=stopped)
    assert len(asked) == 3

    def lose(queue: LocalLog, after: str | None, *args: Any) -> list[tuple[str, Event]]:
        if after is not None:
            raise EventsLost("the log begins later")
        return read(queue, after, *args)

    monkeypatch.setattr(LocalLog, "read", lose)
    with pytest.raises(EventsLost, match="begins later; --accept-loss"):
        run_once(deployment)


def test_lost_events_can_be_accepted(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.append(events(40))
    run_once(deployment)
    shutil.rmtree(deployment.root / "log")
    with deployment.queue() as queue:
        queue.append(events(16, seed=2))
    with pytest.raises(EventsLost):
        run_once(deployment)
    done = run_once(deployment, replace(SETTINGS, accept_loss=True)).progress
    assert done.samples == 56


def test_the_queue_learns_what_was_saved(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.append(events(43))
    saved = run_once(deployment).progress.offset
    assert (deployment.root / "log" / "committed" / "training").read_text() == saved

    def away(queue: LocalLog, offset: str) -> None:
        raise QueueError("the server is away")

    deployment.append(events(20, seed=2))
    monkeypatch.setattr(LocalLog, "commit", away)
    run_once(deployment)
    assert "The queue learns at the next save" in caplog.text
    assert deployment.snapshots.current().notes["training"]["step"] == 7


def test_the_learner_makes_only_what_the_settings_say(deployment: Deployment) -> None:
    network = Scorer.load(deployment.snapshots.current().folder).model.network
    (group,) = Learner(network, replace(SETTINGS, weight_decay=0.1)).optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)
    assert len(group["params"]) == len(list(network.parameters()))
