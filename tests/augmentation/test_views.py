"""Views of training histories: which operators make them, when, and from what draws."""

import numpy as np
import pytest

from recbole_mars.augmentation import (
    BASRecSettings,
    ByLength,
    CMRSettings,
    CoSeRecSettings,
    Crop,
    ItemRows,
    Mask,
    OneOf,
    Reorder,
    SimilarRows,
    basrec,
    cl4srec,
    coserec,
)
from recbole_mars.data import TRAIN, HistoryIndex, InteractionLog


def make_log():
    random = np.random.default_rng(0)
    counts = random.integers(1, 14, 60)
    users = np.repeat(np.arange(1, 61), counts)
    items = random.integers(1, 25, len(users))
    times = np.concatenate([np.arange(n) for n in counts]).astype(float)
    phases = np.full(len(users), TRAIN, dtype=np.int8)
    return InteractionLog(users, items, np.ones(len(users)), times, phases, 61, 25)


LOG = make_log()
SIMILAR = SimilarRows(ItemRows(LOG))
ROWS = np.arange(len(LOG))
HISTORIES, LENGTHS = HistoryIndex(LOG).rows_before(ROWS, 100)


CMR = {"crop": 0.5, "mask": 0.5, "reorder": 0.8}
SHARES = {**CMR, "substitute": 0.5, "insert": 0.5}


def all_kinds(seed=0):
    return {
        "cl4srec": cl4srec(CMRSettings(**CMR), seed),
        "coserec": coserec(CoSeRecSettings(**SHARES, short=4), SIMILAR, seed),
        "basrec": basrec(BASRecSettings([0.3, 0.8], 0), SIMILAR, seed),
    }


KINDS = list(all_kinds())


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("kind", KINDS)
def test_histories_themselves_stay(kind):
    found, lengths = all_kinds()[kind].augment(ROWS, HISTORIES, LENGTHS, 5, "train", 3)
    for i, row in enumerate(ROWS):
        own = HISTORIES[i, : LENGTHS[i]][-5:]
        assert found[i, : lengths[i]].tolist() == own.tolist(), row


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [1, 5, 50])
def test_views_hold_what_they_may(kind, max_length):
    before = [ROWS.copy(), HISTORIES.copy(), LENGTHS.copy()]
    views = all_kinds()[kind].views(ROWS, HISTORIES, LENGTHS, max_length, 2)
    assert same(before, [ROWS, HISTORIES, LENGTHS])
    for view in views:
        assert view.histories.shape == (len(ROWS), view.lengths.max())
        assert (view.lengths <= max_length).all()
        assert ((view.lengths == 0) == (LENGTHS == 0)).all()
        real = np.arange(view.histories.shape[1]) < view.lengths[:, None]
        assert (view.histories[~real] == -1).all()
        for row, places, held in zip(ROWS, view.histories, real):
            inside = places[held]
            inside = inside[inside >= 0]
            assert row not in inside
            assert (inside[LOG.users[inside] == LOG.users[row]] < row).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_is_a_function_of_seed_epoch_and_row(kind):
    augmenter = all_kinds(7)[kind]
    views = augmenter.views(ROWS, HISTORIES, LENGTHS, 20, 2)
    again = all_kinds(7)[kind].views(ROWS, HISTORIES, LENGTHS, 20, 2)
    assert all(same(view, other) for view, other in zip(views, again))
    assert not same(*views)
    for other in (
        augmenter.views(ROWS, HISTORIES, LENGTHS, 20, 3),
        all_kinds(8)[kind].views(ROWS, HISTORIES, LENGTHS, 20, 2),
    ):
        assert not any(same(view, changed) for view, changed in zip(views, other))
    some = np.random.default_rng(1).permutation(len(ROWS))[:40]
    few = augmenter.views(ROWS[some], HISTORIES[some], LENGTHS[some], 20, 2)
    for view, part in zip(views, few):
        width = part.histories.shape[1]
        np.testing.assert_array_equal(part.lengths, view.lengths[some])
        np.testing.assert_array_equal(part.histories, view.histories[some][:, :width])
        np.testing.assert_array_equal(part.rates, view.rates[some])


def test_at_strength_zero_views_are_the_history():
    none = {"crop": 1, "mask": 0, "reorder": 0}
    kinds = (
        cl4srec(CMRSettings(**none), 0),
        coserec(CoSeRecSettings(**none, substitute=0, insert=0), SIMILAR, 0),
        basrec(BASRecSettings([0.0], 0), SIMILAR, 0),
    )
    for augmenter in kinds:
        plain = augmenter.augment(ROWS, HISTORIES, LENGTHS, 8, "train")
        for view in augmenter.views(ROWS, HISTORIES, LENGTHS, 8, 0):
            assert same(view[:2], plain)


def test_short_histories_are_not_cropped_or_reordered():
    """Crop makes a history shorter, as neither mask, substitution nor insertion do."""
    augmenter = coserec(CoSeRecSettings(0.1, 0.5, 1.0, 0.5, 0.5, short=4), SIMILAR, 0)
    short = LENGTHS <= 4
    for view in augmenter.views(ROWS, HISTORIES, LENGTHS, 50, 0):
        assert (view.lengths[short] >= LENGTHS[short]).all()
        assert (view.lengths[~short] < LENGTHS[~short]).any()
        assert (view.lengths[short] > LENGTHS[short]).any()


def test_by_length_by_hand():
    """Crop(0.5) of 4 leaves 2; masking all leaves -1."""
    operator = ByLength(Mask(1), Crop(0.5), 3)
    histories = np.array([[5, 6, 7, -1], [1, 2, 3, 4]])
    found, lengths = operator.apply(np.array([8, 5]), histories, np.array([3, 4]), 10, 0, 0, 1)
    assert lengths.tolist() == [3, 2]
    assert found[0].tolist() == [-1, -1, -1]
    assert found[1].tolist() in ([1, 2, -1], [2, 3, -1], [3, 4, -1])


def test_rates_are_those_of_the_operators_that_were_drawn():
    """A reordered or substituted stretch shows its rate where every place changes visibly."""
    augmenter = basrec(BASRecSettings([0.2, 0.9], 0), SIMILAR, 3)
    drawn = []
    for view in augmenter.views(ROWS, HISTORIES, LENGTHS, 50, 1):
        assert set(view.rates) == {0.2, 0.9}
        np.testing.assert_array_equal(view.lengths, LENGTHS)
        width = view.histories.shape[1]
        changed = (view.histories != HISTORIES[:, :width]).sum(1)
        assert (changed <= np.maximum(1, np.floor(view.rates * LENGTHS + 1e-9))).all()
        long = LENGTHS >= 8
        assert changed[long & (view.rates == 0.9)].mean() > 4
        drawn.append(view.rates)
    assert not np.array_equal(*drawn)


def test_operators_are_drawn_uniformly():
    operator = OneOf([Crop(), Mask(), Reorder()])
    many = np.arange(30000)
    counts = np.bincount(operator.choices(many, many, 0, 0, 1))
    np.testing.assert_allclose(counts / len(many), 1 / 3, atol=0.01)


def test_no_views_before_the_start():
    augmenter = basrec(BASRecSettings([0.5], 2), SIMILAR, 0)
    views = [augmenter.views(ROWS, HISTORIES, LENGTHS, 9, epoch) for epoch in range(3)]
    assert [view is None for view in views] == [True, True, False]


def test_fingerprints_tell_settings_apart():
    prints = [
        cl4srec(CMRSettings(), 0).fingerprint(),
        cl4srec(CMRSettings(), 1).fingerprint(),
        cl4srec(CMRSettings(crop=0.3), 0).fingerprint(),
        coserec(CoSeRecSettings(), SIMILAR, 0).fingerprint(),
        coserec(CoSeRecSettings(short=5), SIMILAR, 0).fingerprint(),
        basrec(BASRecSettings([0.5]), SIMILAR, 0).fingerprint(),
        basrec(BASRecSettings([0.6]), SIMILAR, 0).fingerprint(),
        basrec(BASRecSettings([0.5], 3), SIMILAR, 0).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert cl4srec(CMRSettings(), 0).fingerprint() == prints[0]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="rates must hold at least one"):
        BASRecSettings([])
    with pytest.raises(ValueError, match=r"rates must lie in 0..1, got 1\.5"):
        BASRecSettings([0.5, 1.5])
    with pytest.raises(ValueError, match="start must be >= 0, got -1"):
        BASRecSettings(start=-1)
    with pytest.raises(ValueError, match="short must be >= 0, got -1"):
        CoSeRecSettings(short=-1)
    with pytest.raises(ValueError, match=r"insert must lie in 0..1, got 2"):
        CoSeRecSettings(insert=2)
