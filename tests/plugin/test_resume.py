"""A killed run continues where it was and ends as if never interrupted."""

import shutil
from pathlib import Path

import pytest
import torch
from recbole.quick_start import run_recbole

from recbole_mars.plugin.config import CTR_MODELS
from recbole_mars.plugin.trainer import MARSTrainer


class Killed(BaseException):
    """Not an Exception: nothing may catch it, as with a kill."""


@pytest.mark.parametrize(
    ("model", "augmentation"),
    [
        ("MARS", "mars"),
        ("MARS", "cmrsi"),
        ("MARS", "cl4srec"),
        ("MARS", "basrec"),
        *((name, "none") for name in CTR_MODELS),
    ],
)
def test_a_killed_run_ends_like_an_uninterrupted_one(tiny, model, augmentation, monkeypatch):
    settings = {
        **tiny,
        "augmentation": augmentation,
        "epochs": 5,
        "mars_dropout": 0.3,
        "learning_rate_decay": 0.9,
    }
    expected = run_recbole(
        model=model, dataset="world", config_dict={**settings, "checkpoint_dir": "a"}
    )
    train_epoch = MARSTrainer._train_epoch

    def train_until(self, train_data, epoch_idx, *args, **options):
        result = train_epoch(self, train_data, epoch_idx, *args, **options)
        if epoch_idx == 2:
            raise Killed
        return result

    settings["checkpoint_dir"] = "b"
    monkeypatch.setattr(MARSTrainer, "_train_epoch", train_until)
    with pytest.raises(Killed):
        run_recbole(model=model, dataset="world", config_dict=dict(settings))
    assert list(Path("b/mars").glob("stage2-*.pt"))

    epochs = []

    def counted(self, train_data, epoch_idx, *args, **options):
        epochs.append(epoch_idx)
        return train_epoch(self, train_data, epoch_idx, *args, **options)

    monkeypatch.setattr(MARSTrainer, "_train_epoch", counted)
    assert run_recbole(model=model, dataset="world", config_dict=dict(settings)) == expected
    assert epochs[0] == 2
    assert not list(Path("b/mars").glob("stage2-*.pt"))


def test_a_damaged_state_starts_anew(tiny, monkeypatch, caplog):
    expected = run_recbole(model="MARS", dataset="world", config_dict=dict(tiny))
    name_state_file = MARSTrainer._name_state_file
    written = []

    def remember(self, dataset):
        written.append(name_state_file(self, dataset))
        return written[-1]

    monkeypatch.setattr(MARSTrainer, "_name_state_file", remember)
    run_recbole(model="MARS", dataset="world", config_dict=dict(tiny))
    written[0].write_bytes(b"half a checkpoint")
    assert run_recbole(model="MARS", dataset="world", config_dict=dict(tiny)) == expected
    assert "cannot be continued" in caplog.text
    assert not written[0].exists()


def test_changed_data_is_not_continued(tiny, world, tmp_path, monkeypatch):
    """Same ids and settings, other ratings: nothing of the killed run may live on."""
    shutil.copytree(world / "world", tmp_path / "own" / "world")
    settings = {**tiny, "data_path": str(tmp_path / "own"), "epochs": 3}
    train_epoch = MARSTrainer._train_epoch

    def killed_in_the_second(self, train_data, epoch_idx, *args, **options):
        if epoch_idx == 1:
            self._save_state(epoch_idx)
            raise Killed
        return train_epoch(self, train_data, epoch_idx, *args, **options)

    monkeypatch.setattr(MARSTrainer, "_train_epoch", killed_in_the_second)
    with pytest.raises(Killed):
        run_recbole(model="MARS", dataset="world", config_dict=dict(settings))
    file = tmp_path / "own" / "world" / "world.inter"
    head, *lines = file.read_text().splitlines()
    flipped = []
    for line in lines:
        user, item, rating, time = line.split("\t")
        flipped.append("\t".join([user, item, str(6 - float(rating)), time]))
    file.write_text("\n".join([head, *flipped]) + "\n")

    epochs = []

    def counted(self, train_data, epoch_idx, *args, **options):
        epochs.append(epoch_idx)
        return train_epoch(self, train_data, epoch_idx, *args, **options)

    monkeypatch.setattr(MARSTrainer, "_train_epoch", counted)
    run_recbole(model="MARS", dataset="world", config_dict=dict(settings))
    assert epochs[0] == 0


def test_the_same_run_in_two_processes_stays_apart(tiny, monkeypatch, caplog):
    expected = run_recbole(model="MARS", dataset="world", config_dict=dict(tiny))
    train_epoch = MARSTrainer._train_epoch
    inner = []

    def train_and_run_again(self, *args, **options):
        if not inner:
            inner.append(None)
            inner[0] = run_recbole(model="MARS", dataset="world", config_dict=dict(tiny))
        return train_epoch(self, *args, **options)

    monkeypatch.setattr(MARSTrainer, "_train_epoch", train_and_run_again)
    run_recbole(model="MARS", dataset="world", config_dict=dict(tiny))
    assert inner[0] == expected
    assert "going on in another process" in caplog.text


def test_anomaly_detection_is_off_while_training(tiny):
    """RecBole's SINE module, imported by the look-up of any sequential model, switches it on."""
    torch.autograd.set_detect_anomaly(True)
    run_recbole(model="MARS", dataset="world", config_dict=tiny)
    assert not torch.is_anomaly_enabled()
