"""Drawn negatives: of items never met, in the shares promised, the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_mars.data import NEGATIVES_BY, draw_negatives


def log(n_users=300, n_items=40, seed=0):
    rng = np.random.default_rng(seed)
    pairs = [(u, i) for u in range(1, n_users + 1) for i in rng.permutation(n_items)[:12] + 1]
    return np.array(pairs).T


@pytest.mark.parametrize("by", NEGATIVES_BY)
def test_negatives_are_items_that_their_user_never_met(by):
    users, items = log()
    met = set(zip(users.tolist(), items.tolist()))
    times = np.random.default_rng(1).random(len(users))
    found = draw_negatives(users, items, 3, by, times)
    assert found.shape == (len(users), 3)
    assert set(found.ravel()) <= set(items.tolist())
    assert not met & set(zip(np.repeat(users, 3).tolist(), found.ravel().tolist()))
    assert np.array_equal(found, draw_negatives(users, items, 3, by, times))


def test_uniform_takes_items_alike_and_popularity_as_they_occur():
    # Item 1 has a hundred times the interactions of 2; user 0's only are with item 3.
    users = np.concatenate([np.arange(1, 101), [101], np.zeros(4000, dtype=int)])
    items = np.concatenate([np.ones(100, dtype=int), [2], np.full(4000, 3)])
    rows = users == 0
    uniform = draw_negatives(users, items, 1)[rows, 0]
    popular = draw_negatives(users, items, 1, "popularity")[rows, 0]
    assert np.mean(uniform == 1) == pytest.approx(0.5, abs=0.03)
    assert np.mean(popular == 1) == pytest.approx(100 / 101, abs=0.01)


def test_by_moment_takes_what_others_click_around_the_time():
    """Each item has a hundred days of its own; users come and go as they like."""
    rng = np.random.default_rng(0)
    times = rng.permutation(20_000) / 10
    items = (times // 100).astype(int) * 2 + 1 + rng.integers(0, 2, len(times))
    users = np.arange(1, len(times) + 1)
    found = draw_negatives(users, items, 5, "moment", times)
    assert (found != items[:, None]).all()
    near = np.abs((found - 1) // 2 - (items[:, None] - 1) // 2)
    assert (near <= 1).all()  # 250 interactions are 25 days
    assert (near[times % 100 < 75] == 0).mean() > 0.999  # who draws his own ten times looks further
    assert (near[times >= 1975] == 0).all()  # nothing comes after the end


def test_by_moment_takes_nothing_that_came_before():
    """Who clicks an item that was clicked just before would be known by that."""
    users = items = np.arange(1, 2001)
    times = np.random.default_rng(0).permutation(2000).astype(float)
    when = np.zeros(2001)
    when[items] = times
    lags = when[draw_negatives(users, items, 1, "moment", times)[:, 0]] - times
    assert lags.max() == 49
    assert (lags[times < 1950] > 0).all()


def test_by_moment_looks_further_ahead_where_the_user_met_all():
    users = np.repeat(np.arange(1, 11), 200)
    items = np.arange(1, 2001)
    found = draw_negatives(users, items, 1, "moment", items.astype(float))[:, 0]
    lags = found - items
    assert (lags[items <= 1800] > 0).all()
    assert lags.max() <= 400  # 200 of their own, and at most twice what was needed
    assert (found[items > 1800] <= 1800).all()


def test_by_moment_a_time_of_many_is_drawn_from_all_of_it():
    """A log stands in the order of users, who here have items of their own."""
    users = np.repeat(np.arange(1, 1001), 4)
    items = np.arange(1, 4001)
    found = draw_negatives(users, items, 1, "moment", np.zeros(4000))[:, 0]
    distance = np.abs((found - 1) // 4 + 1 - users)
    assert np.median(distance) > 150  # 293 for two users by chance


def test_a_user_who_met_all_but_an_unpopular_item_gets_that_one():
    users = np.r_[np.repeat(np.arange(1, 2001), 2), 2001, 2002, 2003]
    items = np.r_[np.tile([1, 2], 2000), 1, 3, 4]
    assert set(draw_negatives(users, items, 1, "popularity")[:4000, 0]) == {3, 4}


def test_a_user_who_met_every_item_is_named():
    with pytest.raises(ValueError, match=r"1 users met every one of the 2 items.*id 7"):
        draw_negatives(np.array([7, 7, 8]), np.array([1, 2, 1]), 1)


@pytest.mark.parametrize(
    "wrong", [{"count": 0}, {"count": 1, "by": "chance"}, {"count": 1, "by": "moment"}]
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be|needs times"):
        draw_negatives(np.array([1, 2]), np.array([1, 2]), **wrong)
