"""Crop, mask, reorder, substitute and insert: by hand, and against loops over their draws."""

import numpy as np
import pytest

from recbole_mars.augmentation import (
    CMRSettings,
    CMRSISettings,
    Crop,
    Insert,
    ItemRows,
    Mask,
    OneOf,
    Reorder,
    SimilarRows,
    Substitute,
    cmr_operator,
    cmrsi_operator,
    most_correlated_items,
    substream,
    uniforms,
)
from recbole_mars.data import TEST, TRAIN, InteractionLog

SEED, EPOCH, STREAM = 5, 2, 9


def padded(*histories):
    width = max(map(len, histories))
    table = np.full((len(histories), width), -1, dtype=np.int64)
    for row, history in zip(table, histories):
        row[: len(history)] = history
    return table, np.array(list(map(len, histories)))


def applied(operator, rows, histories, max_length=99):
    changed, lengths = operator.apply(
        np.asarray(rows), *padded(*histories), max_length, SEED, EPOCH, STREAM
    )
    assert changed.shape == (len(rows), lengths.max())
    return [row[:n].tolist() for row, n in zip(changed, lengths)]


def draws(row, n):
    return uniforms(SEED, EPOCH, np.array([row]), STREAM, n)[0]


HISTORIES = [list(range(100 * n, 100 * n + n)) for n in (0, 1, 2, 3, 5, 8, 13)] * 5
ROWS = range(len(HISTORIES))


def crop_by_loop(row, history, share):
    kept = min(len(history), max(1, int(share * len(history) + 1e-9)))
    first = int(draws(row, 1)[0] * (len(history) - kept + 1))
    return history[first : first + kept]


def mask_by_loop(row, history, share):
    order = np.argsort(draws(row, len(history))).tolist()
    hidden = order[: int(share * len(history) + 1e-9)]
    return [-1 if i in hidden else value for i, value in enumerate(history)]


def reorder_by_loop(row, history, share):
    count = int(share * len(history) + 1e-9)
    drawn = draws(row, 1 + len(history))
    first = int(drawn[0] * (len(history) - count + 1))
    stretch = sorted(range(first, first + count), key=lambda i: drawn[1 + i])
    return history[:first] + [history[i] for i in stretch] + history[first + count :]


@pytest.mark.parametrize("share", [0.1, 0.29, 0.6, 1.0])
@pytest.mark.parametrize(
    ("operator", "by_loop"),
    [(Crop, crop_by_loop), (Mask, mask_by_loop), (Reorder, reorder_by_loop)],
)
@pytest.mark.parametrize("max_length", [6, 99])
def test_against_loops(operator, by_loop, share, max_length):
    found = applied(operator(share), ROWS, HISTORIES, max_length)
    latest = [history[-max_length:] for history in HISTORIES]
    assert found == [by_loop(row, history, share) for row, history in zip(ROWS, latest)]


def test_crop_by_hand():
    """floor(0.6 * 5) = 3 of five behaviours, each of the three stretches about as often."""
    found = applied(Crop(0.6), range(3000), [[1, 2, 3, 4, 5]] * 3000)
    stretches, counts = np.unique(found, axis=0, return_counts=True)
    assert stretches.tolist() == [[1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert counts.min() > 900
    assert applied(Crop(0.6), [0], [[7]]) == [[7]]  # the paper's floor would leave nothing
    (kept,) = applied(Crop(0.29), [0], [list(range(100))], max_length=100)
    assert len(kept) == 29  # 0.29 * 100 is a little less in floating point


def test_mask_by_hand():
    """floor(0.5 * 3) = 1 of three behaviours, each about as often."""
    found = applied(Mask(0.5), range(3000), [[4, 5, 6]] * 3000)
    histories, counts = np.unique(found, axis=0, return_counts=True)
    assert histories.tolist() == [[-1, 5, 6], [4, -1, 6], [4, 5, -1]]
    assert counts.min() > 900


def test_reorder_by_hand():
    """floor(0.7 * 3) = 2 neighbours of three, in either order: [4, 5, 6] comes two ways."""
    found = applied(Reorder(0.7), range(4000), [[4, 5, 6]] * 4000)
    histories, counts = np.unique(found, axis=0, return_counts=True)
    assert histories.tolist() == [[4, 5, 6], [4, 6, 5], [5, 4, 6]]
    np.testing.assert_allclose(counts / 4000, [0.5, 0.25, 0.25], atol=0.03)


def small_log(**changes):
    """Items 1 and 2 go together (users 1, 2), 3 and 4 for one user; 5 is met alone; 6 only in test.

    rows:   0  1  2 | 3  4  5 | 6  7 | 8 | 9 10
    """
    columns = {
        "users": np.array([1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5]),
        "items": np.array([1, 2, 3, 1, 2, 1, 3, 4, 5, 1, 6]),
        "labels": np.ones(11, dtype=np.float32),
        "times": np.array([1.0, 2, 9, 3, 4, 5, 6, 7, 1, 8, 10]),
        "phases": np.array([TRAIN] * 10 + [TEST], dtype=np.int8),
    }
    return InteractionLog(**{**columns, **changes}, n_users=6, n_items=8)


def correlation_by_loops(log, rows):
    users = {}
    for row in rows:
        users.setdefault(int(log.users[row]), set()).add(int(log.items[row]))
    best = []
    for i in range(log.n_items):
        scores = []
        for j in range(log.n_items):
            both = [u for u, items in users.items() if i in items and j in items and i != j]
            n_i, n_j = (sum(k in items for items in users.values()) for k in (i, j))
            if both:
                shared = sum(1 / np.log(1 + len(users[u])) for u in both)
                scores.append((-shared / np.sqrt(n_i * n_j), j))
        best.append(min(scores)[1] if scores else 0)
    return best


def test_correlation_by_hand():
    """Users 1 to 5 met {1, 2, 3}, {1, 2}, {3, 4}, {5}, {1} in training.

    Cor(1, 2) = (1 / log 4 + 1 / log 3) / sqrt(3 * 2) = 0.666, Cor(1, 3) = 1 / log 4 / sqrt(6);
    Cor(3, 4) = 1 / log 3 / sqrt(2 * 1) = 0.644, Cor(3, 2) = 1 / log 4 / sqrt(2 * 2) = 0.361.
    """
    log = small_log()
    found = most_correlated_items(log, np.flatnonzero(log.phases == TRAIN))
    assert found.tolist() == [0, 2, 1, 4, 3, 0, 0, 0]


@pytest.mark.parametrize("cells", [1, 50, 1 << 24])
def test_correlation_against_loops(cells, monkeypatch):
    monkeypatch.setattr("recbole_mars.augmentation.correlated._CELLS", cells)
    random = np.random.default_rng(cells)
    users = np.sort(random.integers(1, 25, 200))
    log = InteractionLog(
        users,
        random.integers(1, 30, 200),
        np.ones(200, dtype=np.float32),
        np.arange(200.0),
        np.zeros(200, dtype=np.int8),
        26,
        32,
    )
    rows = np.flatnonzero(random.random(200) < 0.8)
    assert most_correlated_items(log, rows).tolist() == correlation_by_loops(log, rows)


def allowed_by_loop(log, rows, item, target, donor_time):
    own_later = (log.users == log.users[target]) & (np.arange(len(log)) >= target)
    return [
        r
        for r in rows
        if log.items[r] == item
        and (log.times[r] < log.times[target] if donor_time == "before" else not own_later[r])
    ]


@pytest.mark.parametrize("donor_time", ["any", "before"])
def test_rows_of_an_item_are_all_that_are_allowed(donor_time):
    """All targets and items of a random log with equal times: each allowed row is found."""
    random = np.random.default_rng(1)
    users = np.sort(random.integers(1, 9, 80))
    times = random.integers(0, 12, 80)
    times = np.concatenate([np.sort(times[users == u]) for u in np.unique(users)]).astype(float)
    log = InteractionLog(
        users,
        random.integers(1, 5, 80),
        np.ones(80, dtype=np.float32),
        times,
        random.choice([TRAIN, TEST], 80).astype(np.int8),
        9,
        7,
    )
    rows = np.flatnonzero((log.phases == TRAIN) & (np.arange(80) % 3 > 0))
    pool = ItemRows(log, rows, donor_time)
    spread = (np.arange(400) + 0.5) / 400
    for target in range(80):
        for item in range(7):
            found = pool.pick(np.full(400, item), np.full(400, target), spread)
            expected = allowed_by_loop(log, rows, item, target, donor_time)
            assert sorted(set(found.tolist())) == (expected or [-1])
            if expected:
                assert np.ptp(np.bincount(found)[expected]) <= 1  # equally often
        drawn = pool.draw_items(np.full(1, target), spread[None])
        known = {
            int(log.items[r])
            for r in rows
            if donor_time == "any" or log.times[r] < log.times[target]
        }
        assert set(drawn.ravel().tolist()) == (known or {0})


def test_item_rows_are_checked():
    log = small_log()
    with pytest.raises(ValueError, match="donor_time must be any or before, got 'later'"):
        ItemRows(log, donor_time="later")
    with pytest.raises(ValueError, match="training behaviours"):
        ItemRows(log, np.array([0, 10]))
    with pytest.raises(ValueError, match="ascend"):
        ItemRows(log, np.array([2, 1]))


def test_no_training_rows_at_all():
    log = small_log(phases=np.full(11, TEST, dtype=np.int8))
    pool = ItemRows(log)
    assert pool.draw_items(np.array([3]), np.full((1, 2), 0.5)).tolist() == [[0, 0]]
    assert pool.pick(np.array([1]), np.array([3]), np.array([0.5])).tolist() == [-1]
    assert not SimilarRows(pool).similar_item.any()


def test_substitute_by_hand():
    """Row 10 is user 5's test target after row 9, item 1: item 2 stands for it, rows 1 or 4."""
    similar = SimilarRows(ItemRows(small_log()))
    found = applied(Substitute(similar, 0.1), [10] * 1, [[9]])
    assert found in ([[1]], [[4]])
    # Item 4 is similar to item 3, and only user 3 met it, after row 6: nothing for user 3's own
    # target in row 7, that row for others.
    assert applied(Substitute(similar, 1.0), [7, 10], [[6], [9, 6]])[0] == [6]
    assert applied(Substitute(similar, 1.0), [7, 10], [[6], [9, 6]])[1][1] == 7
    # Item 5 goes with nothing, and a masked behaviour has no similar one.
    assert applied(Substitute(similar, 1.0), [10], [[8, -1]]) == [[8, -1]]


def test_only_earlier_rows_are_substituted():
    """At time 4 of row 4, item 2 was seen in row 1 (time 2) only; at time 3 of row 3 likewise."""
    similar = SimilarRows(ItemRows(small_log(), donor_time="before"))
    assert applied(Substitute(similar, 1.0), [4], [[3]]) == [[1]]
    assert applied(Substitute(similar, 1.0), [1], [[0]]) == [[0]]  # nobody had met item 2 before


def test_insert_by_hand():
    """max(1, floor(0.4 * 2)) = 1 of two behaviours gets a similar one before it."""
    similar = SimilarRows(ItemRows(small_log()))
    found = {
        tuple(applied(Insert(similar, 0.4), [10], [[9, 6]], max_length=length)[0])
        for length in (2, 3)
    }
    first, position = draws(10, 4)[[0, 2]], draws(10, 4)[[1, 3]]
    if first[0] < first[1]:
        new = [1, 4][int(position[0] * 2)]
        assert found == {(new, 9, 6), (9, 6)}
    else:
        assert found == {(9, 7, 6), (7, 6)}
    everywhere = applied(Insert(similar, 1.0), [10], [[9, 6]])[0]
    assert everywhere[0] in (1, 4)
    assert everywhere[1:] == [9, 7, 6]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("operator", [Substitute, Insert])
def test_similar_rows_against_loops(operator, share):
    log = small_log()
    similar = SimilarRows(ItemRows(log))
    histories = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [8, 6, 0], [9], []] * 10
    rows = [10, 10, 9, 3] * 10
    expected = []
    for row, history in zip(rows, histories):
        drawn = draws(row, 2 * len(history)).reshape(-1, 2)
        count = min(len(history), max(1, int(share * len(history)))) if share else 0
        chosen = np.argsort(drawn[:, 0])[:count].tolist()
        result = []
        for i, behaviour in enumerate(history):
            item = similar.similar_item[log.items[behaviour]]
            lent = allowed_by_loop(log, similar.pool.rows, item, row, "any")
            if i in chosen and lent:
                result.append(lent[int(drawn[i, 1] * len(lent))])
                if operator is Insert:
                    result.append(behaviour)
            else:
                result.append(behaviour)
        expected.append(result)
    assert applied(operator(similar, share), rows, histories) == expected


def test_one_of_draws_each_equally_and_apart_from_what_it_does():
    operators = [Crop(0.5), Mask(0.5), Reorder(0.5)]
    rows, histories = np.arange(3000), padded(*[[1, 2, 3, 4, 5, 6]] * 3000)
    whole, lengths = OneOf(operators).apply(rows, *histories, 9, SEED, EPOCH, STREAM)
    chosen = (uniforms(SEED, EPOCH, rows, STREAM, 1)[:, 0] * 3).astype(int)
    assert np.bincount(chosen).min() > 900
    for number, operator in enumerate(operators):
        alone, alone_lengths = operator.apply(
            rows, *histories, 9, SEED, EPOCH, substream(STREAM, number)
        )
        mine = chosen == number
        np.testing.assert_array_equal(lengths[mine], alone_lengths[mine])
        np.testing.assert_array_equal(whole[mine, : alone.shape[1]], alone[mine])
    kept = np.unique(whole[chosen == 0][:, :3], axis=0)
    assert len(kept) == 4  # every stretch, whatever the draw that chose the operator


def test_cmr_and_cmrsi_hold_these_operators():
    similar = SimilarRows(ItemRows(small_log()))
    assert cmr_operator(CMRSettings(0.2, 0.3, 0.4)).operators == (
        Crop(0.2),
        Mask(0.3),
        Reorder(0.4),
    )
    assert cmrsi_operator(CMRSISettings(0.2, 0.3, 0.4, 0.5, 0.6), similar).operators == (
        Crop(0.2),
        Mask(0.3),
        Reorder(0.4),
        Substitute(similar, 0.5),
        Insert(similar, 0.6),
    )


@pytest.mark.parametrize("operator", [Crop, Mask, Reorder])
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_of_operators(operator, share):
    with pytest.raises(ValueError, match="share must lie in"):
        operator(share)


@pytest.mark.parametrize("operator", [Substitute, Insert])
def test_shares_of_similar_rows(operator):
    with pytest.raises(ValueError, match=r"share must lie in 0\.\.1, got 2"):
        operator(SimilarRows(ItemRows(small_log())), 2)


@pytest.mark.parametrize("name", ["crop", "mask", "reorder", "substitute", "insert"])
def test_settings_name_their_field(name):
    with pytest.raises(ValueError, match=f"{name} must lie in"):
        CMRSISettings(**{name: 1.5})


def test_crop_of_nothing_and_no_operators():
    with pytest.raises(ValueError, match="crop must lie in"):
        CMRSettings(crop=0)
    with pytest.raises(ValueError, match="operators must hold at least one"):
        OneOf([])
