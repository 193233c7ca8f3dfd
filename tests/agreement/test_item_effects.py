"""What others think of an item: sums without the asker, regression on contents, shrinkage, and
what may be told of it."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from recbole_mars.agreement import content_means, earlier_sums, item_effects, others_sums
from recbole_mars.data import TRAIN, VALID


def no_contents(log):
    return np.zeros((log.n_items, 0))


def standardised(values):
    return (values - values.mean()) / values.std()


# -- sums of others ----------------------------------------------------------------------------


def test_sums_by_hand():
    """User 1 met item 1 twice; what user 3 said does not count."""
    users, items = np.array([1, 1, 1, 2, 2, 3]), np.array([1, 1, 2, 1, 2, 1])
    values = np.array([1.0, 2, 4, 8, 16, 32])
    number, total = others_sums(users, items, np.arange(6) < 5, values)
    assert number.tolist() == [1, 1, 1, 2, 1, 3]
    assert total.tolist() == [8, 8, 16, 3, 4, 11]


def test_sums_equal_a_loop():
    random = np.random.default_rng(0)
    users, items = np.sort(random.integers(1, 9, 200)), random.integers(1, 7, 200)
    given, values = random.random(200) < 0.6, random.normal(size=200)
    number, total = others_sums(users, items, given, values)
    for row in range(200):
        rows = [r for r in range(200) if items[r] == items[row] and users[r] != users[row]]
        assert number[row] == sum(given[r] for r in rows)
        assert total[row] == pytest.approx(sum(values[r] for r in rows if given[r]), abs=1e-12)


def test_earlier_sums_by_hand():
    """User 1 met item 1 before and after all others; users 2 and 3 met it at the same time."""
    users, items = np.array([1, 1, 1, 2, 2, 3]), np.array([1, 1, 2, 1, 2, 1])
    times, values = np.array([1.0, 5, 6, 3, 3, 3]), np.array([1.0, 2, 4, 8, 16, 32])
    number, total = earlier_sums(users, items, times, np.arange(6) != 4, values)
    assert number.tolist() == [0, 2, 0, 1, 0, 2]
    assert total.tolist() == [0, 40, 0, 1, 0, 9]


@pytest.mark.parametrize("n_times", [1, 4, 1000])
def test_earlier_sums_equal_a_loop(n_times):
    """Many times are equal, many users met an item several times."""
    random = np.random.default_rng(n_times)
    users, times = random.integers(1, 9, 200), random.integers(0, n_times, 200) * 1.0
    order = np.lexsort((times, users))
    users, times, items = users[order], times[order], random.integers(1, 7, 200)
    given, values = random.random(200) < 0.6, random.normal(size=200)
    number, total = earlier_sums(users, items, times, given, values)
    for row in range(200):
        rows = [
            r
            for r in range(200)
            if items[r] == items[row]
            and users[r] != users[row]
            and (times[r], r) < (times[row], row)
        ]
        assert number[row] == sum(given[r] for r in rows)
        assert total[row] == pytest.approx(sum(values[r] for r in rows if given[r]), abs=1e-12)


@pytest.mark.parametrize("sums", [others_sums, earlier_sums])
def test_sums_of_many_float32_values_are_float64(sums):
    """Everybody likes item 1; what they say of item 2 must not drown in the running sum."""
    users, items = np.repeat(np.arange(20_000), 2), np.tile([1, 2], 20_000)
    values = np.where(items == 1, 1.3, 0.01 * np.random.default_rng(0).normal(size=40_000))
    values, given = values.astype(np.float32), np.ones(40_000, dtype=bool)
    times = [np.arange(40_000.0)] if sums is earlier_sums else []
    _, total = sums(users, items, *times, given, values)
    _, expected = sums(users, items, *times, given, values.astype(np.float64))
    assert total.dtype == np.float64
    np.testing.assert_allclose(total, expected, rtol=1e-9, atol=1e-9)


# -- regression on contents --------------------------------------------------------------------


def refitted_without(contents, counts, sums, item, item_variance, noise, ridge):
    """Minimise sum_j w_j (mean_j - b x_j)^2 + ridge |b|^2 over all other items that were met."""
    gram, target = ridge * np.eye(contents.shape[1]), np.zeros(contents.shape[1])
    for j in range(len(contents)):
        if j != item and counts[j]:
            weight = 1 / (item_variance + noise / counts[j])
            gram += weight * np.outer(contents[j], contents[j])
            target += weight * contents[j] * sums[j] / counts[j]
    return contents[item] @ np.linalg.solve(gram, target)


@pytest.mark.parametrize("ridge", [0.1, 30.0])
def test_content_means_equal_a_refit_without_each_item(ridge):
    random = np.random.default_rng(1)
    contents = random.normal(size=(12, 4))
    contents[[0, 5]] = 0  # without contents
    counts = random.integers(1, 9, 12).astype(float)
    counts[[0, 7]] = 0  # unseen
    sums = np.where(counts > 0, random.normal(size=12) * counts, 0)
    settings = {"item_variance": 0.3, "noise": 0.8, "ridge": ridge}
    found = content_means(contents, counts, sums, **settings)
    expected = [refitted_without(contents, counts, sums, i, **settings) for i in range(12)]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)
    assert found[0] == found[5] == 0
    assert found[7] != 0


# -- shrunk effects ----------------------------------------------------------------------------


def test_effects_by_hand(make_log):
    """Ten users, two items: of item 1 all but the last of five say 1, of item 2 the last, the
    others -1.

    noise = 2 (4 · 0.4² + 1.6²) / (10 - 2) = 0.8 and between = 2 (5 · 0.6² - 0.8) / 10 = 0.2, so
    others' sum is divided by their number and the strength 0.8 / 0.2 = 4. The intercept that
    two items give is negligible.
    """
    log = make_log(np.arange(10) + 1, np.repeat([1, 2], 5))
    values = np.array([1.0, 1, 1, 1, -1, -1, -1, -1, -1, 1])
    effects = item_effects(log, values, no_contents(log), np.arange(11) % 2)
    whole = np.array([2 / 8] * 4 + [4 / 8])
    told = np.array([0, 1 / 5, 2 / 6, 3 / 7, 4 / 8])
    np.testing.assert_allclose(effects.whole, [*whole, *-whole], atol=2e-3)
    np.testing.assert_allclose(effects.told, [*told, *-told], atol=2e-3)
    assert effects.support.tolist() == [0, 1, 2, 3, 4] * 2
    assert effects.totals.counts.tolist() == [0, 5, 5]
    assert effects.totals.sums.tolist() == [0, 3, -3]
    assert effects.totals.strength == pytest.approx(4, rel=1e-2)
    np.testing.assert_allclose(effects.totals.priors, np.zeros((2, 3)), atol=2e-2)


def test_many_raters_give_the_plain_mean(make_log):
    random = np.random.default_rng(2)
    log = make_log(np.arange(2000) + 1, np.tile([1, 2, 3, 4], 500))
    values = standardised(random.normal(size=2000) + 2 * (log.items % 2))
    effects = item_effects(log, values, no_contents(log), np.arange(2001) % 3)
    number, total = others_sums(log.users, log.items, np.ones(2000, bool), values)
    np.testing.assert_allclose(effects.whole, total / number, atol=2e-3)
    assert effects.support.tolist() == np.repeat(np.arange(500), 4).tolist()
    before = np.cumsum(values.reshape(500, 4), axis=0).ravel() - values
    late = effects.support >= 100
    expected = before[late] / effects.support[late]
    np.testing.assert_allclose(effects.told[late], expected, atol=1e-2)


def test_only_training_opinions_count(make_world):
    world = make_world(0)
    log, random = world.log, np.random.default_rng(0)
    values = standardised(world.labels.astype(np.float64))
    fold = random.integers(0, 4, log.n_users)
    effects = item_effects(log, values, world.directions, fold)
    later = np.where(log.phases == TRAIN, values, random.normal(size=len(log)))
    again = item_effects(log, later, world.directions, fold)
    np.testing.assert_allclose(again[:3], effects[:3], atol=1e-12)
    for part, same in zip(effects.totals, again.totals):
        np.testing.assert_allclose(same, part, atol=1e-12)


def test_held_out_rows_are_told_all_that_others_said(make_world):
    """Whenever it was said; of training rows what was said later is missing."""
    world = make_world(1)
    log, values = world.log, standardised(world.labels)
    training = log.phases == TRAIN
    effects = item_effects(log, values, world.directions, np.arange(log.n_users) % 4)
    number, _ = others_sums(log.users, log.items, training, values)
    assert np.array_equal(effects.told[~training], effects.whole[~training])
    assert np.array_equal(effects.support[~training], number[~training])
    assert (effects.support[training] <= number[training]).all()
    assert (effects.support[training] < number[training]).mean() > 0.9


def exchanges(log, labels):
    """Pairs of a user's rows, the first with label 1, the second with 0 on an item that as many
    others liked as the first: if the labels change places, then all sums of items are as before
    but for their order, and so are the noise and the variance between items."""
    sums = np.bincount(log.items, labels)
    return [
        (first, second)
        for first in np.flatnonzero(labels == 1)
        for second in range(*log.offsets[log.users[first] :][:2])
        if labels[second] == 0 and sums[log.items[first]] == sums[log.items[second]] + 1
    ]


@pytest.fixture
def complete(make_log):
    """A log of 30 users who all meet all of 12 items, at the same times, and labels."""
    random = np.random.default_rng(3)
    items = np.concatenate([random.permutation(12) + 1 for _ in range(30)])
    times = np.tile(np.arange(12), 30)
    log = make_log(np.repeat(np.arange(30) + 1, 12), items, times=times)
    return log, (random.random(360) < 0.3 + 0.04 * items).astype(float)


@pytest.mark.parametrize("with_contents", [False, True])
def test_a_training_label_does_not_move_its_own_effect(complete, monkeypatch, with_contents):
    log, labels = complete
    contents = no_contents(log)
    if with_contents:  # they weigh items differently, so these two would move a little
        contents = np.random.default_rng(4).normal(size=(13, 3))
        monkeypatch.setitem(item_effects.__globals__, "_RIDGES", (10.0,))
        monkeypatch.setitem(item_effects.__globals__, "_variance_around", lambda *_: 0.2)
    fold = np.arange(31) % 5
    values = standardised(labels)
    effects = item_effects(log, values, contents, fold)
    swaps = exchanges(log, labels)
    assert len(swaps) > 5
    for first, second in swaps:
        swapped = values.copy()
        swapped[[first, second]] = values[[second, first]]
        again = item_effects(log, swapped, contents, fold)
        own = log.users == log.users[first]
        np.testing.assert_allclose(again.told[own], effects.told[own], atol=1e-12)
        np.testing.assert_allclose(again.whole[own], effects.whole[own], atol=1e-12)
        others = ~own & np.isin(log.items, log.items[[first, second]])
        assert (np.abs(again.whole - effects.whole)[others] > 1e-3).all()


def test_a_training_row_is_told_nothing_of_later_opinions(complete):
    """All users are of one fold, so that contents' means, from other folds, are nothing."""
    log, labels = complete
    values = standardised(labels)
    fold = np.zeros(31, dtype=int)
    effects = item_effects(log, values, no_contents(log), fold)
    swaps = exchanges(log, labels)
    assert len(swaps) > 5
    for first, second in swaps:
        swapped = values.copy()
        swapped[[first, second]] = values[[second, first]]
        again = item_effects(log, swapped, no_contents(log), fold)
        rows, reached = np.arange(len(log)), np.zeros(len(log), dtype=bool)
        for row in (first, second):
            after = (log.times > log.times[row]) | ((log.times == log.times[row]) & (rows > row))
            reached |= after & (log.items == log.items[row]) & (log.users != log.users[row])
        assert reached.any()
        assert (np.abs(again.told - effects.told)[reached] > 1e-3).all()
        np.testing.assert_allclose(again.told[~reached], effects.told[~reached], atol=1e-12)


def test_noise_tells_a_training_row_nothing_of_its_own_label(make_world):
    """With the own label among six, the AUC would be 0.8 or so."""
    found = []
    for seed in range(20):
        world = make_world(seed, n_users=60, n_items=80, length=10, liking=0.0)
        values = standardised(world.labels)
        fold = np.arange(61) % 5
        effects = item_effects(world.log, values, world.directions, fold)
        training = world.log.phases == TRAIN
        labels = world.labels[training]
        found.append([roc_auc_score(labels, e[training]) for e in (effects.whole, effects.told)])
    error = np.std(found, axis=0) / len(found) ** 0.5
    assert (np.abs(np.mean(found, axis=0) - 0.5) < 4 * error).all()
    assert (np.std(found, axis=0) < 0.05).all()


def memorised(labels, *columns):
    """AUC on the training rows themselves of a logistic regression that is hardly regularised."""
    inputs = np.column_stack(columns)
    model = LogisticRegression(C=1e6, max_iter=3000).fit(inputs, labels)
    return roc_auc_score(labels, model.decision_function(inputs))


def test_a_label_cannot_be_read_from_the_item_and_what_is_told_of_it(make_log):
    """Noise. Who knows an item's own mean reads the label from the mean of all but this row.

    From the mean of those before, a little can be read by who has memorised how often the item is
    liked: the more it was before, the less often it still will be. With many raters it is as
    little as memorising reads from the item itself.
    """
    found = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        items = np.concatenate([random.permutation(30) for _ in range(200)])
        log = make_log(np.repeat(np.arange(200), 30) + 1, items + 1)
        labels = random.integers(0, 2, len(items))
        fold = np.zeros(201, dtype=int)
        effects = item_effects(log, standardised(labels), no_contents(log), fold)
        item = np.eye(30)[items]
        columns = [standardised(column) for column in (effects.told, effects.whole)]
        found.append([memorised(labels, item, *c) for c in ([], columns[:1], columns[1:])])
    alone, told, whole = np.mean(found, axis=0)
    assert 0.52 < alone < 0.57
    assert alone <= told < alone + 0.04
    assert whole > 0.99


def test_contents_speak_for_items_that_few_met(make_log):
    random = np.random.default_rng(4)
    contents = random.normal(size=(301, 2))
    quality = contents @ [1.0, -1.0]
    items = np.repeat(np.arange(300) + 1, 2)
    items = items[random.permutation(600)]
    log = make_log(np.repeat(np.arange(60) + 1, 10), items)
    values = standardised(quality[items] + 2 * random.normal(size=600))
    fold = random.integers(0, 5, 61)
    with_contents = item_effects(log, values, contents, fold)
    without = item_effects(log, values, no_contents(log), fold)
    for seen, unseen in ((with_contents.whole, without.whole), (with_contents.told, without.told)):
        assert np.corrcoef(seen, quality[items])[0, 1] > 0.9
        assert np.corrcoef(unseen, quality[items])[0, 1] < 0.6


def test_an_item_that_nobody_else_met_is_what_its_contents_suggest(make_log):
    random = np.random.default_rng(5)
    contents = np.where(np.arange(42) % 2, 1.0, -1.0)[:, None]
    items = np.concatenate([random.permutation(40)[:20] + 1 for _ in range(40)] + [[41]])
    users = np.append(np.repeat(np.arange(40) + 1, 20), 41)
    log = make_log(users, items, np.append(np.full(800, TRAIN), VALID))
    values = contents[items, 0] + 0.3 * random.normal(size=801)
    effects = item_effects(log, values, contents, np.arange(42) % 5)
    assert effects.support[-1] == 0
    assert effects.whole[-1] == effects.told[-1] == pytest.approx(1, abs=0.1)
    first = effects.support[:800] == 0  # of training rows, those that nobody met before
    np.testing.assert_allclose(effects.told[:800][first], contents[items[:800][first], 0], atol=0.2)
    assert first.sum() == 40


@pytest.mark.parametrize("alone", [False, True])
def test_opinions_without_noise(make_log, alone):
    """Nobody else met a user's items, or all who met an item agree: no variance to be seen."""
    items = np.arange(40) + 1 if alone else np.append(np.tile(np.arange(5) + 1, 8)[:-1], 6)
    log = make_log(np.repeat(np.arange(8) + 1, 5), items)
    values = standardised((items % 2).astype(float))
    effects = item_effects(log, values, no_contents(log), np.arange(9) % 3)
    assert all(np.isfinite(part).all() for part in (*effects[:3], *effects.totals))
    number, _ = others_sums(log.users, log.items, np.ones(40, bool), values)
    assert (number == 0).sum() == (40 if alone else 1)
    for effect, basis in ((effects.whole, number), (effects.told, effects.support)):
        assert np.abs(effect[basis == 0]).max() < 0.3
        np.testing.assert_allclose(effect[basis > 0], values[basis > 0], atol=0.02)
