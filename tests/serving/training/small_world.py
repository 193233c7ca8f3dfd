"""A tiny trained model as files, a runner that publishes it, and a stream of events after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from recbole_mars.agreement import AgreementSettings, agree
from recbole_mars.alignment import AlignmentNetwork, AlignmentSettings
from recbole_mars.augmentation import RetrievalSettings
from recbole_mars.ctr import NETWORKS, DINSettings, FieldEmbedding, Modality, build_network
from recbole_mars.data import TRAIN, InteractionLog
from recbole_mars.evaluation import HIGH, LOW
from recbole_mars.serving import (
    KnownWorld,
    ModelSettings,
    RequestSettings,
    Snapshots,
    TokenTable,
    TrainedModel,
    describe_table,
    table_columns,
    whole_folder,
)
from recbole_mars.serving.events import Event, LocalLog
from recbole_mars.serving.offline import OfflineRunner
from recbole_mars.serving.stores import LMDBStore
from recbole_mars.serving.training import StreamSettings, StreamTrainer

N_USERS, N_ITEMS = 20, 12
USERS = [f"u{place}" for place in range(1, N_USERS + 1)]
ITEMS = [f"i{place}" for place in range(1, N_ITEMS + 1)]
# The last users are high-active, and so the donors.
LENGTHS = np.where(np.arange(N_USERS) < 12, 2, 8)
SETTINGS = StreamSettings(
    batch_size=8, commit_batches=2, publish_minutes=1e6, learning_rate=0.01, keep=10
)


def write_model(
    folder: Path,
    network: str = "MARS",
    augmented: bool = True,
    agreement: bool = False,
    history: str = "all",
    clicks_only: bool = False,
    dropout: float = 0.3,
    seed: int = 0,
    with_world: bool = True,
) -> Path:
    """A model with random weights. seed: of the CTR network's."""
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    text = Modality(
        "text",
        np.concatenate([np.zeros((1, 3)), random.normal(size=(N_ITEMS, 3))]).astype(np.float32),
        np.arange(N_ITEMS + 1) > 0,
    )
    alignment = None
    if augmented:
        settings = AlignmentSettings(
            id_width=4, width=4, ffn_width=4, use_image=False, use_stein=False
        )
        alignment = AlignmentNetwork(
            settings, N_ITEMS + 1, text.vectors, text.present, None, None
        ).eval()
    world = _world(random)
    opinions = np.asarray(world.opinions, dtype=np.float32)
    fitted = None
    if agreement:
        small = AgreementSettings(factors=2, folds=2, max_length=6, sample_users=10)
        fitted = agree(world.log(N_ITEMS + 1), opinions, {}, small).fitted
        world = replace(world, folds=fitted.fold[1:].astype(np.int8))
    torch.manual_seed(seed)
    items = FieldEmbedding(N_ITEMS + 1, 4)
    kind = NETWORKS[network]
    own = kind.settings() if kind.settings is not None else None
    din = DINSettings(
        attention_hidden=[4],
        dnn_hidden=[8],
        dropout=dropout,
        history_labels=True,
        mark_borrowed=augmented,
        context_width=5 if agreement else 0,
    )
    read = [text] if kind.reads_features else []
    model = TrainedModel(
        ModelSettings(
            network=network,
            din=din,
            own=own,
            items=describe_table(items),
            users=None,
            modalities=tuple(modality.name for modality in read),
            alignment=None if alignment is None else alignment.settings,
            retrieval=RetrievalSettings(max_length=6, center=False) if augmented else None,
            threshold=-1.0,
            agreement="opinions" if agreement else "",
            requests=RequestSettings(
                max_length=6,
                history=history,
                clicks_only=clicks_only,
                like_from=4.0,
                opinions="value",
                low_up_to=3,
                high_from=10,
                kept=30,
            ),
        ),
        build_network(network, items, None, din, own, read).eval(),
        alignment,
        fitted,
        TokenTable(ITEMS),
        table_columns("items", items),
        {"text": text} if augmented or read else {},
    )
    with whole_folder(folder, {}) as aside:
        model.save(aside)
        if with_world:
            world.save(aside / "world")
    return folder


def _world(random: np.random.Generator) -> KnownWorld:
    total = int(LENGTHS.sum())
    opinions = random.integers(1, 6, total).astype(np.float32)
    return KnownWorld(
        users=TokenTable(USERS),
        groups=np.where(LENGTHS > 2, HIGH, LOW).astype(np.int8),
        folds=np.zeros(N_USERS, dtype=np.int8),
        bounds=np.concatenate([[0], np.cumsum(LENGTHS)]),
        items=random.integers(1, N_ITEMS + 1, total).astype(np.int32),
        liked=opinions >= 4,
        opinions=opinions,
        times=np.concatenate([np.arange(length) for length in LENGTHS]).astype(np.float64),
        trained=np.ones(total, dtype=bool),
    )


def known_log() -> InteractionLog:
    """What the model was trained on."""
    log = _world(np.random.default_rng(0)).log(N_ITEMS + 1)
    assert (log.phases == TRAIN).all()
    return log


class Deployment:
    """Folders of a model, its snapshots, a queue and a trainer."""

    def __init__(self, root: Path, publish: bool = True, **model: object) -> None:
        self.root = root
        self.model = write_model(root / "model", **model)  # type: ignore[arg-type]
        self.snapshots = Snapshots(root / "snapshots")
        self.state = root / "state"
        # Logs of the same events are then alike to the byte.
        (root / "log").mkdir()
        (root / "log" / f"{0:020d}.log").touch()
        if publish:
            self.run_offline()

    def run_offline(self, with_events: bool = False) -> None:
        """One round of the offline runner, on the queue's events too if asked."""
        with LMDBStore(self.root / "store") as store, LocalLog(self.root / "log") as queue:
            runner = OfflineRunner(self.model, store, self.snapshots)
            runner.run(queue if with_events else None, keep=10)

    def queue(self) -> LocalLog:
        return LocalLog(self.root / "log")

    @contextmanager
    def trainer(self, settings: StreamSettings = SETTINGS) -> Iterator[StreamTrainer]:
        with self.queue() as queue:
            trainer = StreamTrainer(self.snapshots, queue, self.state, settings)
            with trainer:
                yield trainer

    def append(self, events: list[Event]) -> None:
        with self.queue() as queue:
            queue.append(events)

    def weights(self, snapshot: str | None = None) -> dict[str, torch.Tensor]:
        """Of the network in a snapshot, the current one by default."""
        name = snapshot or self.snapshots.current_name()
        return load_file(self.snapshots.root / name / "model" / "network.safetensors")

    def saved(self) -> dict[str, torch.Tensor]:
        """What the trainer saved last."""
        with LMDBStore(self.state / "records", read_only=True) as store:
            file = json.loads(store.get(b"m/trainer") or b"")["file"]
        return load_file(self.state / file)


def events(number: int, seed: int = 1) -> list[Event]:
    """Events of known and new users, in time."""
    random = np.random.default_rng(seed)
    users = [*USERS, *(f"new{place}" for place in range(5))]
    return [
        Event(
            users[random.integers(len(users))],
            ITEMS[random.integers(N_ITEMS)],
            float(random.integers(1, 6)),
            1000.0 * seed + place,
        )
        for place in range(number)
    ]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether all bits are alike."""
    return one.keys() == other.keys() and all(
        torch.equal(one[name].nan_to_num(-1.0), other[name].nan_to_num(-1.0)) for name in one
    )


def run_once(deployment: Deployment, settings: StreamSettings = SETTINGS) -> StreamTrainer:
    """A trainer that has run to the queue's end, published, and closed its folder."""
    with deployment.trainer(settings) as trainer:
        trainer.run(once=True)
    return trainer


def records_of(deployment: Deployment) -> dict[bytes, bytes]:
    """The users' records that the trainer has stored."""
    with LMDBStore(deployment.state / "records", read_only=True) as store:
        return dict(store.scan(b"u/"))
