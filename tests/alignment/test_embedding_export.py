from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from recbole_mars.alignment import (
    AlignmentExport,
    AlignmentNetwork,
    export_embeddings,
    pooled_user_embedding,
)
from recbole_mars.data import TRAIN, VALID, InteractionLog

LENGTHS = [3, 9, 5, 12, 4]
MAX_LENGTH = 6


def export(network: AlignmentNetwork, log: InteractionLog, **given: Any) -> AlignmentExport:
    arguments = {"query_rows": np.zeros(0, np.int64), "donor_users": np.zeros(0, np.int64)}
    options = {"max_length": MAX_LENGTH, "batch_users": 2, "progress": False}
    return export_embeddings(network, log, **{**arguments, **options, **given})


@torch.no_grad()
def embed(network: AlignmentNetwork, log: InteractionLog, rows: np.ndarray) -> torch.Tensor:
    """emb_item^mm of some rows as one sequence, (L, D)."""
    items, labels = (torch.from_numpy(column[rows])[None] for column in (log.items, log.labels))
    return network.eval().embed(items, torch.ones_like(items, dtype=torch.bool), labels)[0]


@pytest.mark.parametrize(
    "settings", [{}, {"history_labels": True}, {"attention": "full"}, {"dropout": 0.5}]
)
def test_a_query_is_what_forward_on_its_own_history_gives(
    make_log: Callable[..., InteractionLog],
    make_network: Callable[..., AlignmentNetwork],
    settings: dict[str, Any],
) -> None:
    log, network = make_log(LENGTHS), make_network(**settings)
    query_rows = np.random.default_rng(0).permutation(len(log))
    query_rows = np.append(query_rows, query_rows[:3])
    found = export(network, log, query_rows=query_rows)
    assert np.array_equal(found.query_rows, query_rows)
    assert found.query_embeddings.dtype == np.float32
    for row, embedding in zip(query_rows, found.query_embeddings):
        start = max(log.offsets[log.users[row]], row - MAX_LENGTH)
        if start == row:
            assert np.all(embedding == 0)
            continue
        history = embed(network, log, np.arange(start, row))
        expected = pooled_user_embedding(history[None], torch.ones(1, len(history)).bool())[0]
        np.testing.assert_allclose(embedding, expected.numpy(), atol=1e-5)


def test_queries_of_one_short_history_share_a_pass(
    make_log: Callable[..., InteractionLog],
    make_network: Callable[..., AlignmentNetwork],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, network = make_log([6, 6, 6]), make_network()
    lines, plain = [], network.embed
    monkeypatch.setattr(network, "embed", lambda *a: lines.append(len(a[0])) or plain(*a))
    export(network, log, query_rows=np.arange(18))
    queries = sum(lines)
    lines.clear()
    export(network, log)
    assert queries - sum(lines) == 3


def test_donors_hold_their_latest_training_behaviours(
    make_log: Callable[..., InteractionLog], make_network: Callable[..., AlignmentNetwork]
) -> None:
    log, network = make_log(LENGTHS), make_network(history_labels=True)
    log.phases[[15, 20]] = VALID  # a gap within user 3's and user 4's training behaviours
    found = export(network, log, donor_users=np.array([4, 1, 3]))
    assert found.donor_users.tolist() == [1, 3, 4]
    assert np.all(np.diff(found.donor_rows) > 0)
    assert found.donor_row_embeddings.dtype == np.float16
    expected_rows = []
    for user, pooled in zip(found.donor_users, found.donor_embeddings):
        mine = log.users == user
        rows = np.flatnonzero(mine & (log.phases == TRAIN))[-MAX_LENGTH:]
        expected_rows.append(rows)
        embeddings = embed(network, log, rows)
        np.testing.assert_allclose(pooled, embeddings.mean(0).numpy(), atol=1e-5)
        at = np.isin(found.donor_rows, rows)
        np.testing.assert_allclose(
            found.donor_row_embeddings[at].astype(np.float32), embeddings.numpy(), atol=2e-3
        )
    assert np.array_equal(found.donor_rows, np.concatenate(expected_rows))


def test_items_are_the_mean_of_their_training_behaviours(
    make_log: Callable[..., InteractionLog], make_network: Callable[..., AlignmentNetwork]
) -> None:
    log, network = make_log(LENGTHS), make_network()
    log.items[log.items == 9] = 8
    found = export(network, log, max_length=20)
    sums, counts = np.zeros((log.n_items, 6)), np.zeros(log.n_items)
    for user in range(1, log.n_users):
        rows = np.arange(*log.offsets[user : user + 2])
        for row, embedding in zip(rows, embed(network, log, rows)):
            if log.phases[row] == TRAIN:
                sums[log.items[row]] += embedding.numpy()
                counts[log.items[row]] += 1
    assert np.array_equal(found.item_seen, counts > 0)
    assert not found.item_seen[[0, 9]].any()
    np.testing.assert_allclose(
        found.item_embeddings, sums / np.maximum(counts, 1)[:, None], atol=1e-5
    )


def test_nobody_asks_and_nobody_lends(
    make_log: Callable[..., InteractionLog], make_network: Callable[..., AlignmentNetwork]
) -> None:
    network = make_network().train()
    found = export(network, make_log(LENGTHS))
    assert found.query_embeddings.shape == found.donor_embeddings.shape == (0, 6)
    assert found.donor_row_embeddings.shape == (0, 6)
    assert network.training


def test_bad_queries_and_donors_are_refused(
    make_log: Callable[..., InteractionLog], make_network: Callable[..., AlignmentNetwork]
) -> None:
    log, network = make_log([2, 5]), make_network()
    with pytest.raises(ValueError, match=r"query_rows must lie in 0\.\.6"):
        export(network, log, query_rows=np.array([7]))
    with pytest.raises(ValueError, match=r"donor_users must lie in 1\.\.2"):
        export(network, log, donor_users=np.array([0, 1]))
    with pytest.raises(ValueError, match="1 have none, for example user 1"):
        export(network, log, donor_users=np.array([1, 2]))
    with pytest.raises(ValueError, match="max_length must be >= 1, got 0"):
        export(network, log, max_length=0)
