"""The trainer: what it learns from, what it saves and what it publishes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from small_world import SETTINGS, Deployment, events, same

from recbole_mars.serving.training import StreamTrainer


def trained(deployment: Deployment, **settings: Any) -> StreamTrainer:
    """A trainer that has run to the queue's end, published, and closed its folder."""
    with deployment.queue() as queue:
        trainer = StreamTrainer(
            deployment.snapshots, queue, deployment.state, replace(SETTINGS, **settings)
        )
        with trainer:
            trainer.run(once=True)
    return trainer


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"network": "DMAE"},
        {"agreement": True},
        {"augmented": False},
        {"history": "positive"},
        {"network": "AveragePooling"},
    ],
    ids=str,
)
def test_it_trains_publishes_and_can_be_loaded(tmp_path: Any, model: dict[str, Any]) -> None:
    deployment = Deployment(tmp_path / "d", **model)
    before = deployment.weights()
    deployment.append(events(100))
    trainer = trained(deployment)
    assert trainer.progress.step == 12
    assert trainer.progress.samples == 96
    after = deployment.weights()
    assert not same(before, after)
    assert deployment.snapshots.names() == ["00000001", "00000002"]
