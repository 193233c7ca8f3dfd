"""Agreement on clicks: loop references, planted groups, chance, what nobody is told, on disk."""

from dataclasses import replace

import numpy as np
import pytest

from recbole_mars.agreement import (
    CLICK_COLUMNS,
    ClickAgreementSettings,
    ClickCounts,
    FittedClickAgreement,
    agree_on_clicks,
    fit_click_factors,
)
from recbole_mars.data import TEST, TRAIN, VALID, InteractionLog, draw_negatives
from recbole_mars.evaluation import auc

SETTINGS = ClickAgreementSettings(factors=2, folds=4, max_length=7)
COLUMN = {name: place for place, name in enumerate(CLICK_COLUMNS)}
GROUPS = 3


def make_clicks(seed=0, n_users=150, n_items=60, gathered=0.9, negatives=2):
    """Users click items of their own group with a probability; before each click stand negatives,
    drawn from what the user never clicks. Times run over all users, contents tell nothing."""
    random = np.random.default_rng(seed)
    group_of_item = np.arange(n_items + 1) % GROUPS
    lengths = random.integers(4, 16, n_users)
    columns = {name: [] for name in ("users", "items", "labels", "times", "phases", "drawn")}
    for user, length in enumerate(lengths, start=1):
        near = group_of_item[1:] == user % GROUPS
        odds = np.where(near, gathered / near.sum(), (1 - gathered) / (~near).sum())
        clicked = random.choice(np.arange(1, n_items + 1), length, replace=False, p=odds)
        others = np.setdiff1d(np.arange(1, n_items + 1), clicked)
        times = np.sort(random.integers(0, 400, length)).astype(float)
        for place, (item, time) in enumerate(zip(clicked, times)):
            phase = TEST if place == length - 1 else VALID if place == length - 2 else TRAIN
            drawn = random.choice(others, negatives, replace=False)
            rows = [*((each, 0, True) for each in drawn), (item, 1, False)]
            for each, label, is_drawn in rows:
                values = (user, each, label, time, phase, is_drawn)
                for name, value in zip(columns, values):
                    columns[name].append(value)
    kinds = {"labels": np.float32, "times": float, "phases": np.int8, "drawn": bool}
    arrays = {name: np.array(c, dtype=kinds.get(name, np.int64)) for name, c in columns.items()}
    if not negatives:
        arrays["drawn"] = None
    return InteractionLog(**arrays, n_users=n_users + 1, n_items=n_items + 2)


def contents(log, seed=1):
    random = np.random.default_rng(seed)
    found = random.normal(size=(log.n_items, 5))
    found[[0, 3, 4]] = 0
    return found


def unit(vector):
    length = np.sqrt((vector**2).sum())
    return vector / length if length > 1e-12 else vector * 0


def reference(log, vectors, row, max_length):
    """Mean, nearest and recent by loops, over the clicks before the row's own click."""
    clicks = []
    for other in range(len(log)):
        same = log.users[other] == log.users[row]
        if same and not log.drawn[other] and other < row:
            clicks.append(other)
    clicks = clicks[-max_length:]
    if not clicks:
        return [0.0, 0.0, 0.0]
    target = unit(vectors[log.items[row]].astype(float))
    past = [unit(vectors[log.items[click]].astype(float)) for click in clicks]
    cosines = [float(each @ target) for each in past]
    weights = [0.8 ** (len(clicks) - 1 - place) for place in range(len(clicks))]
    weighted = sum(w * c for w, c in zip(weights, cosines)) / sum(weights)
    return [float(unit(sum(past)) @ target), max(cosines), weighted]


@pytest.fixture(scope="module")
def log():
    return make_clicks()


@pytest.fixture(scope="module")
def found(log):
    return agree_on_clicks(log, {"text": contents(log), "image": contents(log, 2)}, SETTINGS)


def test_every_view_is_that_of_a_loop(log, found):
    random = np.random.default_rng(0)
    factors = found.fitted.factors
    assert factors.shape == (4, log.n_items, 8)
    for row in [0, 1, 2, *random.integers(0, len(log), 60)]:
        own = factors[found.fitted.fold[log.users[row]]]
        views = {"coarse": own[:, :2], "fine": own, **found.fitted.contents}
        for view, vectors in views.items():
            got = found.columns[row, COLUMN[view] : COLUMN[view] + 3]
            expected = reference(log, vectors, row, SETTINGS.max_length)
            np.testing.assert_allclose(got, expected, atol=1e-6)


def test_counts_are_those_of_a_loop(log, found):
    train = np.flatnonzero(log.training_behaviours())
    train = train[np.argsort(log.times[train], kind="stable")]
    total = len(train)
    for row in np.random.default_rng(1).integers(0, len(log), 80):
        before = [other for other in train if log.times[other] < log.times[row]]
        hits = [k for k, other in enumerate(before) if log.items[other] == log.items[row]]
        lately = [
            sum(k >= len(before) - round(share * total) for k in hits) for share in (0.1, 0.01)
        ]
        gap = len(before) - hits[-1] if hits else total
        expected = np.log1p([len(hits), *lately, gap])
        np.testing.assert_allclose(found.columns[row, -4:], expected, rtol=1e-6)


def test_counts_by_hand():
    counts = ClickCounts.of(np.array([5, 7, 5, 5]), np.array([3.0, 1.0, 2.0, 9.0]))
    asked = counts.before(np.array([5, 5, 5, 7, 6]), np.array([2.0, 3.0, np.inf, np.inf, np.inf]))
    # In the order of time: 7, 5, 5, 5. A tenth and a hundredth of four clicks are one click.
    expected = [[0, 0, 0, 4], [1, 1, 1, 1], [3, 1, 1, 1], [1, 0, 0, 4], [0, 0, 0, 4]]
    np.testing.assert_allclose(np.expm1(asked), expected, atol=1e-12)


@pytest.mark.parametrize("n_users", [40, 900])
def test_factors_are_the_singular_directions_of_the_normalised_clicks(n_users):
    """Dense and sparse decompositions; their signs are free, their inner products are not."""
    random = np.random.default_rng(0)
    clicked = random.random((n_users, 600)) < 0.05
    clicked[:, 7] = False
    users, items = np.nonzero(clicked)
    twice = np.append(np.arange(len(users)), 0)
    found = fit_click_factors(users[twice], items[twice], 600, 6).astype(float)
    by_user, by_item = clicked.sum(1), np.maximum(clicked.sum(0), 1)
    matrix = clicked / np.sqrt(by_user[:, None] * by_item)
    _, scales, directions = np.linalg.svd(matrix, full_matrices=False)
    expected = directions[:6].T * scales[:6]
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), scales[:6], rtol=1e-5)
    assert not found[7].any()


def test_directions_that_there_are_not_are_zeros():
    found = fit_click_factors(np.array([1, 1, 2]), np.array([1, 2, 2]), 4, 5)
    assert np.linalg.matrix_rank(found) == 2
    assert not found[:, 2:].any()
    nothing = np.zeros(0, dtype=int)
    assert not fit_click_factors(nothing, nothing, 4, 5).any()


def test_planted_groups_are_found_and_contents_of_chance_are_not(log, found):
    for phase in (TRAIN, TEST):
        rows = (log.phases == phase) & (found.columns[:, COLUMN["history"]] > np.log(2.5))
        labels = log.labels[rows]
        near = {name: auc(labels, found.columns[rows, place]) for name, place in COLUMN.items()}
        assert near["coarse"] > 0.75
        assert near["fine"] > 0.75
        assert abs(near["text"] - 0.5) < 0.06
        assert near["history"] == pytest.approx(0.5)


def chance_log(seed, by, n_users=500, n_items=100, length=12):
    """Nobody has a taste, all items are alike, and none is clicked twice."""
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(1, n_users + 1), length)
    clicked = [random.choice(n_items, length, replace=False) + 1 for _ in range(n_users)]
    items = np.concatenate(clicked)
    times = np.sort(random.integers(0, 500, (n_users, length)), axis=1).ravel().astype(float)
    against = draw_negatives(users, items, 1, by, times)
    phases = np.tile([TRAIN] * (length - 2) + [VALID, TEST], n_users).astype(np.int8)
    return InteractionLog(
        users=users.repeat(2),
        items=np.stack([against[:, 0], items], axis=1).ravel(),
        labels=np.tile([0, 1], len(users)).astype(np.float32),
        times=times.repeat(2),
        phases=phases.repeat(2),
        drawn=np.tile([True, False], len(users)),
        n_users=n_users + 1,
        n_items=n_items + 1,
    )


@pytest.mark.parametrize("by", ["uniform", "moment"])
def test_clicks_of_chance_tell_nothing_in_training_either(by):
    """A vector that the row's own click had shaped would: that is what the folds are for."""
    told = [name for name in CLICK_COLUMNS if not name.startswith(("text", "image", "history"))]
    values = {(phase, name): [] for phase in (TRAIN, TEST) for name in told}
    for seed in range(4):
        log = chance_log(seed, by)
        found = agree_on_clicks(log, {}, replace(SETTINGS, folds=10))
        for (phase, name), scores in values.items():
            rows = (log.phases == phase) & (found.columns[:, COLUMN["history"]] > 0)
            scores.append(auc(log.labels[rows], found.columns[rows, COLUMN[name]]))
    for (phase, name), scores in values.items():
        tolerance = 0.015 if phase == TRAIN else 0.04  # 2,000 clicks of test
        assert np.mean(scores) == pytest.approx(0.5, abs=tolerance), (phase, name)


@pytest.mark.parametrize("distinct", [4000, 25])
def test_counts_tell_nothing_of_chance_against_negatives_of_the_moment(distinct):
    random = np.random.default_rng(0)
    users, items = np.repeat(np.arange(1, 401), 50), random.integers(1, 2001, 20_000)
    times = random.integers(0, distinct, len(users)).astype(float)
    against = draw_negatives(users, items, 1, "moment", times)[:, 0]
    counts = ClickCounts.of(items, times)
    told = np.concatenate([counts.before(items, times), counts.before(against, times)])
    labels = np.repeat([1, 0], len(users))
    for column in told.T:
        assert auc(labels, column) == pytest.approx(0.5, abs=0.012)


def test_neither_a_rows_click_nor_later_ones_reach_its_user(log, found):
    """Own clicks from some row on are changed: earlier rows of that user stay as they are."""
    user = 5
    first, end = log.offsets[user], log.offsets[user + 1]
    cut = first + 9  # of rows of three: the fourth click
    items = log.items.copy()
    items[cut:end] = log.n_items - 1
    changed = replace(log, items=items)
    settings = replace(SETTINGS, counts=False)
    one, other = (agree_on_clicks(each, {}, settings).columns for each in (log, changed))
    np.testing.assert_array_equal(one[first:cut], other[first:cut])
    assert (one[cut:end] != other[cut:end]).any()


def test_a_later_click_of_others_reaches_no_count(log, found):
    times = log.times
    late = np.flatnonzero(log.training_behaviours() & (times > 300))
    items = log.items.copy()
    items[late] = 1
    changed = agree_on_clicks(replace(log, items=items), {}, SETTINGS).columns
    same = (times <= 300) & (items == log.items)
    np.testing.assert_array_equal(changed[same, -4:], found.columns[same, -4:])


def test_held_out_clicks_of_others_reach_nothing(log, found):
    """Of validation and test rows only the user's own past counts."""
    held = np.flatnonzero((log.phases != TRAIN) & (log.users != 5))
    items = log.items.copy()
    items[held] = 1
    texts = {"text": contents(log), "image": contents(log, 2)}
    changed = agree_on_clicks(replace(log, items=items), texts, SETTINGS).columns
    rows = np.flatnonzero(log.users == 5)
    np.testing.assert_array_equal(changed[rows], found.columns[rows])


def test_a_pair_in_no_log_gets_what_the_log_says(log, found, tmp_path):
    found.fitted.save(tmp_path / "kept")
    fitted = FittedClickAgreement.load(tmp_path / "kept")
    table, behaviours, places = found.standardised(), log.behaviours(), log.behaviour_places()
    for row in np.flatnonzero(log.phases == TEST)[::7]:
        user = log.users[row]
        past = behaviours.items[behaviours.offsets[user] : places[row]]
        asked = [log.items[row : row + 1], past, user, log.times[row]]
        for latest in (past, past[-SETTINGS.max_length :]):
            told = fitted.expect(
                latest, asked[0], int(fitted.fold[user]), n_clicks=len(past), time=log.times[row]
            )
            np.testing.assert_allclose(told, table[row : row + 1], atol=1e-5)
        among = fitted.expect(past, np.append(asked[0], [1, 2, 0]), int(fitted.fold[user]))
        assert among.shape == (4, 17)


def test_withheld_targets_look_as_one_that_nobody_clicked(log, found):
    texts = {"text": contents(log), "image": contents(log, 2)}
    held = agree_on_clicks(log, texts, replace(SETTINGS, withheld=0.3))
    changed = (held.columns != found.columns).any(1)
    training = log.phases == TRAIN
    assert not changed[~training].any()
    assert changed[training].mean() == pytest.approx(0.3, abs=0.05)
    own = slice(COLUMN["text"], COLUMN["history"] + 1)
    np.testing.assert_array_equal(held.columns[:, own], found.columns[:, own])
    new = log.n_items - 1
    assert new not in log.items
    for row in np.flatnonzero(changed)[::20]:
        told = held.fitted.expect([1, 2, 3], [new], int(held.fitted.fold[log.users[row]]))[0]
        np.testing.assert_allclose(held.standardised()[row, :6], told[:6], atol=1e-6)
        np.testing.assert_allclose(held.standardised()[row, -4:], told[-4:], atol=1e-6)
    table = held.standardised()[training]
    np.testing.assert_allclose(table.mean(0), 0, atol=1e-4)
    # Whose target is withheld has nothing to do with the label.
    labels = log.labels[training][changed[training]]
    assert labels.mean() == pytest.approx(log.labels[training].mean(), abs=0.05)


def test_columns_are_standardised_over_training_rows(log, found):
    table = found.standardised()[log.phases == TRAIN]
    np.testing.assert_allclose(table.mean(0), 0, atol=1e-4)
    spreads = table.std(0)
    np.testing.assert_allclose(spreads[spreads > 0], 1, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"factors": 0}, ["coarse", "fine", "coarse_nearest", "fine_recent"]),
        ({"counts": False}, ["clicks", "clicks_lately", "clicks_now", "since_click"]),
    ],
)
def test_what_is_left_out_is_constant(log, changes, gone):
    found = agree_on_clicks(log, {}, replace(SETTINGS, **changes)).standardised()
    left = {name for name, place in COLUMN.items() if found[:, place].any()}
    assert left.isdisjoint([*gone, "text", "image"])
    assert "history" in left


def test_a_user_of_many_rows_is_read_in_parts(monkeypatch, log, found):
    monkeypatch.setattr("recbole_mars.agreement.clicks._TARGETS", 4)
    texts = {"text": contents(log), "image": contents(log, 2)}
    again = agree_on_clicks(log, texts, SETTINGS)
    np.testing.assert_allclose(again.columns, found.columns, atol=1e-6)


def test_a_log_without_negatives(log):
    plain = make_clicks(negatives=0)
    assert plain.drawn is None
    assert np.isfinite(agree_on_clicks(plain, {}, SETTINGS).standardised()).all()


def test_without_training_clicks_it_is_refused(log):
    held = replace(log, phases=np.full(len(log), TEST, dtype=np.int8))
    with pytest.raises(ValueError, match="training part must hold clicks"):
        agree_on_clicks(held, {}, SETTINGS)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"factors": -1}, "factors must be >= 0, got -1"),
        ({"folds": 1}, "folds must be >= 2, got 1"),
        ({"max_length": 0}, "max_length must be >= 1, got 0"),
        ({"withheld": -0.1}, "withheld must be >= 0 and < 1, got -0.1"),
        ({"withheld": 1.0}, "withheld must be >= 0 and < 1, got 1.0"),
    ],
)
def test_settings_out_of_range(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        ClickAgreementSettings(**changes)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"items": [1, 2], "candidates": [62]}, "candidates must lie in 0..61, got 62..62"),
        ({"items": [1.5, 2], "candidates": [6]}, "items must be a list of ids, got .* of float64"),
        ({"items": [1], "candidates": [1], "fold": 1.0}, "fold must lie in 0..3, got 1.0"),
        ({"items": [1], "candidates": [1], "time": np.nan}, "time must be a number"),
        ({"items": [-1], "candidates": [1]}, "items must lie in 0..61, got -1..-1"),
        ({"items": [[1]], "candidates": [1]}, "items must be a list of ids"),
        ({"items": [1], "candidates": [1], "fold": 4}, "fold must lie in 0..3, got 4"),
        ({"items": [1], "candidates": [1], "n_clicks": 0}, "n_clicks must be >= 1"),
    ],
)
def test_questions_that_cannot_be_answered(found, asked, complaint):
    with pytest.raises(ValueError, match=complaint):
        found.fitted.expect(**asked)


def test_a_folder_of_another_kind_or_without_a_part(found, tmp_path):
    found.fitted.save(tmp_path / "kept")
    with pytest.raises(ValueError, match="must not exist yet"):
        found.fitted.save(tmp_path / "kept")
    damaged = replace(found.fitted, contents={})
    damaged.save(tmp_path / "fewer")
    assert FittedClickAgreement.load(tmp_path / "fewer").contents == {}
    scale = found.fitted.scale._replace(means=np.zeros(5))
    with pytest.raises(ValueError, match="column means of agreement must be"):
        replace(found.fitted, scale=scale)
    with pytest.raises(ValueError, match="folds of users must lie in"):
        replace(found.fitted, fold=found.fitted.fold + 9)
    with pytest.raises(ValueError, match="contents must be of"):
        replace(found.fitted, contents={"sound": np.zeros((62, 2))})
