"""The whole table: what it is made of, what it finds, and that nothing leaks into it."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recbole_mars.agreement import (
    AGREEMENT_COLUMNS,
    AgreementSettings,
    agree,
    content_directions,
    item_effects,
    table,
)
from recbole_mars.data import TEST, TRAIN, VALID

SMALL = AgreementSettings(factors=6, sample_users=60)
ITEM, SUPPORT, USER, UNCERTAINTY, HISTORY = range(5)
ROUNDING = 1e-6  # the last bit of a product may depend on where in memory its factors are


def columns_of(world, settings=SMALL, **features):
    return agree(world.log, world.labels, features, settings).columns


def position(log):
    """Behaviours before each row."""
    return np.arange(len(log)) - log.offsets[log.users]


def with_new_users(world, users):
    """The world with no training rows of these users."""
    phases = np.where(np.isin(world.log.users, users), VALID, world.log.phases)
    return dataclasses.replace(world, log=dataclasses.replace(world.log, phases=phases))


# -- what the columns hold ---------------------------------------------------------------------


@pytest.mark.parametrize("contents", [False, True])
def test_columns(make_world, contents):
    world = make_world(0)
    log = world.log
    features = {"text": world.directions} if contents else {}
    found = agree(log, world.labels, features, SMALL)
    columns = found.columns
    assert columns.shape == (len(log), len(AGREEMENT_COLUMNS))
    assert columns.dtype == np.float32
    assert np.isfinite(columns).all()
    training = log.phases == TRAIN
    counts, others = np.zeros(log.n_items), np.zeros(len(log))
    for row in np.flatnonzero(training):  # in the order of time, nobody meets an item twice
        others[row] = counts[log.items[row]]
        counts[log.items[row]] += 1
    others[~training] = counts[log.items[~training]]
    np.testing.assert_allclose(columns[:, SUPPORT], np.log1p(others), rtol=1e-6)
    np.testing.assert_allclose(columns[:, HISTORY], np.log1p(position(log)), rtol=1e-6)
    np.testing.assert_allclose(columns[position(log) == 0, USER], 0, atol=1e-6)
    assert (columns[:, UNCERTAINTY] >= 0).all()
    names = ["user", "drift 8", "drift 64", "agreement"]
    names += ["text 0.5", "text 0.15"] if contents else []
    assert list(found.fitted.weights) == [*names, "noise"]


def test_the_users_column_equals_a_loop_of_posteriors(make_world):
    """With the weights that were found, from opinions less what all others say of the items."""
    world = make_world(1, n_users=40, length=12)
    log, settings = world.log, AgreementSettings(factors=0)
    found = agree(log, world.labels, {"text": world.directions}, settings)
    training = world.labels[log.phases == TRAIN].astype(np.float64)
    values = (world.labels - training.mean()) / training.std()
    directions = content_directions(world.directions)
    fold = np.random.default_rng(settings.seed).integers(0, settings.folds, log.n_users)
    effects = item_effects(log, values, directions, fold)
    np.testing.assert_allclose(found.columns[:, ITEM], effects.told, atol=1e-6)
    rest = values - effects.whole
    weights = found.fitted.weights

    def covariance(a, b):
        gap = min(directions[log.items[a]] @ directions[log.items[b]] - 1, 0)
        return (
            weights["user"]
            + weights["drift 8"] * np.exp(-abs(a - b) / 8)
            + weights["drift 64"] * np.exp(-abs(a - b) / 64)
            + weights["text 0.5"] * np.exp(gap / 0.5)
            + weights["text 0.15"] * np.exp(gap / 0.15)
        )

    for row in range(0, len(log), 7):
        past = range(log.offsets[log.users[row]], row)
        known = [[covariance(a, b) + weights["noise"] * (a == b) for b in past] for a in past]
        asked = np.array([covariance(a, row) for a in past])
        gain = np.linalg.solve(np.array(known).reshape(len(past), -1), asked) if past else asked
        deviation = (covariance(row, row) - gain @ asked) ** 0.5
        assert found.columns[row, USER] == pytest.approx(gain @ rest[past], abs=1e-5)
        assert found.columns[row, UNCERTAINTY] == pytest.approx(deviation, abs=1e-5)


def test_scale_and_origin_of_opinions_do_not_matter(make_world):
    world = make_world(2)
    found = agree(world.log, world.labels, {"text": world.directions}, SMALL).columns
    ratings = 1 + 4 * world.labels
    again = agree(world.log, ratings, {"text": world.directions}, SMALL).columns
    np.testing.assert_allclose(again, found, atol=1e-3)


def test_deterministic_under_a_seed(make_world):
    world = make_world(3)
    one, same = (columns_of(world, text=world.directions) for _ in range(2))
    np.testing.assert_allclose(one, same, atol=ROUNDING)
    other = columns_of(world, dataclasses.replace(SMALL, seed=1), text=world.directions)
    assert np.abs(one - other).max() > 1e-3


# -- windows -----------------------------------------------------------------------------------


def test_a_window_as_long_as_the_histories_is_as_good_as_a_longer_one(make_world):
    world = make_world(4, length=20)
    longest = columns_of(world, dataclasses.replace(SMALL, max_length=400))
    whole = columns_of(world, dataclasses.replace(SMALL, max_length=20))
    np.testing.assert_allclose(whole, longest, atol=ROUNDING)
    short = columns_of(world, dataclasses.replace(SMALL, max_length=10))
    assert np.isfinite(short).all()
    same = [ITEM, SUPPORT, HISTORY]
    np.testing.assert_allclose(short[:, same], longest[:, same], atol=ROUNDING)
    assert np.corrcoef(short[:, USER], longest[:, USER])[0, 1] > 0.8
    late = position(world.log) >= 12
    assert (short[late, UNCERTAINTY] >= longest[late, UNCERTAINTY] - 1e-6).all()
    least = columns_of(world, dataclasses.replace(SMALL, max_length=2))
    assert np.isfinite(least).all()
    assert np.abs(least[:, USER]).max() < 3


def test_a_window_looks_back_as_far_as_it_says(make_world):
    world = with_new_users(make_world(5), [7])
    settings = dataclasses.replace(SMALL, max_length=8)
    start = world.log.offsets[7]
    found = columns_of(world, settings)[start : start + 20, USER]
    changed = world.labels.copy()
    changed[start + 4] = 1 - changed[start + 4]
    again = columns_of(dataclasses.replace(world, labels=changed), settings)
    moved = np.abs(again[start : start + 20, USER] - found) > 10 * ROUNDING
    assert moved[5:9].all()  # half of 8 at least
    assert not moved[12:].any()  # 8 at most


# -- what it finds -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factors", "contents"), [(6, False), (0, True), (6, True)], ids=["others", "contents", "both"]
)
def test_tastes_are_found(make_world, factors, contents):
    world = make_world(6, n_users=200)
    settings = dataclasses.replace(SMALL, factors=factors)
    features = {"text": world.directions} if contents else {}
    columns = columns_of(world, settings, **features)
    tested = world.log.phases != TRAIN
    labels, item = world.labels[tested], columns[tested, ITEM]
    by_item, by_both = (roc_auc_score(labels, s) for s in (item, item + columns[tested, USER]))
    assert by_item > 0.55
    assert by_both > by_item + 0.15


@pytest.mark.parametrize("contents", [False, True])
def test_tastes_of_new_users_are_found_from_few_behaviours(make_world, contents):
    """One to four own opinions, none of which anything was learnt from."""
    users = np.arange(1, 101)
    world = with_new_users(make_world(7, n_users=300), users)
    columns = columns_of(world, **({"text": world.directions} if contents else {}))
    asked = np.isin(world.log.users, users) & (np.abs(position(world.log) - 2.5) < 2)
    labels, item = world.labels[asked], columns[asked, ITEM]
    by_item, by_both = (roc_auc_score(labels, s) for s in (item, item + columns[asked, USER]))
    assert by_both > by_item + 0.08


def test_uncertainty_falls_as_opinions_come_in(make_world):
    world = make_world(8)
    columns = columns_of(world, text=world.directions)
    mean = [columns[position(world.log) == n, UNCERTAINTY].mean() for n in (0, 2, 6, 18)]
    assert mean == sorted(mean, reverse=True)
    assert mean[-1] < 0.8 * mean[0]


# -- what leaks --------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [VALID, TEST])
def test_held_out_opinions_reach_only_later_rows_of_their_user(make_world, phase):
    world = with_new_users(make_world(9), [5])
    found = columns_of(world, text=world.directions)
    rows = np.flatnonzero(world.log.phases == phase)
    start = world.log.offsets[5]
    for row in [rows[0], rows[-1], start + 1]:
        changed = world.labels.copy()
        changed[row] = 1 - changed[row]
        again = columns_of(dataclasses.replace(world, labels=changed), text=world.directions)
        later = (world.log.users == world.log.users[row]) & (np.arange(len(found)) > row)
        np.testing.assert_allclose(again[~later], found[~later], atol=ROUNDING)
        np.testing.assert_allclose(again[:, ITEM], found[:, ITEM], atol=ROUNDING)
        assert (np.abs(again - found)[later, USER] > 10 * ROUNDING).all()


def test_a_training_opinion_does_not_reach_its_own_row(make_log, monkeypatch):
    """A user's 1 and 0 change places, on items whose sums differ by this 1: the sums of the items
    are as before but for their order, and with them all shared variances; the weights are held."""
    weights = np.array([0.2, 0.1, 0.1, 1.0, 0.6])
    monkeypatch.setattr(table, "_fit", lambda *_: weights)
    random = np.random.default_rng(10)
    n_users, n_items = 40, 12  # all users meet all items
    met = [random.permutation(n_items) + 1 for _ in range(n_users)]
    users, items = np.repeat(np.arange(n_users) + 1, n_items), np.concatenate(met)
    log = make_log(users, items)
    # Two thirds like the same half of the items.
    utility = np.where(items % 2, 1.5, -1.5) * np.where(users % 3, 1, -1)
    labels = (utility + random.logistic(size=len(users)) > 0).astype(np.float32)
    sums = np.bincount(items, labels)
    swaps = [
        (first, second)
        for first in range(len(users))
        for second in range(first + 1, log.offsets[users[first] + 1])
        if labels[first] != labels[second]
        and sums[items[first]] - sums[items[second]] == labels[first] - labels[second]
    ]
    found = agree(log, labels, {}, SMALL).columns
    assert len(swaps) >= 10
    for first, second in swaps[:10]:
        swapped = labels.copy()
        swapped[[first, second]] = labels[[second, first]]
        again = agree(log, swapped, {}, SMALL).columns
        before = (users == users[first]) & (np.arange(len(users)) <= first)
        np.testing.assert_allclose(again[before], found[before], atol=1e-5)
        own = users == users[first]
        np.testing.assert_allclose(again[own, ITEM], found[own, ITEM], atol=1e-6)
        assert np.abs(again - found)[~own].max() > 1e-2


@pytest.mark.parametrize("contents", [False, True])
def test_noise_has_an_auc_of_a_half(make_world, contents):
    found = []
    for seed in range(8):
        world = make_world(seed, n_users=80, n_items=40, length=12, liking=0.0)
        features = {"text": world.directions} if contents else {}
        columns = columns_of(world, dataclasses.replace(SMALL, sample_users=80), **features)
        score = columns[:, ITEM] + columns[:, USER]
        in_training = world.log.phases == TRAIN
        found.append(
            [
                roc_auc_score(world.labels[rows], column[rows])
                for rows in (in_training, ~in_training)
                for column in (score, columns[:, ITEM], columns[:, USER])
            ]
        )
    error = np.std(found, axis=0) / len(found) ** 0.5
    assert (error < 0.03).all()
    assert (np.abs(np.mean(found, axis=0) - 0.5) < 4 * error).all()


# -- edges and errors --------------------------------------------------------------------------


@pytest.mark.parametrize("n_users", [1, 2, 3])
def test_few_users(make_log, n_users):
    """Those of one fold may be all that there are."""
    users = np.repeat(np.arange(n_users) + 1, 6)
    log = make_log(users, np.tile(np.arange(6) + 1, n_users))
    opinions = np.random.default_rng(0).integers(0, 2, len(users)).astype(np.float32)
    for seed in range(6):
        columns = agree(log, opinions, {}, dataclasses.replace(SMALL, seed=seed)).columns
        assert np.isfinite(columns).all()


def test_items_that_nobody_shares(make_log):
    log = make_log(np.repeat(np.arange(8) + 1, 5), np.arange(40) + 1)
    opinions = np.random.default_rng(0).integers(0, 2, 40)
    columns = agree(log, opinions, {}, SMALL).columns
    assert np.isfinite(columns).all()
    assert not columns[:, SUPPORT].any()


def test_features_that_no_item_has(make_world):
    world = make_world(11)
    columns = columns_of(world, text=np.zeros((world.log.n_items, 3)))
    plain = columns_of(world)
    np.testing.assert_allclose(columns, plain, atol=1e-3)


@pytest.mark.parametrize(("phase", "label"), [(TRAIN, 1), (VALID, None)])
def test_training_opinions_must_differ(make_log, phase, label):
    log = make_log([1, 1, 2, 2], [1, 2, 1, 2], phase)
    opinions = np.array([0, 1, 0, 1.0]) if label is None else np.full(4, float(label))
    with pytest.raises(ValueError, match="training opinions must differ"):
        agree(log, opinions, {}, SMALL)


@pytest.mark.parametrize(
    ("name", "bound"),
    [("factors", 0), ("folds", 2), ("max_length", 2), ("sample_users", 1), ("sample_length", 2)],
)
def test_settings_out_of_range(name, bound):
    AgreementSettings(**{name: bound})
    with pytest.raises(ValueError, match=f"{name} must be >= {bound}, got {bound - 1}"):
        AgreementSettings(**{name: bound - 1})
