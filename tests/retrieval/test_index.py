import numpy as np
import pytest
import torch

from recbole_mars.retrieval import UserIndex

KINDS = ["flat", "hnsw", "ivf"]


def cosines(a, b):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def world(n_users=60, n_queries=15, width=8, seed=0):
    random = np.random.default_rng(seed)
    users = random.permutation(np.arange(1, 10 * n_users))[:n_users]
    return (
        random.standard_normal((n_users, width)),
        users,
        random.standard_normal((n_queries, width)),
    )


def test_hand_values():
    index = UserIndex(np.array([[2.0, 0.0], [1.0, 1.0], [0.0, -3.0]]), np.array([7, 5, 9]))
    scores, ids = index.search(np.array([[5.0, 0.0], [0.0, 1.0]]), 3)
    half = 0.5**0.5
    np.testing.assert_array_equal(ids, [[7, 5, 9], [5, 7, 9]])
    np.testing.assert_allclose(scores, [[1, half, 0], [half, 0, -1]], atol=1e-6)
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("exclude", [False, True])
def test_search_of_everything_is_exact(kind, center, exclude):
    embeddings, users, queries = world()
    embeddings = embeddings + 1.0
    index = UserIndex(embeddings, users, kind, center=center, nlist=7, nprobe=7, ef=60)
    excluded = users[np.arange(len(queries))] if exclude else None
    scores, ids = index.search(queries, 10, excluded)

    middle = embeddings.mean(axis=0) if center else 0.0
    exact = cosines(queries - middle, embeddings - middle)
    if exclude:
        exact[np.arange(len(queries)), np.arange(len(queries))] = -np.inf
    best = np.argsort(-exact, axis=1)[:, :10]
    np.testing.assert_array_equal(ids, users[best])
    np.testing.assert_allclose(scores, np.take_along_axis(exact, best, axis=1), atol=1e-5)
    assert index.recall(queries, 10, embeddings, users) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_planted_tastes(kind):
    random = np.random.default_rng(1)
    tastes = random.standard_normal((6, 16))
    donors, queries = np.arange(300) % 6, np.arange(40) % 6
    index = UserIndex(
        tastes[donors] + 0.5 * random.standard_normal((300, 16)), np.arange(1, 301), kind
    )
    _, ids = index.search(tastes[queries] + 0.5 * random.standard_normal((40, 16)), 5)
    assert (donors[ids - 1] == queries[:, None]).mean() > 0.95  # by chance 1/6


def test_planted_tastes_behind_a_common_direction():
    """Centring finds again what a common direction hides in the cosine's last digits."""
    random = np.random.default_rng(2)
    tastes = random.standard_normal((6, 16))
    donors, queries = np.arange(120) % 6, np.arange(60) % 6
    common = 1e4 * random.standard_normal(16)
    embeddings = common + tastes[donors] + 0.3 * random.standard_normal((120, 16))
    wanted = common + tastes[queries] + 0.3 * random.standard_normal((60, 16))
    shares = []
    for center in (False, True):
        index = UserIndex(embeddings, np.arange(1, 121), center=center)
        ids = index.search(wanted, 1)[1][:, 0]
        shares.append((donors[ids - 1] == queries).mean())
    assert shares[1] > 0.95
    assert shares[0] < shares[1]


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_scale_of_users_do_not_matter(kind):
    embeddings, users, queries = world()
    first = UserIndex(embeddings, users, kind).search(queries, 5)
    turned = UserIndex(4 * embeddings[::-1], users[::-1], kind).search(0.5 * queries, 5)
    np.testing.assert_array_equal(first[1], turned[1])
    np.testing.assert_allclose(first[0], turned[0], atol=1e-6)


def test_equal_cosines_go_by_id():
    index = UserIndex(np.ones((4, 2)), np.array([8, 3, 5, 1]))
    _, ids = index.search(np.ones((1, 2)), 3, np.array([3]))
    np.testing.assert_array_equal(ids, [[1, 5, 8]])


@pytest.mark.parametrize("kind", KINDS)
def test_who_of_many_equals_is_found_does_not_depend_on_the_order_of_users(kind):
    ids = np.random.default_rng(0).permutation(np.arange(1, 41))
    found = [
        UserIndex(np.ones((40, 2)), users, kind).search(np.ones((3, 2)), 5)[1]
        for users in (ids, ids[::-1])
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_places_without_a_user(kind):
    index = UserIndex(np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), np.array([4, 5, 6]), kind)
    assert len(index) == 2
    scores, ids = index.search(np.array([[1.0, 0.0], [0.0, 0.0]]), 4, np.array([6, 1]))
    np.testing.assert_array_equal(ids, [[4, -1, -1, -1], [-1, -1, -1, -1]])
    assert np.isneginf(scores[ids < 0]).all()
    assert scores[0, 0] == pytest.approx(1)


def test_a_search_that_probes_too_little_is_padded():
    embeddings = np.repeat(np.eye(4), 3, axis=0)
    index = UserIndex(embeddings, np.arange(1, 13), "ivf", nlist=4, nprobe=1)
    _, ids = index.search(np.eye(4), 5)
    assert (np.sort(ids)[:, :2] == -1).all()
    assert (ids[:, :3] > 0).all()


def test_recall_sees_what_is_missed():
    embeddings, users, queries = world(n_users=400, width=16)
    narrow = UserIndex(embeddings, users, "ivf", nlist=40, nprobe=1)
    exact = UserIndex(embeddings, users).search(queries, 10)[1]
    found = narrow.search(queries, 10)[1]
    hits = [len(set(a) & set(b)) / 10 for a, b in zip(exact, found)]
    assert narrow.recall(queries, 10, embeddings, users) == pytest.approx(np.mean(hits))
    assert narrow.recall(queries, 10, embeddings, users) < 1
    assert np.isnan(narrow.recall(np.zeros((2, 16)), 3, embeddings, users))


def test_recall_accepts_ties():
    index = UserIndex(np.ones((50, 3)), np.arange(1, 51), "hnsw")
    assert index.recall(np.ones((4, 3)), 10, np.ones((50, 3)), np.arange(1, 51)) == 1.0


def test_tensors_and_no_queries():
    embeddings, users, queries = world()
    index = UserIndex(torch.from_numpy(embeddings), users, center=True)
    _, ids = index.search(torch.from_numpy(queries), 3)
    np.testing.assert_array_equal(
        ids, UserIndex(embeddings, users, center=True).search(queries, 3)[1]
    )
    assert index.search(np.zeros((0, 8)), 3, np.zeros(0))[1].shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.zeros((0, 2)), "user_ids": np.zeros(0)}, "no high-active user"),
        ({"embeddings": np.zeros((2, 2))}, "no high-active user"),
        ({"embeddings": np.ones((2, 2)), "center": True}, "off the mean"),
        ({"embeddings": np.array([[1.0, 0.0], [np.nan, 0.0]])}, "finite"),
        ({"user_ids": np.array([1, 2, 3])}, "each of the 2"),
        ({"user_ids": np.array([1, 1])}, "twice"),
        ({"kind": "pq"}, "index must be one of flat, hnsw, ivf, got 'pq'"),
        ({"storage": "int4"}, "storage must be one of float32, float16, int8, pq, got 'int4'"),
        ({"storage": "pq", "kind": "hnsw"}, "storage 'pq' is for index 'flat' and 'ivf'"),
        ({"storage": "pq"}, "at least 256 users to learn from, got 2; use 'int8'"),
        ({"rerank": 3}, "rerank must be 0 with storage 'float32', got 3"),
        ({"rerank": -1, "storage": "int8"}, "rerank must be >= 0 with storage 'int8', got -1"),
        ({"code_bytes": 0}, "code_bytes must be >= 1, got 0"),
        ({"nprobe": 0}, "nprobe must be >= 1, got 0"),
        ({"ef": 0}, "ef must be >= 1, got 0"),
    ],
)
def test_bad_users(change, message):
    arguments = {"embeddings": np.eye(2), "user_ids": np.array([1, 2]), **change}
    with pytest.raises(ValueError, match=message):
        UserIndex(**arguments)


def test_bad_queries():
    index = UserIndex(np.eye(2), np.array([1, 2]))
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        index.search(np.eye(2), 0)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        index.recall(np.eye(2), 0, np.eye(2), np.array([1, 2]))
    with pytest.raises(ValueError, match=r"must be \(Q, 2\) like the index, got \(3, 3\)"):
        index.search(np.eye(3), 1)
    with pytest.raises(ValueError, match=r"\(Q, 2\)"):
        index.search(np.ones(2), 1)
    with pytest.raises(ValueError, match="finite"):
        index.search(np.array([[np.nan, 1.0]]), 1)
    with pytest.raises(ValueError, match="one id for each of the 2"):
        index.search(np.eye(2), 1, np.array([1]))
