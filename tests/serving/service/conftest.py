"""A tiny model, twelve users and everything that a service needs, made by hand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from recbole_mars.alignment import AlignmentNetwork, AlignmentSettings
from recbole_mars.augmentation import RetrievalSettings
from recbole_mars.ctr import DINSettings, FieldEmbedding, Modality, build_network
from recbole_mars.evaluation import HIGH, LOW
from recbole_mars.serving import (
    ModelSettings,
    RequestSettings,
    Scorer,
    Snapshots,
    TokenTable,
    TrainedModel,
    UserRecord,
    describe_table,
    table_columns,
)
from recbole_mars.serving.donor_building import DonorBuilder
from recbole_mars.serving.service import Engine, ServiceSettings, create_app
from recbole_mars.serving.stores import KeyValueStore, StoreError
from recbole_mars.serving.users import RUNNER_KEY, user_key

N_ITEMS = 21
WIDTH = 8
MODEL = "tiny"


class MemoryStore(KeyValueStore):
    """A store that can be told to fail, or to wait. gate: set while it answers."""

    def __init__(self) -> None:
        super().__init__("the store in memory", read_only=False)
        self.pairs: dict[bytes, bytes] = {}
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        self.asked += 1
        assert self.gate.wait(20)
        if self.fails:
            raise StoreError("the store in memory is told to fail")
        return [self.pairs.get(key) for key in keys]

    def _put(self, batch: dict[bytes, bytes]) -> None:
        self.pairs.update(batch)

    def _delete(self, keys: list[bytes]) -> None:
        for key in keys:
            self.pairs.pop(key, None)

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        yield from ((key, value) for key, value in self.pairs.items() if key.startswith(prefix))

    def ping(self) -> None:
        self._get([])

    def close(self) -> None:
        pass


def _model(seed: int) -> TrainedModel:
    torch.manual_seed(7)
    rng = np.random.default_rng(7)
    present = np.arange(N_ITEMS) > 0
    features = {
        name: Modality(name, rng.normal(size=(N_ITEMS, 5)).astype(np.float32), present)
        for name in ("image", "text")
    }
    alignment_settings = AlignmentSettings(
        id_width=4, width=WIDTH, ffn_width=4, history_labels=True
    )
    alignment = AlignmentNetwork(
        alignment_settings,
        N_ITEMS,
        features["text"].vectors,
        present,
        features["image"].vectors,
        present,
    )
    torch.manual_seed(seed)  # versions differ in the CTR network
    items, users = FieldEmbedding(N_ITEMS, 6), FieldEmbedding(9, 6)
    din = DINSettings(
        attention_hidden=(4,), dnn_hidden=(6,), history_labels=True, mark_borrowed=True
    )
    network = build_network("MARS", items, users, din)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    settings = ModelSettings(
        network="MARS",
        din=din,
        own=None,
        items=describe_table(items),
        users=describe_table(users),
        modalities=(),
        alignment=alignment_settings,
        retrieval=RetrievalSettings(
            strategy="top_k", candidates=3, theta=-1.0, theta_kind="cosine", max_length=6
        ),
        threshold=-1.0,
        agreement="",
        requests=RequestSettings(
            max_length=6, like_from=4.0, opinions="value", low_up_to=3, kept=20
        ),
    )
    columns = {**table_columns("items", items), **table_columns("users", users)}
    tokens = TokenTable(f"item{number}" for number in range(1, N_ITEMS))
    for module in (network, alignment):
        module.eval().requires_grad_(False)
    return TrainedModel(settings, network, alignment, None, tokens, columns, features)


def _records() -> dict[str, UserRecord]:
    """person1 to person5 lend, person6 to person8 borrow, person9 is new."""
    rng = np.random.default_rng(5)
    found = {}
    for user in range(1, 10):
        n = 7 if user <= 5 else 3
        values = rng.integers(1, 6, n)
        found[f"person{user}"] = UserRecord(
            items=rng.integers(1, N_ITEMS, n).astype(np.int32),
            liked=values >= 4,
            opinions=values.astype(np.float32),
            times=np.arange(n) + 10.0 * user,
            trained=np.full(n, user < 9),
            seen=n,
            user=user % 9,
            group=HIGH if user <= 5 else LOW if user <= 8 else -1,
        )
    return found


@pytest.fixture(scope="session")
def models() -> Callable[[int], TrainedModel]:
    """Models by seed, which have items and stage 1 in common."""
    made: dict[int, TrainedModel] = {}

    def model(seed: int) -> TrainedModel:
        return made.setdefault(seed, made.get(seed) or _model(seed))

    return model


@pytest.fixture(scope="session")
def records() -> dict[str, UserRecord]:
    return _records()


@pytest.fixture(scope="session")
def scorers(
    models: Callable[[int], TrainedModel], records: dict[str, UserRecord]
) -> Callable[[int], Scorer]:
    """What the answers have to equal, by seed."""
    made: dict[int, Scorer] = {}

    def scorer(seed: int) -> Scorer:
        if seed not in made:
            model = models(seed)
            builder = DonorBuilder(Scorer(model, None), model.settings.retrieval)
            builder.add([(user, records[user]) for user in records if records[user].group == HIGH])
            made[seed] = Scorer(model, builder.finish())
        return made[seed]

    return scorer


@pytest.fixture
def store(records: dict[str, UserRecord]) -> MemoryStore:
    found = MemoryStore()
    found.put_many({user_key(user): record.to_bytes() for user, record in records.items()})
    found.put_many({RUNNER_KEY: json.dumps({"model": MODEL}).encode()})
    return found


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "snapshots")


@pytest.fixture
def publish(snapshots: Snapshots, scorers: Callable[[int], Scorer]) -> Callable[..., str]:
    """Publish the model of a seed; returns the version's name."""

    def publish(seed: int, model: TrainedModel | None = None, named: str = MODEL) -> str:
        scorer = scorers(seed)

        def write(folder: Path) -> dict[str, Any]:
            (folder / "model").mkdir()
            (model or scorer.model).save(folder / "model")
            assert scorer.donors is not None
            scorer.donors.save(folder / "donors")
            return {"model": named}

        return snapshots.publish(write, keep=20).name

    return publish


@pytest.fixture
def broken(models: Callable[[int], TrainedModel]) -> TrainedModel:
    """A model that gives no numbers."""
    network = _model(1).network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    return replace(models(1), network=network)


@pytest.fixture
def serve(snapshots: Snapshots, store: MemoryStore) -> Iterator[Callable[..., TestClient]]:
    """Start the service over what is published, with these settings; returns a client."""
    with ExitStack() as started:

        def start(ready: bool = True, **settings: Any) -> TestClient:
            given = {"poll_seconds": 0.01, "seconds": 20.0, **settings}
            app = create_app(Engine(snapshots, store), ServiceSettings(**given))
            client = started.enter_context(TestClient(app, raise_server_exceptions=True))
            while ready and client.get("/readyz").status_code != 200:
                time.sleep(0.005)
            return client

        yield start
        store.gate.set()
