import json
import os
import shutil

import numpy as np
import pytest

from recbole_mars.retrieval import UserIndex, faiss_index
from recbole_mars.retrieval import cosine as cosine_module
from recbole_mars.retrieval import index as index_module

WIDTH, USERS = 8, 300
BUILDS = [
    (kind, storage)
    for kind in ("flat", "hnsw", "ivf")
    for storage in ("float32", "float16", "int8", "pq")
    if (kind, storage) != ("hnsw", "pq")
]
QUANTISED = [build for build in BUILDS if build[1] != "float32"]
# The largest error of a stored number, for unit vectors: half a step of each storage.
STEP = {"float32": 2.0**-23, "float16": 2.0**-12, "int8": 1 / 255}


def world(seed=0, n_queries=12):
    random = np.random.default_rng(seed)
    ids = random.permutation(np.arange(1, 5 * USERS))[:USERS]
    return (
        random.standard_normal((USERS, WIDTH)) + 0.5,
        ids,
        random.standard_normal((n_queries, WIDTH)) + 0.5,
    )


def build(kind, storage, **options):
    """An index that looks at every user."""
    embeddings, ids, _ = world()
    options = {"nlist": 5, "nprobe": 5, "ef": USERS, "center": True, **options}
    return UserIndex(embeddings, ids, kind, storage=storage, **options)


def loop(embeddings, ids, queries, center):
    """Cosine of every query with every user, in float64, by user id."""
    table = []
    for query in queries - center:
        cosines = {}
        for embedding, user in zip(embeddings - center, ids.tolist()):
            lengths = np.linalg.norm(embedding) * np.linalg.norm(query)
            cosines[user] = float(sum(a * b for a, b in zip(embedding, query)) / lengths)
        table.append(cosines)
    return table


@pytest.mark.parametrize(("kind", "storage"), BUILDS)
def test_cosines_agree_with_loops_within_the_quantisation_error(kind, storage):
    embeddings, ids, queries = world()
    scores, found = build(kind, storage).search(queries, USERS)
    expected = loop(embeddings, ids, queries, embeddings.mean(axis=0))
    # |<q, x> - <q, x'>| <= sum |q| max |x - x'| <= sqrt(D) max |x - x'|; the range of an int8
    # is at most 2, for residuals of unit vectors 3.
    bound = WIDTH**0.5 * 3 * STEP[storage] if storage != "pq" else 0.5
    for row, users, cosines in zip(scores, found, expected):
        assert len(set(users.tolist())) == USERS
        errors = [abs(score - cosines[user]) for score, user in zip(row, users.tolist())]
        assert max(errors) <= bound
        if storage == "pq":
            assert np.mean(errors) < 0.1  # cosines spread by 1 / sqrt(D) = 0.35


def test_more_bytes_are_more_exact():
    embeddings, ids, queries = world()
    exact = UserIndex(embeddings, ids).search(queries, USERS)
    by_user = [dict(zip(users.tolist(), row)) for row, users in zip(*exact)]
    errors = []
    for options in (
        {"storage": "pq", "code_bytes": 1},
        {"storage": "pq"},  # 2 bytes
        {"storage": "pq", "code_bytes": 4},
        {"storage": "int8"},
        {"storage": "float16"},
    ):
        scores, found = UserIndex(embeddings, ids, **options).search(queries, USERS)
        errors.append(
            np.mean(
                [
                    abs(row[j] - cosines[user])
                    for row, users, cosines in zip(scores, found.tolist(), by_user)
                    for j, user in enumerate(users)
                ]
            )
        )
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 10 * errors[-1]


@pytest.mark.parametrize(("kind", "storage"), QUANTISED)
@pytest.mark.parametrize("exclude", [False, True])
def test_reranked_search_of_everything_is_exact(kind, storage, exclude):
    embeddings, ids, queries = world()
    excluded = ids[: len(queries)] if exclude else None
    exact = UserIndex(embeddings, ids, center=True).search(queries, 10, excluded)
    found = build(kind, storage, rerank=USERS).search(queries, 10, excluded)
    np.testing.assert_array_equal(found[1], exact[1])
    np.testing.assert_allclose(found[0], exact[0], atol=1e-6)


def test_a_shortlist_mends_product_quantisation():
    embeddings, ids, queries = world(n_queries=100)
    recalls = [
        build("flat", "pq", code_bytes=1, rerank=rerank).recall(queries, 1, embeddings, ids)
        for rerank in (0, 5, 100)
    ]
    assert recalls[0] < recalls[1] < recalls[2]


def test_reranking_works_in_blocks(monkeypatch):
    queries = world()[2]
    whole = build("ivf", "int8", rerank=7, nprobe=2).search(queries, 4)
    monkeypatch.setattr(index_module, "_CELLS", 2 * 11 * WIDTH)
    parts = build("ivf", "int8", rerank=7, nprobe=2).search(queries, 4)
    np.testing.assert_array_equal(parts[1], whole[1])
    np.testing.assert_allclose(parts[0], whole[0], atol=1e-6)


@pytest.mark.parametrize("rerank", [0, 3])
def test_reranked_search_that_finds_too_few_is_padded(rerank):
    embeddings = np.repeat(np.eye(4), 3, axis=0)
    index = UserIndex(
        embeddings, np.arange(1, 13), "ivf", storage="int8", nlist=4, nprobe=1, rerank=rerank
    )
    scores, ids = index.search(np.eye(4), 5)
    assert (ids[:, :3] > 0).all()
    assert (ids[:, 3:] == -1).all()
    assert np.isneginf(scores[:, 3:]).all()


# A graph depends on who is added together.
@pytest.mark.parametrize(("kind", "storage"), [b for b in BUILDS if b[0] != "hnsw"])
@pytest.mark.parametrize("center", [False, True])
def test_reading_in_blocks_changes_nothing(monkeypatch, kind, storage, center):
    embeddings, ids, queries = world()
    embeddings[7] = 0
    options = {"storage": storage, "center": center, "nlist": 5, "nprobe": 5}
    whole = UserIndex(embeddings, ids, kind, **options)
    monkeypatch.setattr(cosine_module, "_BLOCK", 32)
    parts = UserIndex(embeddings, ids, kind, **options)
    np.testing.assert_array_equal(parts.user_ids, whole.user_ids)
    (a, found), (b, wanted) = parts.search(queries, 20), whole.search(queries, 20)
    if not center:  # the mean of parts differs in its last digit, and then what it rounds to
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(a, b, atol=max(1e-5, STEP.get(storage, 0)))
    assert parts.recall(queries, 5, embeddings, ids) == whole.recall(queries, 5, embeddings, ids)


def test_large_data_is_learned_from_a_sample(monkeypatch):
    monkeypatch.setattr(faiss_index, "_TRAINING", 60)
    monkeypatch.setattr(faiss_index, "_TRAINING_PER_LIST", 10)
    embeddings, ids, queries = world()
    index = build("ivf", "float32", center=False)
    found = index.search(queries, 10)[1]
    np.testing.assert_array_equal(found, UserIndex(embeddings, ids).search(queries, 10)[1])
    assert not np.array_equal(
        build("ivf", "float32", nprobe=1, seed=1).search(queries, 50)[1],
        build("ivf", "float32", nprobe=1, seed=2).search(queries, 50)[1],
    )


@pytest.mark.parametrize(("options", "stored"), [({}, 2), ({"code_bytes": 4}, 4)])
def test_code_bytes(options, stored):
    assert build("flat", "pq", **options)._faiss.code_size == stored


def test_recall_is_of_the_exact_cosines():
    """What is stored says nothing of what it has lost."""
    embeddings, ids, queries = world(n_queries=50)
    coarse = build("flat", "pq", code_bytes=1)
    exact = UserIndex(embeddings, ids, center=True).search(queries, 5)[1]
    found = coarse.search(queries, 5)[1]
    hits = [len(set(a) & set(b)) / 5 for a, b in zip(exact.tolist(), found.tolist())]
    assert coarse.recall(queries, 5, embeddings, ids) == pytest.approx(np.mean(hits))
    assert coarse.recall(queries, 5, embeddings[::-1], ids[::-1]) == pytest.approx(np.mean(hits))


def test_recall_needs_the_users_of_the_index():
    embeddings, ids, queries = world()
    with pytest.raises(ValueError, match="must name the users of the index"):
        build("flat", "int8").recall(queries, 5, embeddings, ids + 10_000)


def test_code_bytes_must_divide_the_width():
    with pytest.raises(ValueError, match="divide the width 8, got 3; use one of 1, 2, 4, 8"):
        build("flat", "pq", code_bytes=3)


# Saving and loading


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("rerank", [0, 20])
@pytest.mark.parametrize(("kind", "storage"), BUILDS)
def test_a_loaded_index_answers_like_the_saved_one(tmp_path, kind, storage, rerank, mmap):
    queries = world()[2]
    rerank = 0 if storage == "float32" else rerank
    saved = build(kind, storage, rerank=rerank, nprobe=2, ef=40, center=rerank > 0)
    saved.save(tmp_path / "index")
    loaded = UserIndex.load(tmp_path / "index", mmap=mmap)
    excluded = saved.user_ids[: len(queries)]
    for a, b in zip(loaded.search(queries, 15, excluded), saved.search(queries, 15, excluded)):
        np.testing.assert_array_equal(a, b)
    assert len(loaded) == len(saved)
    assert (loaded.kind, loaded.storage, loaded.rerank) == (kind, storage, rerank)
    assert (loaded.center is None) == (saved.center is None)
    # Saved again, from its own files, in their place.
    loaded.save(tmp_path / "index")
    again = UserIndex.load(tmp_path / "index")
    np.testing.assert_array_equal(again.search(queries, 15)[1], saved.search(queries, 15)[1])
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.parametrize(("kind", "storage"), BUILDS)
def test_a_mapped_index_stays_in_its_files(tmp_path, kind, storage):
    build(kind, storage).save(tmp_path / "index")
    index = UserIndex.load(tmp_path / "index")  # held: its files are mapped meanwhile
    with open("/proc/self/maps") as maps:
        mapped = maps.read()
    for name in set(os.listdir(tmp_path / "index")) - {"index.json"}:
        assert str(tmp_path / "index" / name) in mapped
    del index


def test_quantised_without_reranking_keeps_no_float_vectors(tmp_path):
    build("ivf", "int8").save(tmp_path / "a")
    build("ivf", "int8", rerank=1).save(tmp_path / "b")
    assert not (tmp_path / "a" / "vectors.npy").exists()
    assert (tmp_path / "b" / "vectors.npy").stat().st_size >= 4 * USERS * WIDTH


def saved(tmp_path):
    folder = tmp_path / "index"
    build("ivf", "int8", rerank=2).save(folder)
    return folder


def edit(folder, **changes):
    settings = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**settings, **changes}))


def replace(folder, name, write):
    """Put another file in the place of one, with its size in the settings."""
    write(folder / name)
    settings = json.loads((folder / "index.json").read_text())
    edit(folder, files={**settings["files"], name: (folder / name).stat().st_size})


def shorten(file):
    os.truncate(file, file.stat().st_size - 1)


def write_ids(values):
    return lambda file: np.save(file, values)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (shutil.rmtree, FileNotFoundError, "there is no such folder; make it with UserIndex.save"),
        (lambda f: (f / "index.json").unlink(), FileNotFoundError, "index.json is missing; build"),
        (lambda f: (f / "index.faiss").unlink(), FileNotFoundError, "index.faiss is missing"),
        (lambda f: (f / "vectors.npy").unlink(), FileNotFoundError, "vectors.npy is missing"),
        (lambda f: shorten(f / "vectors.npy"), ValueError, r"vectors.npy must have \d+ bytes, f"),
        (lambda f: shorten(f / "index.faiss"), ValueError, r"index.faiss must have \d+ bytes, f"),
        (lambda f: os.truncate(f / "index.json", 9), ValueError, "be JSON"),
        (lambda f: (f / "index.json").write_text("{"), ValueError, "index.json must be JSON"),
        (lambda f: (f / "index.json").write_text("[]"), ValueError, "format 1, found 'list'"),
        (lambda f: edit(f, format=2), ValueError, "must be of format 1, found 2; build the index"),
        (lambda f: edit(f, users=None), ValueError, "must hold 'users' as int, found None"),
        (lambda f: edit(f, users=7), ValueError, r"user_ids.npy must be int64 \(7,\)"),
        (lambda f: edit(f, kind="tree"), ValueError, "a known kind and storage, found 'tree'"),
        (lambda f: edit(f, files={}), ValueError, "must list index.faiss, .*found none"),
        (lambda f: edit(f, files={"../x": 1}), ValueError, "must list index.faiss"),
        (
            lambda f: replace(f, "user_ids.npy", write_ids(np.array([{}] * USERS))),
            ValueError,
            "Python objects",
        ),
        (
            lambda f: replace(f, "index.faiss", lambda file: file.write_bytes(b"no index" * 9)),
            ValueError,
            "not recognized",
        ),
        (
            lambda f: replace(
                f,
                "index.faiss",
                lambda file: (
                    UserIndex(np.eye(8), np.arange(1, 9), storage="int8").save(f / "x"),
                    (f / "x" / "index.faiss").replace(file),
                ),
            ),
            ValueError,
            "must hold 300 users of width 8, found 8 of width 8",
        ),
    ],
)
def test_folders_that_are_no_index(tmp_path, damage, error, message):
    folder = saved(tmp_path)
    damage(folder)
    with pytest.raises(error, match=message) as caught:
        UserIndex.load(folder)
    assert str(folder) in str(caught.value)
    assert "UserIndex.save" in str(caught.value)


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis.txt; name a new or an empty folder"):
        build("flat", "float32").save(tmp_path)
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        build("flat", "float32").save(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_leaves_the_old_index(tmp_path, monkeypatch):
    folder, queries = saved(tmp_path), world()[2]
    old = UserIndex.load(folder).search(queries, 5)[1]

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("faiss.write_index", full)
    with pytest.raises(OSError, match="no space"):
        build("flat", "float16").save(folder)
    np.testing.assert_array_equal(UserIndex.load(folder).search(queries, 5)[1], old)
    assert os.listdir(tmp_path) == ["index"]


def test_another_index_takes_the_place(tmp_path):
    folder, queries = saved(tmp_path), world()[2]
    mapped = UserIndex.load(folder)
    old = mapped.search(queries, 5)[1]
    build("flat", "float32").save(folder)
    assert UserIndex.load(folder).kind == "flat"
    assert sorted(os.listdir(folder)) == ["center.npy", "index.json", "user_ids.npy", "vectors.npy"]
    np.testing.assert_array_equal(mapped.search(queries, 5)[1], old)
