import logging

import numpy as np
import pytest

from recbole_mars.augmentation import (
    STRATEGIES,
    PrefixTable,
    RetrievalSettings,
    RetrievedAugmenter,
    build_prefixes,
)
from recbole_mars.data import TEST, TRAIN, VALID, HistoryIndex, InteractionLog
from recbole_mars.retrieval import Candidate, DonorPool

N_USERS, N_TASTES, WIDTH = 40, 4, 6


def world(seed=0):
    """A log, its donor pool, query rows, their embeddings and own lengths.

    Users 1..20 lend: user 1 has an embedding but no training rows, user 2 rows but no embedding.
    Queries are rows of users 15..39, donors among them, in no order.
    """
    random = np.random.default_rng(seed)
    counts = random.integers(3, 14, N_USERS)
    counts[1] = 2
    users = np.repeat(np.arange(1, N_USERS + 1), counts)
    phases = np.full(len(users), TRAIN, dtype=np.int8)
    ends = np.cumsum(counts)
    phases[ends - 1], phases[ends - 2] = TEST, VALID
    phases[users == 1] = VALID
    times = np.concatenate([np.sort(random.integers(0, 30, n)) for n in counts]).astype(float)
    log = InteractionLog(
        users,
        random.integers(1, 15, len(users)),
        np.ones(len(users), dtype=np.float32),
        times,
        phases,
        N_USERS + 1,
        15,
    )
    rows = np.flatnonzero((users <= 20) & (phases == TRAIN))
    embeddings = random.standard_normal((20, WIDTH))
    embeddings[1] = 0
    pool = DonorPool(np.arange(1, 21), embeddings, rows, random.standard_normal((len(rows), WIDTH)))
    query_rows = random.permutation(np.flatnonzero(users >= 15))
    queries = random.standard_normal((len(query_rows), WIDTH)) + 0.5
    queries[3] = 0
    return log, pool, query_rows, queries, HistoryIndex(log).lengths(query_rows)


def prefixes_of(table):
    return {
        row: table.values[a:b].tolist()
        for row, a, b in zip(table.rows.tolist(), table.pointers, table.pointers[1:])
    }


def cosine(a, b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths else -1.0


def by_loops(log, pool, query_rows, queries, own_lengths, settings):
    """What build_prefixes should find, row by row, in float64."""
    middle = np.zeros(WIDTH)
    if settings.center:
        middle = pool.embeddings[pool.embeddings.any(axis=1)].mean(axis=0)
    offers = {}
    for row, query in zip(query_rows.tolist(), queries):
        offers[row] = []
        ranking = []
        for user, embedding in zip(pool.users, pool.embeddings):
            lendable = [
                i
                for i, r in enumerate(pool.rows)
                if log.users[r] == user
                and (settings.donor_time == "any" or log.times[r] < log.times[row])
            ]
            if user != log.users[row] and lendable and embedding.any() and query.any():
                ranking.append((-cosine(embedding - middle, query - middle), user, lendable))
        for _, _, lendable in sorted(ranking)[: settings.n_candidates]:
            lent = lendable[-settings.max_length :]
            offers[row].append(
                Candidate(
                    pool.rows[lent],
                    log.items[pool.rows[lent]],
                    np.array(
                        [cosine(pool.row_embeddings[i] - middle, query - middle) for i in lent]
                    ),
                )
            )
    theta = settings.theta
    if settings.theta_kind == "quantile":
        seen = [
            s
            for row, parts in offers.items()
            if log.phases[row] == TRAIN
            for part in parts
            for s in part.similarities
        ]
        theta = np.quantile(seen, theta)
    strategy = STRATEGIES[settings.strategy]
    return {
        row: strategy(parts, max(0, settings.max_length - own), theta).tolist()
        for (row, parts), own in zip(offers.items(), own_lengths)
    }, theta


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("donor_time", ["any", "before"])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("max_length", [5, 200])
def test_against_loops(strategy, donor_time, center, max_length):
    parts = world()
    settings = RetrievalSettings(
        strategy, theta=0.37, donor_time=donor_time, center=center, max_length=max_length
    )
    log, pool, query_rows, queries, own = parts
    table = build_prefixes(log, query_rows, queries, pool, settings, own)
    expected, threshold = by_loops(log, pool, query_rows, queries, own, settings)
    assert prefixes_of(table) == expected
    assert any(expected.values())
    if strategy != "most_similar":
        assert table.threshold == pytest.approx(threshold, abs=1e-6)
    assert table.values.dtype == np.int32


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("donor_time", ["any", "before"])
def test_what_is_never_lent(strategy, donor_time):
    log, pool, query_rows, queries, own = world(1)
    settings = RetrievalSettings(strategy, theta=0.1, donor_time=donor_time, max_length=12)
    table = build_prefixes(log, query_rows, queries, pool, settings, own)
    own_of = dict(zip(query_rows.tolist(), own))
    for row, lent in prefixes_of(table).items():
        assert (log.phases[lent] == TRAIN).all()
        assert (log.users[lent] != log.users[row]).all()
        assert len(lent) <= max(0, 12 - own_of[row])
        if donor_time == "before":
            assert (log.times[lent] < log.times[row]).all()
        if strategy != "top_k":
            assert lent == sorted(lent)
            assert len(set(log.users[lent])) <= 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scale_and_order_of_donors_and_queries_do_not_matter(strategy):
    log, pool, query_rows, queries, own = world(2)
    settings = RetrievalSettings(strategy)
    turned = DonorPool(
        pool.users[::-1], 4 * pool.embeddings[::-1], pool.rows, 4 * pool.row_embeddings
    )
    one = build_prefixes(log, query_rows, queries, pool, settings, own)
    other = build_prefixes(log, query_rows[::-1], 4 * queries[::-1], turned, settings, own[::-1])
    assert prefixes_of(one) == prefixes_of(other)
    np.testing.assert_allclose(one.donor_similarities, other.donor_similarities, atol=1e-6)


def test_more_candidates_than_donors():
    log, pool, query_rows, queries, own = world()
    settings = RetrievalSettings("top_k", candidates=500, theta=0.0)
    table = build_prefixes(log, query_rows, queries, pool, settings, own)
    for row, lent in prefixes_of(table).items():
        if row != query_rows[3]:
            others = pool.rows[(log.users[pool.rows] != log.users[row])]
            lenders = others[log.users[others] != 2]  # user 2 has no embedding
            assert set(log.items[lent]) == set(log.items[lenders])


def test_row_without_embedding_has_no_prefix():
    log, pool, query_rows, queries, own = world()
    table = build_prefixes(log, query_rows, queries, pool, RetrievalSettings("most_similar"), own)
    assert prefixes_of(table)[query_rows[3]] == []
    np.testing.assert_array_equal(np.isnan(table.donor_similarities), table.rows == query_rows[3])
    assert table.threshold == -1


def test_theta_that_removes_everything():
    log, pool, query_rows, queries, own = world()
    settings = RetrievalSettings(theta=1.0, theta_kind="cosine")
    table = build_prefixes(log, query_rows, queries, pool, settings, own)
    assert table.empty_share == 1
    assert table.mean_length == 0
    assert table.threshold == 1


def test_no_queries():
    log, pool, query_rows, queries, own = world()
    settings = RetrievalSettings("most_similar")
    table = build_prefixes(log, query_rows[:0], queries[:0], pool, settings, own[:0])
    assert len(table.rows) == len(table.values) == 0


def test_recall_of_an_approximate_index_is_logged(caplog):
    log, pool, query_rows, queries, own = world()
    with caplog.at_level(logging.INFO):
        build_prefixes(log, query_rows, queries, pool, RetrievalSettings(index="hnsw"), own)
    assert "recall@1 of index hnsw, storage float32: 1.0000" in caplog.text


def test_quantised_donors_are_found_and_their_similarities_stay_exact(caplog):
    log, pool, query_rows, queries, own = world()
    exact = build_prefixes(log, query_rows, queries, pool, RetrievalSettings(), own)
    settings = RetrievalSettings(storage="int8", rerank=20)
    with caplog.at_level(logging.INFO):
        found = build_prefixes(log, query_rows, queries, pool, settings, own)
    np.testing.assert_array_equal(found.values, exact.values)
    assert found.threshold == exact.threshold
    assert "recall@1 of index flat, storage int8: 1.0000" in caplog.text


def test_planted_tastes():
    """Queries find donors of their taste, and the filter keeps the items of that taste."""
    random = np.random.default_rng(5)
    tastes = 3 * random.standard_normal((N_TASTES, 16))
    n_donors, n_queries, length = 40, 40, 10
    n_users = n_donors + n_queries
    user_tastes = np.arange(n_users) % N_TASTES
    users = np.repeat(np.arange(1, n_users + 1), length)
    # Items 1..40, ten a taste; seven of a user's ten behaviours are of the user's taste.
    row_tastes = np.where(
        random.random(len(users)) < 0.7,
        user_tastes[users - 1],
        random.integers(0, N_TASTES, len(users)),
    )
    log = InteractionLog(
        users,
        1 + row_tastes * 10 + random.integers(0, 10, len(users)),
        np.ones(len(users), dtype=np.float32),
        np.tile(np.arange(length, dtype=float), n_users),
        np.full(len(users), TRAIN),
        n_users + 1,
        41,
    )
    rows = np.arange(n_donors * length)
    noise = random.standard_normal
    pool = DonorPool(
        np.arange(1, n_donors + 1),
        tastes[user_tastes[:n_donors]] + noise((n_donors, 16)),
        rows,
        tastes[row_tastes[rows]] + noise((len(rows), 16)),
    )
    query_rows = np.arange(n_donors + 1, n_users + 1) * length - 1
    wanted = user_tastes[n_donors:]
    queries = tastes[wanted] + noise((n_queries, 16))
    shares = {}
    for strategy in STRATEGIES:
        settings = RetrievalSettings(strategy, theta=0.4)
        table = build_prefixes(log, query_rows, queries, pool, settings, np.full(n_queries, 9))
        taste = np.repeat(wanted, np.diff(table.pointers))
        shares[strategy] = (row_tastes[table.values] == taste).mean()
        if strategy == "most_similar":
            lender_tastes = user_tastes[log.users[table.values] - 1]
            assert (lender_tastes == taste).mean() > 0.95  # by chance 1/4
    assert shares["filtered"] > shares["most_similar"]
    assert min(shares.values()) > 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "nearest"}, "strategy must be one of most_similar, filtered"),
        ({"theta_kind": "share"}, "theta_kind must be one of quantile, cosine"),
        ({"index": "tree"}, "index must be one of flat, hnsw, ivf, got 'tree'"),
        ({"storage": "zip"}, "storage must be one of float32, float16, int8, pq, got 'zip'"),
        ({"rerank": 5}, "rerank must be 0 with storage 'float32', got 5"),
        ({"donor_time": "after"}, "donor_time must be one of any, before"),
        ({"theta": -0.1}, "theta must lie in 0..1 as a quantile"),
        ({"theta": -1.1, "theta_kind": "cosine"}, "theta must lie in -1..1 as a cosine"),
        ({"theta": float("nan")}, "theta must lie in"),
        ({"candidates": 2}, "candidates must be 1 for 'filtered', got 2"),
        ({"candidates": 0, "strategy": "top_k"}, "candidates must be >= 1"),
        ({"max_length": 0}, "max_length must be >= 1"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        RetrievalSettings(**change)


def test_default_candidates():
    assert RetrievalSettings().n_candidates == 1
    assert RetrievalSettings("top_k").n_candidates == 10
    assert RetrievalSettings("dynamic_programming", candidates=3).n_candidates == 3


def test_bad_queries():
    log, pool, query_rows, queries, own = world()
    settings = RetrievalSettings()
    with pytest.raises(ValueError, match="needs an embedding and an own length"):
        build_prefixes(log, query_rows, queries[1:], pool, settings, own)
    with pytest.raises(ValueError, match="needs an embedding and an own length"):
        build_prefixes(log, query_rows, queries, pool, settings, own[1:])
    with pytest.raises(ValueError, match="ask for each row once"):
        build_prefixes(log, np.full_like(query_rows, 7), queries, pool, settings, own)
    with pytest.raises(ValueError, match="needs queries with donors"):
        build_prefixes(log, query_rows, np.zeros_like(queries), pool, settings, own)


def test_quantile_without_training_queries_is_that_of_all(caplog):
    log, pool, query_rows, queries, own = world()
    held_out = log.phases[query_rows] != TRAIN
    rows, asked = query_rows[held_out], queries[held_out]
    table = build_prefixes(log, rows, asked, pool, RetrievalSettings(theta=0.0), own[held_out])
    assert "quantile of all queries" in caplog.text
    assert table.empty_share == 0  # theta is the least similarity there is


def test_prefix_fills_the_room_that_is_left():
    table = PrefixTable(
        rows=np.array([2, 6, 8]),
        pointers=np.array([0, 3, 3, 5]),
        values=np.array([91, 92, 93, 94, 95], dtype=np.int32),
        donor_similarities=np.ones(3),
        threshold=0.0,
    )
    rows = np.array([8, 6, 2, 7, 99])
    histories = np.array([[1, 2, 3], [4, 5, -1], [6, -1, -1], [7, 8, -1], [-1, -1, -1]])
    lengths = np.array([3, 2, 1, 2, 0])
    augment = RetrievedAugmenter(table).augment

    longer, found = augment(rows, histories, lengths, 3, "train")
    np.testing.assert_array_equal(
        longer, [[1, 2, 3], [4, 5, -1], [92, 93, 6], [7, 8, -1], [-1, -1, -1]]
    )
    np.testing.assert_array_equal(found, [3, 2, 3, 2, 0])

    longer, found = augment(rows, histories, lengths, 50, "test")
    np.testing.assert_array_equal(longer[0], [94, 95, 1, 2, 3])
    np.testing.assert_array_equal(longer[2], [91, 92, 93, 6, -1])
    np.testing.assert_array_equal(found, [5, 2, 4, 2, 0])

    longer, found = augment(rows, histories, lengths, 1, "valid")
    np.testing.assert_array_equal(longer, [[3], [5], [6], [8], [-1]])
