"""Steps: reproducible, finite or not at all, and better than standing still."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_world import ITEMS, SETTINGS, Deployment, events, run_once, same

from recbole_mars.evaluation import auc, log_loss
from recbole_mars.serving import KnownWorld, Scorer
from recbole_mars.serving.events import Event
from recbole_mars.serving.scoring import collate
from recbole_mars.serving.stores import LMDBStore
from recbole_mars.serving.training import Diverged, StreamSettings
from recbole_mars.serving.training.behaviours import Behaviours, prepare_samples
from recbole_mars.serving.training.learner import Learner
from recbole_mars.serving.training.recent import RecentScores


def batch_of(deployment: Deployment, number: int = 8) -> tuple[Any, Any, np.ndarray]:
    """A scorer, the batch of the first events, and its labels."""
    scorer = Scorer.load(deployment.snapshots.current().folder)
    world = KnownWorld.load(deployment.model / "world")
    with LMDBStore(deployment.root / "some") as store:
        taking = Behaviours(scorer.model, world, store)
        taken = [taking.take(str(place), event) for place, event in enumerate(events(number))]
        samples = [sample for sample in taken if sample]
    labels = np.array([sample.liked for sample in samples])
    return scorer, collate(prepare_samples(scorer, samples)), labels


def test_a_step_draws_from_seed_and_number_alone(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "d", dropout=0.5)
    found = {}
    for name, seed, number in (("one", 0, 1), ("again", 0, 1), ("later", 0, 2), ("other", 1, 1)):
        scorer, batch, labels = batch_of(deployment)
        torch.manual_seed(len(found))  # what was drawn before plays no part
        before = torch.get_rng_state()
        learner = Learner(scorer.model.network, replace(SETTINGS, seed=seed))
        learner.step(batch, labels, number)
        assert torch.equal(torch.get_rng_state(), before)
        assert not scorer.model.network.training
        found[name] = learner.tensors()
    assert same(found["one"], found["again"])
    assert not same(found["one"], found["later"])
    assert not same(found["one"], found["other"])


def test_a_saved_optimizer_goes_on_as_if_never_saved(deployment: Deployment) -> None:
    scorer, batch, labels = batch_of(deployment)
    whole = Learner(scorer.model.network, SETTINGS)
    whole.step(batch, labels, 1)
    saved = whole.tensors()
    whole.step(batch, labels, 2)
    scorer, batch, labels = batch_of(deployment)
    resumed = Learner(scorer.model.network, SETTINGS)
    resumed.load(saved)
    resumed.step(batch, labels, 2)
    assert same(resumed.tensors(), whole.tensors())
    del saved["network.score.weight"]
    with pytest.raises(ValueError, match="the saved state is of another network"):
        resumed.load(saved)


@pytest.mark.parametrize("spoil", ["loss", "gradient"])
def test_what_is_not_finite_changes_no_weight(deployment: Deployment, spoil: str) -> None:
    scorer, batch, labels = batch_of(deployment)
    network = scorer.model.network
    learner = Learner(network, SETTINGS)
    learner.step(batch, labels, 1)
    before = {name: value.clone() for name, value in network.named_parameters()}
    if spoil == "loss":
        batch = batch._replace(
            history=batch.history._replace(labels=batch.history.labels * 0),
        )
        network.score.register_forward_hook(lambda module, given, out: out * float("nan"))
    else:
        network.score.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(Diverged, match=r"step 2 has the loss .* lower learning_rate"):
        learner.step(batch, labels, 2)
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("diverging", [14, 15], ids=["just after a save", "between saves"])
def test_divergence_stops_training_and_keeps_the_last_saved_state(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, diverging: int
) -> None:
    deployment.append(events(60))
    run_once(deployment)
    before = deployment.saved()
    deployment.append(events(80, seed=2))
    step = Learner.step

    def diverge(self: Learner, batch: Any, labels: Any, number: int) -> None:
        if number == diverging:
            labels = labels * np.nan
        step(self, batch, labels, number)

    monkeypatch.setattr(Learner, "step", diverge)
    with deployment.trainer() as trainer:
        assert trainer.progress.step == 7
        with pytest.raises(Diverged, match=f"step {diverging}"):
            trainer.run(once=True)
        with pytest.raises(OSError, match="is closed"):
            trainer.publish()
    assert deployment.snapshots.names() == ["00000001", "00000002"]
    assert not same(deployment.saved(), before)
    monkeypatch.undo()
    with deployment.trainer() as trainer:
        assert trainer.progress.step == 13
    assert run_once(deployment).progress.step == 17


def flipping(number: int, flip: int) -> list[Event]:
    """Half of the items are liked and half are not, the other way round after the flip."""
    random = np.random.default_rng(3)
    found = []
    for place in range(number):
        item = int(random.integers(len(ITEMS)))
        liked = (item % 2 == 0) == (place < flip)
        user = f"v{random.integers(50)}"
        found.append(Event(user, ITEMS[item], 5.0 if liked else 1.0, 1000.0 + place))
    return found


def test_it_learns_what_changes_and_beats_the_frozen_model(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "d", dropout=0.0)
    stream = flipping(2600, flip=1200)
    settings = replace(SETTINGS, batch_size=32, learning_rate=0.02, recent=300)
    aucs = {}
    for end in (1200, 1500, 2400):
        start = max((e for e in aucs), default=0)
        deployment.append(stream[start:end])
        aucs[end] = run_once(deployment, settings).recent.figures()["auc"]
    assert aucs[1200] > 0.9
    assert aucs[1500] < aucs[1200] - 0.2  # each event is scored before it is trained on
    assert aucs[2400] > 0.9
    rest = stream[2400:]
    found = {}
    for name in ("00000001", deployment.snapshots.current_name()):
        scorer = Scorer.load(deployment.snapshots.root / name)
        with LMDBStore(tmp_path / name) as store:
            taking = Behaviours(scorer.model, None, store)
            taken = [taking.take(str(place), event) for place, event in enumerate(rest)]
            samples = [sample for sample in taken if sample]
        scores = np.concatenate(scorer.score(prepare_samples(scorer, samples)))
        found[name] = auc([sample.liked for sample in samples], scores)
    frozen, published = found.values()
    assert published > 0.9 > frozen + 0.2


def test_recent_figures_by_hand() -> None:
    recent = RecentScores(4)
    empty = {"events": 0, "log_loss": None, "auc": None, "loss_increase": None}
    assert recent.figures() == empty
    ones = np.ones(2)
    recent.add(ones, np.array([0.5, 0.5]))
    assert recent.figures()["auc"] is None
    assert recent.figures()["log_loss"] == pytest.approx(np.log(2))
    labels, scores, published = np.array([1, 0, 1]), np.array([0.8, 0.4, 0.3]), np.full(3, 0.5)
    recent.add(labels, scores, published)
    kept, given = [1, 1, 0, 1], np.float32([0.5, 0.8, 0.4, 0.3])
    figures = recent.figures()
    assert figures["events"] == 4
    assert figures["log_loss"] == pytest.approx(log_loss(kept, given))
    assert figures["auc"] == pytest.approx(2 / 3)
    increase = log_loss(labels, np.float32(scores)) - np.log(2)
    assert figures["loss_increase"] == pytest.approx(increase)
    other = RecentScores(2)
    other.load(recent.tensors())
    assert other.figures()["events"] == 2
    recent.forget_published()
    assert recent.increase() is None
    assert recent.figures()["events"] == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 1),
        ("commit_batches", 0),
        ("keep", 0),
        ("seed", -1),
        ("recent", 0),
        ("publish_minutes", 0.0),
        ("learning_rate", float("nan")),
        ("max_norm", float("inf")),
        ("weight_decay", -0.1),
        ("max_loss_increase", float("nan")),
    ],
)
def test_a_setting_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .* got {value}"):
        StreamSettings(**{name: value})
