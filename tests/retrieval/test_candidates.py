import numpy as np
import pytest

from recbole_mars.data import TRAIN, InteractionLog
from recbole_mars.retrieval import DonorPool, candidate_sequences
from recbole_mars.retrieval import candidates as candidates_module


def world(seed=0, width=5):
    """Donors 1 to 6 with 0 to 12 rows and queries at random times, all in the training part."""
    random = np.random.default_rng(seed)
    counts = np.array([12, 7, 0, 1, 9, 4])
    users = np.repeat(np.arange(1, 7), counts)
    times = np.concatenate([np.sort(random.integers(0, 8, n)) for n in counts]).astype(float)
    n = len(users)
    log = InteractionLog(
        users, random.integers(1, 9, n), np.ones(n), times, np.full(n, TRAIN), 7, 9
    )
    rows = np.flatnonzero(random.random(n) < 0.8)
    pool = DonorPool(
        random.permutation(np.arange(1, 7)),
        random.standard_normal((6, width)),
        rows,
        random.standard_normal((len(rows), width)).astype(np.float16),
    )
    queries = random.standard_normal((20, width))
    donors = np.stack([random.permutation([-1, 1, 2, 3, 4, 5, 6])[:3] for _ in range(20)])
    return log, pool, queries, donors, random.integers(0, 9, 20).astype(float)


@pytest.mark.parametrize("block", [3, 4096])
@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("max_length", [1, 4, 100])
def test_against_a_loop(monkeypatch, block, timed, max_length):
    monkeypatch.setattr(candidates_module, "_BLOCK", block)
    log, pool, queries, donors, query_times = world()
    center = np.linspace(-1, 1, 5)
    found = dict(
        candidate_sequences(
            log,
            pool,
            queries,
            donors,
            max_length=max_length,
            query_times=query_times if timed else None,
            center=center,
        )
    )
    assert sorted(found) == list(range(20))
    for q, sequences in found.items():
        lenders = [d for d in donors[q] if d > 0]
        assert len(sequences) == len(lenders)
        for donor, sequence in zip(lenders, sequences):
            places = [
                i
                for i, row in enumerate(pool.rows)
                if log.users[row] == donor and (not timed or log.times[row] < query_times[q])
            ][-max_length:]
            assert sequence.rows.tolist() == pool.rows[places].tolist()
            assert sequence.items.tolist() == log.items[pool.rows[places]].tolist()
            direction = queries[q] - center
            for similarity, place in zip(sequence.similarities, places):
                item = pool.row_embeddings[place].astype(np.float64) - center
                cosine = item @ direction / np.linalg.norm(item) / np.linalg.norm(direction)
                assert similarity == pytest.approx(cosine, abs=1e-5)


def test_scale_does_not_matter():
    log, pool, queries, donors, _ = world()
    larger = DonorPool(pool.users, pool.embeddings, pool.rows, 4 * pool.row_embeddings)
    one = dict(candidate_sequences(log, pool, queries, donors, max_length=9))
    other = dict(candidate_sequences(log, larger, 0.25 * queries, donors, max_length=9))
    for q in one:
        for a, b in zip(one[q], other[q]):
            np.testing.assert_allclose(a.similarities, b.similarities, atol=1e-6)


def test_behaviours_without_embedding_are_least_similar():
    log, pool, queries, donors, _ = world()
    pool.row_embeddings[:] = 0
    for _, sequences in candidate_sequences(log, pool, queries, donors, max_length=9):
        assert all((sequence.similarities == -1).all() for sequence in sequences)


def test_no_donors_and_no_queries():
    log, pool, queries, _, _ = world()
    nobody = np.full((20, 2), -1)
    assert dict(candidate_sequences(log, pool, queries, nobody, max_length=9)) == {
        q: [] for q in range(20)
    }
    assert not list(candidate_sequences(log, pool, queries[:0], nobody[:0], max_length=9))


def test_a_donor_outside_the_pool_is_refused():
    log, pool, queries, donors, _ = world()
    few = DonorPool(pool.users[:0], pool.embeddings[:0], pool.rows[:0], pool.row_embeddings[:0])
    with pytest.raises(ValueError, match="users of the pool"):
        list(candidate_sequences(log, few, queries, donors, max_length=9))
