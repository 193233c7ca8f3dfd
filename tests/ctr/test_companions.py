"""What occurs together, counted by hand and by a loop."""

from collections import Counter

import numpy as np
import pytest
import torch

from recbole_mars.ctr import FieldEmbedding, find_companions
from recbole_mars.ctr.companions import CompanionVectors
from recbole_mars.data import InteractionLog


def log_of(*histories, n_items=None):
    users = np.repeat(np.arange(1, len(histories) + 1), [len(h) for h in histories])
    items = np.concatenate(histories)
    zeros = np.zeros(len(items))
    return InteractionLog(
        users,
        items,
        zeros.astype(np.float32),
        zeros,
        zeros.astype(np.int8),
        len(histories) + 1,
        n_items or int(items.max()) + 1,
    )


def test_by_hand():
    log = log_of([1, 2, 1, 3], [2, 3])
    found = find_companions(log, np.arange(len(log)), count=2, window=1)
    # 1-2 twice, 1-3 once, 2-3 once
    assert found.items.tolist() == [[0, 0], [2, 3], [1, 3], [1, 2]]
    np.testing.assert_allclose(found.shares, [[0, 0], [2 / 3, 1 / 3], [2 / 3, 1 / 3], [0.5, 0.5]])


@pytest.mark.parametrize("window", [1, 3, 50])
@pytest.mark.parametrize("count", [1, 4, 30])
def test_equals_a_loop(window, count):
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, 12, size=n) for n in (9, 1, 15, 4)]
    log = log_of(*histories, n_items=14)
    rows = np.flatnonzero(rng.random(len(log)) < 0.7)
    pairs = Counter()
    for place, a in enumerate(rows):
        for b in rows[place + 1 : place + 1 + window]:
            i, j = log.items[a], log.items[b]
            if log.users[a] == log.users[b] and i != j:
                pairs[i, j] += 1
                pairs[j, i] += 1
    found = find_companions(log, rows, count, window)
    for item in range(14):
        others = sorted((-n, j) for (i, j), n in pairs.items() if i == item)[:count]
        real = found.items[item] > 0
        assert found.items[item][real].tolist() == [j for _, j in others]
        total = sum(-n for n, _ in others)
        np.testing.assert_allclose(found.shares[item][real], [-n / total for n, _ in others])
        assert not found.shares[item][~real].any()


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_behaviours(rows):
    found = find_companions(log_of([1, 2]), np.arange(rows), count=2, window=3)
    assert not found.items.any()
    assert not found.shares.any()


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_vectors_spread_over_the_graph(layers):
    torch.manual_seed(0)
    log = log_of([1, 2, 1, 3], [2, 3], [4])
    companions = find_companions(log, np.arange(len(log)), count=2, window=1)
    items = FieldEmbedding(5, 3)
    table = CompanionVectors(items, companions, layers).double()
    adjacency = torch.zeros(5, 5).double()
    for i in range(5):
        for j, share in zip(companions.items[i], companions.shares[i]):
            adjacency[i, j] += float(share)
    expected = items.id_embedding.weight
    for _ in range(layers):
        expected = expected + adjacency @ expected
    ids = torch.tensor([[4, 1], [0, 1]])
    torch.testing.assert_close(table(ids), expected[ids])
    assert {"companions", "shares"} <= set(table.state_dict())
