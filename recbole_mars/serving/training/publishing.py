"""From weights in training to a snapshot that differs from the current one in them alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from recbole_mars.serving.folders import DamagedFolder, link_folder
from recbole_mars.serving.model_folder import TrainedModel
from recbole_mars.serving.snapshots import Snapshot, Snapshots
from recbole_mars.serving.training.learner import Diverged

__all__ = ["publish_network", "published_step", "refuse_other", "training_of"]

_WEIGHTS = "network.safetensors"


def training_of(notes: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a snapshot's notes tell of streaming training; empty for weights from offline."""
    return notes.get("training") or {}


def publish_network(
    snapshots: Snapshots,
    model: TrainedModel,
    base: Mapping[str, Any],
    training: Mapping[str, Any],
    keep: int,
) -> Snapshot:
    """Publish the current snapshot anew with the model's network, and with notes on its training.

    base: notes of the snapshot that training started from. training: has the name of its run.
    Raises ValueError if the current snapshot is of another model, of another run, or damaged,
    Diverged for weights that are not finite, and then publishes nothing.
    """

    def write(folder: Path) -> dict[str, Any]:
        # All that publish take turns, so nothing becomes current between this and the new one.
        current = snapshots.current()
        refuse_other(current, base, training["run"])
        link_folder(current.folder, folder)
        # The link goes first: the file itself belongs to the current snapshot too.
        (folder / "model" / _WEIGHTS).unlink()
        model.save_network(folder / "model")
        _check(folder / "model", model)
        return {**current.notes, "training": dict(training)}

    return snapshots.publish(write, keep)


def published_step(snapshots: Snapshots, run: str, step: int) -> Snapshot | None:
    """The first snapshot with the weights of a step, if one was published.

    A later version than the current one is none: who wrote it was killed before it became current.
    """
    current = snapshots.current_name()
    for name in snapshots.names():
        if name > current:
            break
        try:
            found = snapshots.at(name, verify=False)
        except (FileNotFoundError, DamagedFolder):  # removed since, or of no use
            continue
        training = training_of(found.notes)
        if training.get("run") == run and training.get("step") == step:
            return found
    return None


def refuse_other(current: Snapshot, base: Mapping[str, Any], run: str) -> None:
    """Raise ValueError if the current snapshot is of another model, or of another run than this.

    base: notes of the snapshot that training started from.
    """
    if any(current.notes.get(name) != base.get(name) for name in ("model", "exported")):
        raise ValueError(
            f"the current snapshot, {current.folder}, is of another model than the training "
            "started from; start it anew, with an empty state folder"
        )
    other = training_of(current.notes).get("run")
    if other not in (None, run, training_of(base).get("run")):
        raise ValueError(
            f"another training publishes to {current.folder.parent} as well, and each would undo "
            "the other; end one"
        )


def _check(folder: Path, model: TrainedModel) -> None:
    written = TrainedModel.load(folder).network.state_dict()
    for name, value in model.network.state_dict().items():
        if not torch.isfinite(value).all():
            raise Diverged(f"{name} is not finite: it is not published")
        if not torch.equal(written[name], value):
            raise OSError(f"{folder / _WEIGHTS} is not what was written; look at the disk")
