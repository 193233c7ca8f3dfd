"""What is damaged, full or of another model stops no more than it must."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from small_world import Deployment, events, run_once, write_model
from test_offline_runner import options

from recbole_mars.serving import DamagedFolder, Snapshots, snapshots, tensors
from recbole_mars.serving.commands import offline
from recbole_mars.serving.offline import OfflineRunner
from recbole_mars.serving.stores import LMDBStore
from recbole_mars.serving.training.state import StateFolder


def test_a_disk_that_is_full_as_the_weights_are_written_does_not_end_the_training(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.append(events(40))

    def full(*_: Any) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    with deployment.trainer() as training:
        for offset, event in training.queue.read(None, 40):
            training._take(offset, event)
        training.commit()
        with monkeypatch.context() as patch:
            patch.setattr(tensors, "save_file", full)
            training._publish_patiently()
        assert "the disk may be full: network.safetensors: Error while" in caplog.text
        assert deployment.snapshots.names() == ["00000001"]
        training._publish_patiently()
    assert deployment.snapshots.current_name() == "00000002"


def test_an_old_damaged_version_does_not_keep_a_trainer_from_starting(
    deployment: Deployment,
) -> None:
    deployment.append(events(40))
    done = run_once(deployment).progress
    (deployment.snapshots.root / "00000001" / "manifest.json").write_text("{")
    with closing(StateFolder(deployment.state)) as state:  # as a kill before it could note that
        state.commit(replace(done, based_at=0))
    run_once(deployment)
    assert deployment.snapshots.current_name() == "00000002"


def test_a_state_that_is_refused_leaves_nothing_open(deployment: Deployment) -> None:
    with LMDBStore(deployment.state / "records") as store:
        store.put_many({b"m/trainer": b"[]"})
    with pytest.raises(ValueError, match="state of another version of training") as refused:
        StateFolder(deployment.state)
    with LMDBStore(deployment.state / "records") as store:  # not twice in a process
        store.put_many({b"m/trainer": b""})
    assert refused.value


def test_a_folder_of_another_models_training_is_refused_at_the_start(
    deployment: Deployment,
) -> None:
    retrained = write_model(deployment.root / "retrained", seed=1)
    deployment.append(events(40))
    with deployment.trainer() as training:
        with LMDBStore(deployment.root / "store") as store:
            OfflineRunner(retrained, store, deployment.snapshots).run()
        with pytest.raises(ValueError, match=r"00000002, is of another model"):
            training.run(once=True)
    with pytest.raises(ValueError, match=r"of another model .* empty state folder"):
        deployment.trainer().__enter__()
    # A current snapshot that cannot be read only keeps the training from publishing.
    (deployment.snapshots.root / "00000002" / "manifest.json").write_text("{")
    with deployment.trainer() as training, pytest.raises(DamagedFolder):
        training.publish()


def test_a_version_that_the_disk_gives_back_otherwise_fails_one_round(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    published: list[Path] = []
    read = snapshots.read_manifest

    def read_back(folder: Path, verify: bool = True) -> dict[str, Any]:
        if folder.name == "00000002" and not published:
            published.append(folder)
            raise DamagedFolder(f"{folder} was changed")
        return read(folder, verify)

    class Ended(Exception):
        pass

    def publish(self: Snapshots, *given: Any) -> Any:
        if published:
            raise Ended
        return whole(self, *given)

    whole = Snapshots.publish
    monkeypatch.setattr(snapshots, "read_manifest", read_back)
    monkeypatch.setattr(Snapshots, "publish", publish)
    monkeypatch.setattr(offline.signal, "signal", lambda *_: None)
    deployment.append(events(40))
    more = ("--events", str(deployment.root / "log"), "--every-minutes", "0.001")
    with pytest.raises(Ended):  # in the second round
        offline.run(options(deployment, *more))
    assert "this round failed" in caplog.text
    assert deployment.snapshots.names() == ["00000001"]


def test_a_current_file_without_a_name_is_mended_by_the_next_publication(
    deployment: Deployment,
) -> None:
    deployment.append(events(40))
    run_once(deployment)
    training = deployment.snapshots.current().notes["training"]
    (deployment.snapshots.root / "CURRENT").write_text("")
    with LMDBStore(deployment.root / "store") as store:
        OfflineRunner(deployment.model, store, deployment.snapshots).run(keep=1, only_new=True)
    assert deployment.snapshots.names() == ["00000003"]
    assert deployment.snapshots.current().notes["training"] == training
