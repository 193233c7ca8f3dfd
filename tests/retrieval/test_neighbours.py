import numpy as np
import pytest

from recbole_mars.data import TEST, TRAIN, VALID, InteractionLog
from recbole_mars.retrieval import DonorPool, UserIndex, find_donors


def tiny_log():
    """Users 1 to 4 with 3, 2, 0 and 3 rows; the last of each is for testing."""
    users = np.array([1, 1, 1, 2, 2, 4, 4, 4])
    return InteractionLog(
        users=users,
        items=np.arange(1, 9),
        labels=np.ones(8, dtype=np.float32),
        times=np.array([5.0, 6, 7, 1, 9, 2, 2, 8]),
        phases=np.array([TRAIN, VALID, TEST, TRAIN, TEST, TRAIN, TRAIN, TEST], dtype=np.int8),
        n_users=5,
        n_items=9,
    )


def pool(users, rows, width=2):
    random = np.random.default_rng(0)
    return DonorPool(
        np.array(users),
        random.standard_normal((len(users), width)),
        np.array(rows, dtype=np.int64),
        random.standard_normal((len(rows), width)),
    )


def test_stretches_and_first_times():
    donors = pool([4, 3, 1], [0, 5, 6])
    starts, ends = donors.stretches(tiny_log())
    np.testing.assert_array_equal(starts, [1, 1, 0])
    np.testing.assert_array_equal(ends, [3, 1, 1])
    np.testing.assert_array_equal(
        donors.first_times(tiny_log()), [np.inf, 5.0, np.inf, np.inf, 2.0]
    )


@pytest.mark.parametrize(
    ("users", "rows", "message"),
    [
        ([1, 4], [0, 1], "training behaviours only"),
        ([1, 4], [0, 2], "training behaviours only"),
        ([1], [0, 5], "rows of others"),
        ([1], [8], "0..7"),
        ([1], [-1, 0], "0..7"),
    ],
)
def test_rows_that_must_not_be_lent(users, rows, message):
    with pytest.raises(ValueError, match=message):
        pool(users, rows).stretches(tiny_log())


def test_bad_pools():
    one, two = np.ones((1, 3)), np.ones((2, 3))
    with pytest.raises(ValueError, match="each of 1 users and 2 rows, got 2 and 2"):
        DonorPool(np.array([1]), two, np.array([0, 1]), two)
    with pytest.raises(ValueError, match="each of 1 users and 2 rows, got 1 and 1"):
        DonorPool(np.array([1]), one, np.array([0, 1]), one)
    with pytest.raises(ValueError, match="one space"):
        DonorPool(np.array([1]), np.ones((1, 4)), np.array([0, 1]), two)
    with pytest.raises(ValueError, match="twice"):
        DonorPool(np.array([1, 1]), two, np.array([0]), one)
    with pytest.raises(ValueError, match="ascend"):
        DonorPool(np.array([1]), one, np.array([1, 0]), two)


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("candidates", [1, 3, 40])
def test_against_a_loop(timed, candidates):
    random = np.random.default_rng(3)
    ids = random.permutation(np.arange(1, 31))
    embeddings = random.standard_normal((30, 4))
    first_times = np.append(0.0, random.integers(0, 10, 30).astype(float))
    first_times[ids[:4]] = np.inf
    queries = random.standard_normal((25, 4))
    query_users = random.integers(1, 36, 25)
    query_times = random.integers(0, 10, 25).astype(float)
    donors, scores = find_donors(
        UserIndex(embeddings, ids),
        queries,
        query_users,
        candidates,
        first_times=first_times,
        query_times=query_times if timed else None,
    )
    assert donors.shape == scores.shape == (25, candidates)
    for q in range(25):
        limit = query_times[q] if timed else np.inf
        expected = sorted(
            (
                (-(e @ queries[q]) / np.linalg.norm(e) / np.linalg.norm(queries[q]), u)
                for e, u in zip(embeddings, ids)
                if u != query_users[q] and first_times[u] < limit
            )
        )[:candidates]
        n = len(expected)
        assert donors[q, :n].tolist() == [u for _, u in expected]
        np.testing.assert_allclose(scores[q, :n], [-s for s, _ in expected], atol=1e-5)
        assert (donors[q, n:] == -1).all()
        assert np.isneginf(scores[q, n:]).all()


def test_without_times_only_the_own_user_is_passed_over():
    index = UserIndex(np.eye(3) + 0.1, np.array([1, 2, 3]))
    donors, _ = find_donors(index, np.eye(3), np.array([1, 1, 9]), 3)
    np.testing.assert_array_equal(np.sort(donors), [[-1, 2, 3], [-1, 2, 3], [1, 2, 3]])


def test_query_times_need_first_times():
    index = UserIndex(np.eye(2), np.array([1, 2]))
    with pytest.raises(ValueError, match="first_times"):
        find_donors(index, np.eye(2), np.array([1, 2]), 1, query_times=np.zeros(2))
