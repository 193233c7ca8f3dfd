"""What Augmenter.augment promises, for every augmenter: add new ones to AUGMENTERS."""

from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np
import pytest

from recbole_mars.augmentation import (
    BASRecSettings,
    CMRSettings,
    CMRSISettings,
    CoSeRecSettings,
    ItemRows,
    NoAugmenter,
    PerturbedAugmenter,
    RandomAugmenter,
    RandomSeqAugmenter,
    RandomSettings,
    RepPadAugmenter,
    RepPadSettings,
    RetrievalSettings,
    RetrievedAugmenter,
    SimilarRows,
    basrec,
    build_prefixes,
    cl4srec,
    cmr_operator,
    cmrsi_operator,
    coserec,
    keep_latest,
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


def retrieved(strategy, seed=0, donor_time="any"):
    """Users with at least six training behaviours lend to all the others; seed has no say."""
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
    settings = RetrievalSettings(strategy, theta=0.3, donor_time=donor_time)
    return RetrievedAugmenter(build_prefixes(LOG, query_rows, queries, pool, settings, own_lengths))


def cmr(settings, seed, donor_time):
    return PerturbedAugmenter(cmr_operator(settings), seed)


def cmrsi(settings, seed, donor_time):
    similar = SimilarRows(ItemRows(LOG, donor_time=donor_time))
    return PerturbedAugmenter(cmrsi_operator(settings, similar), seed)


class SecondView:
    """What a view promises is what a history does that is changed in training only."""

    def __init__(self, augmenter):
        self.augmenter = augmenter
        self.borrows, self.fingerprint = augmenter.borrows, augmenter.fingerprint

    def augment(self, rows, histories, lengths, max_length, phase, epoch=0):
        if phase != "train":
            return self.augmenter.augment(rows, histories, lengths, max_length, phase, epoch)
        return self.augmenter.views(rows, histories, lengths, max_length, epoch)[1][:2]


def informed(make):
    return lambda settings, seed, donor_time: SecondView(
        make(settings, SimilarRows(ItemRows(LOG, donor_time=donor_time)), seed)
    )


@dataclass(frozen=True)
class Case:
    """How to make an augmenter, by its settings, a seed and donor_time, and what kind it is."""

    make: Callable[..., Any]
    settings: Any = None
    nothing: Optional[Any] = None  # settings at strength 0
    draws: bool = True  # by the seed
    each_epoch: bool = False  # anew
    train_only: bool = False
    additive: bool = True
    borrows: bool = False

    def __call__(self, seed=0, donor_time="any", nothing=False):
        return self.make(self.nothing if nothing else self.settings, seed, donor_time)


AUGMENTERS = {
    "none": Case(lambda settings, seed, time: NoAugmenter(), draws=False),
    "retrieved filtered": Case(retrieved, "filtered", draws=False, borrows=True),
    "retrieved top_k": Case(retrieved, "top_k", draws=False, borrows=True),
    "random": Case(
        lambda settings, seed, time: RandomAugmenter(
            ItemRows(LOG, donor_time=time), settings, seed
        ),
        RandomSettings(4),
        RandomSettings(0),
        borrows=True,
    ),
    "random_seq": Case(
        lambda settings, seed, time: RandomSeqAugmenter(LOG.users, settings, seed),
        RandomSettings(4),
        RandomSettings(0),
    ),
    "reppad": Case(
        lambda settings, seed, time: RepPadAugmenter(settings, seed),
        RepPadSettings(),
        RepPadSettings(repeats=0),
        each_epoch=True,
        train_only=True,
    ),
    "cmr": Case(
        cmr,
        CMRSettings(),
        CMRSettings(crop=1, mask=0, reorder=0),
        each_epoch=True,
        train_only=True,
        additive=False,
    ),
    "cmrsi": Case(
        cmrsi,
        CMRSISettings(),
        CMRSISettings(crop=1, mask=0, reorder=0, substitute=0, insert=0),
        each_epoch=True,
        train_only=True,
        additive=False,
    ),
}
for name, make, settings, nothing in (
    (
        "cl4srec",
        lambda settings, seed, time: SecondView(cl4srec(settings, seed)),
        CMRSettings(),
        CMRSettings(crop=1, mask=0, reorder=0),
    ),
    (
        "coserec",
        informed(coserec),
        CoSeRecSettings(),
        CoSeRecSettings(crop=1, mask=0, reorder=0, substitute=0, insert=0),
    ),
    ("basrec", informed(basrec), BASRecSettings(start=0), BASRecSettings([0.0], 0)),
):
    AUGMENTERS[name] = Case(
        make, settings, nothing, each_epoch=True, train_only=True, additive=False
    )
ADDING = [name for name, case in AUGMENTERS.items() if case.additive and name != "none"]
DRAWING = [name for name, case in AUGMENTERS.items() if case.draws]


@pytest.fixture(params=list(AUGMENTERS), scope="module")
def case(request):
    return AUGMENTERS[request.param]


def batch(phase, seed=2):
    random = np.random.default_rng(seed)
    rows = random.permutation(np.flatnonzero(LOG.phases == phase))
    histories, lengths = HistoryIndex(LOG).rows_before(rows, 100)
    return rows, histories, lengths


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("max_length", [1, 4, 10, 200])
@pytest.mark.parametrize("donor_time", ["any", "before"])
def test_contract(case, phase, max_length, donor_time):
    rows, histories, lengths = batch(phase)
    before = [rows.copy(), histories.copy(), lengths.copy()]
    changed, found = case(donor_time=donor_time).augment(
        rows, histories, lengths, max_length, PHASES[phase], 3
    )

    for argument, copy in zip((rows, histories, lengths), before):
        np.testing.assert_array_equal(argument, copy)
    assert changed.dtype == found.dtype == np.int64
    assert changed.shape == (len(rows), found.max())
    assert (found <= max_length).all()
    assert (found[lengths > 0] > 0).all()
    real = np.arange(changed.shape[1]) < found[:, None]
    assert (changed[~real] == -1).all()
    for i, row in enumerate(rows):
        after = changed[i, : found[i]]
        own = histories[i, : lengths[i]][-max_length:]
        if case.additive:
            assert after[len(after) - len(own) :].tolist() == own.tolist()
        after = after[after >= 0]
        assert (after[LOG.users[after] == LOG.users[row]] < row).all()
        foreign = after[~np.isin(after, own)]
        assert (LOG.phases[foreign] == TRAIN).all()
        if donor_time == "before":
            assert (LOG.times[foreign] < LOG.times[row]).all()
    if case.train_only and PHASES[phase] != "train":
        assert same((changed, found), keep_latest(histories, lengths, max_length))


def test_same_arguments_same_result(case):
    assert same(*(case().augment(*batch(TRAIN), 20, "train", 1) for _ in range(2)))


@pytest.mark.parametrize("name", DRAWING)
def test_another_seed_another_result(name):
    case = AUGMENTERS[name]
    one, other = (case(seed).augment(*batch(TRAIN), 20, "train", 1) for seed in (1, 2))
    assert not same(one, other)
    assert case(1).fingerprint() != case(2).fingerprint()


def test_epochs(case):
    one, other = (case().augment(*batch(TRAIN), 20, "train", epoch) for epoch in (0, 1))
    assert same(one, other) is not case.each_epoch


def test_neither_order_nor_company_matters(case):
    rows, histories, lengths = batch(TRAIN)
    whole, whole_lengths = case().augment(rows, histories, lengths, 12, "train", 1)
    few = np.random.default_rng(0).permutation(len(rows))[:15]
    width = lengths[few].max()
    part, part_lengths = case().augment(
        rows[few], histories[few, :width], lengths[few], 12, "train", 1
    )
    np.testing.assert_array_equal(part_lengths, whole_lengths[few])
    np.testing.assert_array_equal(part, whole[few, : part.shape[1]])


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("max_length", [3, 200])
def test_nothing_at_strength_0(name, max_length):
    rows, histories, lengths = batch(TRAIN)
    found = AUGMENTERS[name](nothing=True).augment(rows, histories, lengths, max_length, "train")
    assert same(found, keep_latest(histories, lengths, max_length))


@pytest.mark.parametrize("name", [name for name in AUGMENTERS if name != "none"])
def test_something_is_done(name):
    """By those that draw, to most histories; by retrieval, to those of the few who ask."""
    rows, histories, lengths = batch(TRAIN)
    changed, found = AUGMENTERS[name]().augment(rows, histories, lengths, 200, "train")
    untouched = [
        changed[i, : found[i]].tolist() == histories[i, : lengths[i]].tolist()
        for i in np.flatnonzero(lengths > 2)
    ]
    assert np.mean(untouched) < (0.5 if AUGMENTERS[name].draws else 0.95)


@pytest.mark.parametrize("name", ADDING)
def test_what_is_borrowed_is_others(name):
    rows, histories, lengths = batch(TRAIN)
    augmenter = AUGMENTERS[name]()
    assert augmenter.borrows is AUGMENTERS[name].borrows
    changed, found = augmenter.augment(rows, histories, lengths, 200, "train")
    added = changed[np.arange(changed.shape[1]) < (found - lengths)[:, None]]
    owners = np.repeat(LOG.users[rows], found - lengths)
    real = added >= 0
    others = LOG.users[added[real]] != owners[real]
    assert others.mean() > 0.9 if augmenter.borrows else not others.any()


def test_settings_are_in_the_fingerprint(case):
    if case.nothing is not None:
        assert case().fingerprint() != case(nothing=True).fingerprint()
    assert case().fingerprint() == case().fingerprint()


def test_donor_time_is_in_the_fingerprint():
    for name in ("random", "cmrsi", "coserec", "basrec"):
        case = AUGMENTERS[name]
        assert case(donor_time="any").fingerprint() != case(donor_time="before").fingerprint()


def test_empty_batch(case):
    rows = np.zeros(0, dtype=np.int64)
    changed, found = case().augment(rows, np.zeros((0, 3), dtype=np.int64), rows, 9, "train")
    assert changed.shape == (0, 0)
    assert found.shape == (0,)


def test_targets_without_history(case):
    rows = LOG.offsets[1:4]
    changed, found = case().augment(
        rows, np.zeros((3, 0), dtype=np.int64), np.zeros(3, dtype=np.int64), 9, "train"
    )
    if not case.borrows:
        assert not found.any()
        assert changed.shape == (3, 0)
    for i, row in enumerate(rows):
        assert (LOG.users[changed[i, : found[i]]] != LOG.users[row]).all()
