"""Extraction on a Ray cluster of this machine: the same bytes, whoever dies."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from fake_encoders import FakeModel

from recbole_mars.features import Execution, extract_text
from recbole_mars.features.extraction import plan

IDS = [f"i{k}" for k in range(60)]
TEXTS = [f"text {k} {'x' * (k * 7 % 31)}" for k in range(60)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    token = tmp_path_factory.mktemp("ray") / "token"
    patch = pytest.MonkeyPatch()
    patch.setenv("FAKE_MODEL_DIES", str(token))
    paths = ":".join([str(Path(__file__).parent), str(Path(__file__).parents[3])])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"FAKE_MODEL_DIES": str(token), "PYTHONPATH": paths}},
    )
    yield token
    ray.shutdown()
    patch.undo()


@pytest.fixture
def whole(tmp_path, monkeypatch) -> dict[str, bytes]:
    monkeypatch.setattr(plan, "SHARD_ITEMS", 12)
    monkeypatch.setattr(plan, "SHARDS", 1)
    extract_text(IDS, TEXTS, FakeModel(), tmp_path / "whole", execution=Execution(4))
    return contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def extract(folder: Path, encoder: FakeModel):
    execution = Execution(4, ray_address="auto", ray_workers=2)
    return extract_text(IDS, TEXTS, encoder, folder, execution=execution)


def test_the_cluster_gives_the_same_bytes(tmp_path, cluster, whole) -> None:
    extraction = extract(tmp_path / "s", FakeModel())
    assert extraction.encoded == 60
    assert contents(tmp_path / "s") == whole
    assert {path.name for path in tmp_path.iterdir()} == {"whole", ".whole.lock", "s", ".s.lock"}


def test_a_killed_worker_is_replaced_and_its_shard_redone(tmp_path, cluster, whole, caplog) -> None:
    cluster.touch()
    extract(tmp_path / "s", FakeModel(kill_when=TEXTS[30]))
    assert cluster.with_suffix(".gone").exists()
    assert "a worker died over shard" in caplog.text
    assert contents(tmp_path / "s") == whole


def test_a_shard_that_always_kills_is_given_up(tmp_path, cluster, whole) -> None:
    cluster.touch()
    with pytest.raises(ValueError, match="brought down 3 workers"):
        extract(tmp_path / "s", FakeModel(kill_when=TEXTS[30], always=True))
    cluster.unlink()
    extraction = extract(tmp_path / "s", FakeModel(kill_when=TEXTS[30]))
    assert 0 < extraction.encoded < 60  # what other shards gave was kept
    assert contents(tmp_path / "s") == whole


def test_errors_of_the_encoder_come_through(tmp_path, cluster) -> None:
    encoder = FakeModel(scale=float("inf"))
    encoder.settings = dict
    with pytest.raises(ValueError, match="finite"):
        extract(tmp_path / "s", encoder)


class Unloadable(FakeModel):
    def load(self) -> None:
        raise ValueError("there is no such model")


def test_a_model_that_cannot_be_loaded(tmp_path, cluster) -> None:
    with pytest.raises(ValueError, match=r"a worker cannot load the model.*there is no such model"):
        extract(tmp_path / "s", Unloadable())


def test_no_cluster(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *a, **k: (_ for _ in ()).throw(ConnectionError("no")))
    with pytest.raises(ValueError, match="no Ray cluster at ray_address 'auto': no; start one"):
        extract(tmp_path / "s", FakeModel())
