"""A synthetic world of any size, served as a real one is: model folder, store and snapshot.

Items: 200 topics of unequal size, with text and image features around them. Users: 30 % low-active
(5 to 30 behaviours), 30 % high-active (as many as a history holds to twice that), the others in
between, each in a few topics. The model is MARS with the sizes of properties/ and random weights:
what an answer costs does not depend on what it says. With the threshold at -1 all that the nearest
donor has is borrowed, so that augmented histories are as long as histories can be.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from recbole_mars.agreement import AGREEMENT_COLUMNS, AgreementSettings, agree
from recbole_mars.alignment import AlignmentNetwork, AlignmentSettings
from recbole_mars.augmentation import RetrievalSettings
from recbole_mars.ctr import DINSettings, FieldEmbedding, Modality, build_network
from recbole_mars.evaluation import HIGH, LOW, MID
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
from recbole_mars.serving.offline import OfflineRunner
from recbole_mars.serving.stores import open_store

TOPICS = 200
WIDTHS = {"text": 384, "image": 768}  # MiniLM's and ViT-B/16's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes of the world, and where it is kept."""
    sizes = parser.add_argument_group("the synthetic world")
    sizes.add_argument("--users", type=int, default=20_000)
    sizes.add_argument("--items", type=int, default=10_000)
    sizes.add_argument("--length", type=int, default=200, help="of a history, at most")
    sizes.add_argument("--width", type=int, default=256, help="of multimodal embeddings")
    sizes.add_argument("--index", default="flat", help="flat, ivf or hnsw")
    sizes.add_argument("--storage", default="float32", help="float32, float16, int8 or pq")
    sizes.add_argument("--strategy", default="filtered", help="of augmentation")
    sizes.add_argument("--agreement", action="store_true", help="the network reads it, too")
    sizes.add_argument("--seed", type=int, default=0)
    sizes.add_argument(
        "--worlds", type=Path, default=Path("runs/serving"), help="folder that worlds are kept in"
    )


def name_of(args: argparse.Namespace) -> str:
    """Of the world with these sizes."""
    parts = [args.users, args.items, args.length, args.width, args.index, args.storage]
    parts += [args.strategy, "agreement" if args.agreement else "plain", args.seed]
    return "-".join(map(str, parts))


def make(args: argparse.Namespace, store: str | None = None) -> Path:
    """The folder of the world, made unless it is there: model, store, snapshots.

    store: the address of a store to fill as well, for example Redis.
    """
    folder = args.worlds.resolve() / name_of(args)
    if not (folder / "model").is_dir():
        write_model(folder / "model", args)
    # The end of a run that was made before is found at once.
    for address in (str(folder / "store"), *([] if store is None else [store])):
        with open_store(address) as opened:
            runner = OfflineRunner(
                folder / "model", opened, Snapshots(folder / "snapshots"), progress=True
            )
            if not (folder / "snapshots" / "CURRENT").is_file():
                runner.run()
            else:
                runner.bootstrap()
    return folder


def requests_of(
    snapshot: Path, count: int, candidates: int, seed: int, recent: int = 0
) -> list[bytes]:
    """Bodies of requests: users as they come, items and `recent` behaviours by chance."""
    random = np.random.default_rng(seed)
    users = TokenTable.load(snapshot / "users" / "tokens")
    items = TokenTable.load(snapshot / "model" / "items")
    names = list(items)
    bodies = []
    for _ in range(count):
        chosen = random.choice(len(names), min(candidates, len(names)), replace=False)
        asked = {
            "user": users[int(random.integers(len(users)))],
            "candidates": [names[place] for place in chosen],
        }
        if recent:
            asked["recent"] = [
                {"item": names[place], "value": 5.0, "time": 2e9 + number}
                for number, place in enumerate(random.integers(0, len(names), recent))
            ]
        bodies.append(json.dumps(asked).encode())
    return bodies


def write_model(folder: Path, args: argparse.Namespace) -> None:
    """A model with random weights, and what it knows of its users."""
    random = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    topic = random.choice(TOPICS, args.items, p=random.dirichlet(np.ones(TOPICS)))
    features = {name: _features(name, width, topic, random) for name, width in WIDTHS.items()}
    world = _world(args, topic, random)
    alignment = AlignmentNetwork(
        AlignmentSettings(width=args.width, history_labels=True),
        args.items + 1,
        *(array for name in WIDTHS for array in (features[name].vectors, features[name].present)),
    ).eval()
    fitted = None
    if args.agreement:
        contents = {name: modality.vectors for name, modality in features.items()}
        found = agree(world.log(args.items + 1), world.opinions, contents, AgreementSettings())
        fitted = found.fitted
        world = replace(world, folds=fitted.fold[1:].astype(np.int8))
    items = FieldEmbedding(args.items + 1, 10)
    din = DINSettings(
        history_labels=True, context_width=len(AGREEMENT_COLUMNS) if args.agreement else 0
    )
    network = build_network("MARS", items, None, din).eval()
    settings = ModelSettings(
        network="MARS",
        din=din,
        own=None,
        items=describe_table(items),
        users=None,
        modalities=(),
        alignment=alignment.settings,
        retrieval=RetrievalSettings(
            strategy=args.strategy,
            index=args.index,
            storage=args.storage,
            max_length=args.length,
            rerank=0 if args.storage == "float32" else 100,
        ),
        threshold=-1.0,
        agreement=args.agreement,
        requests=RequestSettings(
            max_length=args.length,
            like_from=4.0,
            opinions="value",
            low_up_to=30,
            high_from=args.length,
            kept=max(1000, 2 * args.length),
        ),
        dataset=name_of(args),
    )
    model = TrainedModel(
        settings,
        network,
        alignment,
        fitted,
        TokenTable(f"item{number}" for number in range(1, args.items + 1)),
        table_columns("items", items),
        features,
    )
    with whole_folder(folder, {"dataset": settings.dataset}) as aside:
        model.save(aside)
        world.save(aside / "world")


def _features(name: str, width: int, topic: np.ndarray, random: np.random.Generator) -> Modality:
    centres = random.standard_normal((TOPICS, width))
    vectors = centres[topic] + 0.7 * random.standard_normal((len(topic), width))
    vectors = np.concatenate([np.zeros((1, width)), vectors]).astype(np.float32)
    return Modality(name, vectors, np.arange(len(vectors)) > 0)


def _world(args: argparse.Namespace, topic: np.ndarray, random: np.random.Generator) -> KnownWorld:
    n, length = args.users, args.length
    groups = random.choice(np.array([LOW, MID, HIGH], dtype=np.int8), n, p=[0.3, 0.4, 0.3])
    bounds = {LOW: (5, 31), MID: (31, max(32, length)), HIGH: (length, 2 * length + 1)}
    low, high = (np.array([bounds[group][end] for group in groups]) for end in (0, 1))
    lengths = random.integers(low, high)
    by_topic = [np.flatnonzero(topic == number) for number in range(TOPICS)]
    filled = np.array([number for number, items in enumerate(by_topic) if len(items)])
    total = int(lengths.sum())
    likes = filled[random.integers(0, len(filled), (n, 3))]  # three topics a user
    of = likes[np.repeat(np.arange(n), lengths), random.integers(0, 3, total)]
    sizes = np.array([len(items) for items in by_topic])
    order = np.concatenate(by_topic)
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    items = order[starts[of] + (random.random(total) * sizes[of]).astype(int)] + 1
    opinions = random.integers(1, 6, total).astype(np.float32)
    ends = np.cumsum(lengths)
    times = 1.7e9 + 60.0 * (np.arange(total) - np.repeat(ends - lengths, lengths))
    return KnownWorld(
        users=TokenTable(f"user{number}" for number in range(1, n + 1)),
        groups=groups,
        folds=np.zeros(n, dtype=np.int8),
        bounds=np.concatenate([[0], ends]),
        items=items.astype(np.int32),
        liked=opinions >= 4,
        opinions=opinions,
        times=times,
        trained=np.ones(total, dtype=bool),
    )
