"""What Augmenter.augment promises, for every augmenter: add new ones to AUGMENTERS."""

import numpy as np
import pytest

from recbole_mars.augmentation import (
    NoAugmenter,
    RetrievalSettings,
    RetrievedAugmenter,
    build_prefixes,
)
from recbole_mars.data import TEST, TRAIN, VALID, HistoryIndex, InteractionLog
from recbole_mars.retrieval import DonorPool

PHASES = {TRAIN: "train", VALID: "valid", TEST: "test"}


def make_log():
    random = np.random.default_rng(0)
    counts = random.integers(3, 12, 30)
    users = np.repeat(np.arange(1, 31), counts)
    phases = np.full(len(users), TRAIN, dtype=np.int8)
    ends = np.cumsum(counts)
    phases[ends - 1], phases[ends - 2] = TEST, VALID
    times = np.concatenate([np.sort(random.integers(0, 50, n)) for n in counts])
    items = random.integers(1, 20, len(users))
    return InteractionLog(
        users, items, np.ones(len(users), dtype=np.float32), times.astype(float), phases, 31, 20
    )


LOG = make_log()


def retrieved(strategy):
    """Users with at least six training behaviours lend to all the others."""
    random = np.random.default_rng(1)
    lenders = np.flatnonzero(LOG.training_counts() >= 6)
    rows = np.flatnonzero(np.isin(LOG.users, lenders) & (LOG.phases == TRAIN))
    pool = DonorPool(
        lenders,
        random.standard_normal((len(lenders), 4)),
        rows,
        random.standard_normal((len(rows), 4)),
    )
    query_rows = np.flatnonzero(~np.isin(LOG.users, lenders))
    queries = random.standard_normal((len(query_rows), 4))
    own_lengths = HistoryIndex(LOG).lengths(query_rows)
    settings = RetrievalSettings(strategy)
    return RetrievedAugmenter(build_prefixes(LOG, query_rows, queries, pool, settings, own_lengths))


AUGMENTERS = {
    "none": NoAugmenter,
    "retrieved filtered": lambda: retrieved("filtered"),
    "retrieved top_k": lambda: retrieved("top_k"),
}


@pytest.fixture(params=list(AUGMENTERS), scope="module")
def augmenter(request):
    return AUGMENTERS[request.param]()


def batch(phase, seed=2):
    random = np.random.default_rng(seed)
    rows = random.permutation(np.flatnonzero(LOG.phases == phase))
    histories, lengths = HistoryIndex(LOG).rows_before(rows, 100)
    return rows, histories, lengths


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("max_length", [1, 4, 10, 200])
def test_contract(augmenter, phase, max_length):
    rows, histories, lengths = batch(phase)
    before = [rows.copy(), histories.copy(), lengths.copy()]
    longer, found = augmenter.augment(rows, histories, lengths, max_length, PHASES[phase])

    for argument, copy in zip((rows, histories, lengths), before):
        np.testing.assert_array_equal(argument, copy)
    assert longer.dtype == np.int64
    assert longer.shape == (len(rows), found.max())
    assert (found <= max_length).all()
    assert (found >= np.minimum(lengths, max_length)).all()
    real = np.arange(longer.shape[1]) < found[:, None]
    assert (longer[~real] == -1).all()
    assert (longer[real] >= 0).all()
    for i, row in enumerate(rows):
        after = longer[i, : found[i]]
        own = histories[i, : lengths[i]][-max_length:]
        assert subsequence(own.tolist(), after.tolist())
        assert (after[LOG.users[after] == LOG.users[row]] < row).all()
        assert (LOG.phases[after[LOG.users[after] != LOG.users[row]]] == TRAIN).all()


def test_same_arguments_same_result(augmenter):
    one, other = (augmenter.augment(*batch(TRAIN), 20, "train") for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


def test_empty_batch(augmenter):
    rows = np.zeros(0, dtype=np.int64)
    longer, found = augmenter.augment(rows, np.zeros((0, 3), dtype=np.int64), rows, 9, "train")
    assert longer.shape == (0, 0)
    assert found.shape == (0,)


@pytest.mark.parametrize("name", [name for name in AUGMENTERS if name != "none"])
def test_something_is_added(name):
    rows, histories, lengths = batch(TEST)
    _, found = AUGMENTERS[name]().augment(rows, histories, lengths, 200, "test")
    assert found.sum() > lengths.sum()


def subsequence(part, whole):
    rest = iter(whole)
    return all(value in rest for value in part)
