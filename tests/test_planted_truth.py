"""The whole of MARS on data whose truth is known: every user and every item has one taste.

Low-active users show too few behaviours for a model of item ids to tell their taste; texts and
pictures tell an item's taste, and high-active users of the same taste can lend theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from recbole_mars.alignment import (
    AlignmentExport,
    AlignmentNetwork,
    AlignmentSettings,
    TrainingSettings,
    export_embeddings,
    train_alignment,
)
from recbole_mars.augmentation import (
    NoAugmenter,
    PrefixTable,
    RetrievalSettings,
    RetrievedAugmenter,
    build_prefixes,
)
from recbole_mars.ctr import DIN, DINSettings, FieldEmbedding
from recbole_mars.data import TRAIN, HistoryIndex, InteractionLog
from recbole_mars.data.synthetic import SyntheticSettings, generate, to_log, write_atomic
from recbole_mars.evaluation import HIGH, LOW, activity_groups, auc
from recbole_mars.features import (
    PixelEncoder,
    TfidfEncoder,
    extract_images,
    extract_text,
    find_images,
)
from recbole_mars.retrieval import DonorPool, UserIndex

LENGTH = 60


class World(NamedTuple):
    log: InteractionLog
    user_taste: np.ndarray  # by internal id, -1 for the padding
    item_taste: np.ndarray
    groups: np.ndarray
    low_targets: np.ndarray  # log rows
    export: AlignmentExport
    prefixes: PrefixTable


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    data = generate(
        SyntheticSettings(n_users=600, n_items=2000, own_share=0.7, high_length=(40, 80), seed=0)
    )
    log = to_log(data)
    folder = tmp_path_factory.mktemp("planted")
    write_atomic(data, folder, "world")
    ids = data.item_tokens
    text = extract_text(ids, [t or "" for t in data.texts], TfidfEncoder(32), folder / "text").store
    pictures = find_images(ids, folder / "world" / "images")
    image = extract_images(ids, pictures, PixelEncoder(32), folder / "image").store
    features = [
        np.concatenate([np.zeros_like(part[:1]), part])
        for store in (text, image)
        for part in store.select(ids)
    ]
    torch.manual_seed(0)
    network = AlignmentNetwork(
        AlignmentSettings(id_width=16, width=32, ffn_width=32), log.n_items, *features
    )
    settings = TrainingSettings(
        epochs=10, batch_users=32, learning_rate=3e-3, max_length=LENGTH, patience=3
    )
    train_alignment(network, log, settings=settings, progress=False)
    groups = activity_groups(log.training_counts())
    rows = np.arange(len(log))
    low = np.flatnonzero((groups[log.users] == LOW) & (rows > log.offsets[log.users]))
    donors = np.flatnonzero(groups == HIGH)
    export = export_embeddings(
        network, log, low, donors, max_length=LENGTH, batch_users=64, device="cpu", progress=False
    )
    pool = DonorPool(
        export.donor_users, export.donor_embeddings, export.donor_rows, export.donor_row_embeddings
    )
    own = HistoryIndex(log).lengths(low)
    prefixes = build_prefixes(
        log, low, export.query_embeddings, pool, RetrievalSettings(max_length=LENGTH), own
    )
    return World(
        log,
        np.append(-1, data.user_tastes),
        np.append(-1, data.item_tastes),
        groups,
        low,
        export,
        prefixes,
    )


def test_alignment_recovers_the_taste(world):
    """An item's nearest neighbour in the aligned space has its taste; chance is one in six."""
    seen = np.flatnonzero(world.export.item_seen)
    points = world.export.item_embeddings[seen]
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    similar = points @ points.T
    np.fill_diagonal(similar, -1)
    nearest = seen[similar.argmax(1)]
    assert (world.item_taste[nearest] == world.item_taste[seen]).mean() > 0.8


def test_retrieval_finds_users_of_the_same_taste(world):
    """Far above chance, and the more so the more behaviours the query knows."""
    index = UserIndex(world.export.donor_embeddings, world.export.donor_users)
    _, found = index.search(world.export.query_embeddings, 1)
    asker = world.log.users[world.low_targets]
    same = world.user_taste[found[:, 0]] == world.user_taste[asker]
    chance = (world.user_taste[world.export.donor_users] == world.user_taste[asker, None]).mean()
    assert same.mean() > 2.5 * chance
    known = world.low_targets - world.log.offsets[asker]
    assert same[known >= 3].mean() > same[known == 1].mean()


def test_filtering_keeps_what_suits_the_user(world):
    """Borrowed behaviours are of the user's taste more often than the donors' behaviours are."""
    borrower = np.repeat(world.log.users[world.prefixes.rows], np.diff(world.prefixes.pointers))
    borrowed = world.item_taste[world.log.items[world.prefixes.values]]
    lent = world.item_taste[world.log.items[world.export.donor_rows]]
    by_chance = (lent == world.user_taste[borrower[::50], None]).mean()
    assert (borrowed == world.user_taste[borrower]).mean() > 2 * by_chance


def low_active_auc(world, augmenter, seed):
    """AUC over the held-out targets of low-active users, of a DIN on item ids."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    log, history = world.log, HistoryIndex(world.log)
    model = DIN(FieldEmbedding(log.n_items, 8), None, DINSettings((16,), (32,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01)
    items = torch.from_numpy(np.append(log.items, 0))
    labels = torch.from_numpy(log.labels)

    def logits(rows):
        histories, lengths = history.rows_before(rows, LENGTH)
        histories, lengths = augmenter.augment(rows, histories, lengths, LENGTH, "train")
        mask = torch.arange(histories.shape[1]) < torch.from_numpy(lengths)[:, None]
        return model(items[torch.from_numpy(histories)], mask, items[rows])

    rows = np.arange(len(log))
    targets = np.flatnonzero((log.phases == TRAIN) & (rows > log.offsets[log.users]))
    for _ in range(6):
        for batch in np.array_split(generator.permutation(targets), len(targets) // 256):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits(batch), labels[batch]
            )
            loss.backward()
            optimizer.step()
    model.eval()
    held_out = world.low_targets[log.phases[world.low_targets] != TRAIN]
    with torch.no_grad():
        return auc(log.labels[held_out], logits(held_out))


def test_augmentation_raises_the_auc_of_low_active_users(world):
    gains = [
        low_active_auc(world, RetrievedAugmenter(world.prefixes), seed)
        - low_active_auc(world, NoAugmenter(), seed)
        for seed in range(3)
    ]
    assert np.mean(gains) > 0.03, gains
