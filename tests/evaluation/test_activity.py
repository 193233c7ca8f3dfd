from __future__ import annotations

import numpy as np
import pytest

from recbole_mars.evaluation import GROUP_NAMES, HIGH, LOW, MID, activity_groups


def test_groups_by_hand():
    counts = [99, 5, 1, 9, 3, 7]  # ids 1..5; ranked 2, 4, 1, 5, 3
    groups = activity_groups(counts, low_share=0.4, high_share=0.2)
    assert groups.dtype == np.int8
    assert groups.tolist() == [-1, MID, LOW, HIGH, LOW, MID]
    assert [GROUP_NAMES[g] for g in (LOW, MID, HIGH)] == ["low", "mid", "high"]


def test_ties_go_by_id_and_users_without_behaviours_rank_first():
    groups = activity_groups([0, 2, 2, 2, 2, 0], low_share=0.4, high_share=0.4)
    assert groups.tolist() == [-1, LOW, MID, HIGH, HIGH, LOW]


def test_only_given_users_take_part():
    counts = np.array([0, 100, 1, 50, 2, 75, 3])
    users = np.array([6, 2, 4])
    assert activity_groups(counts, users, 1 / 3, 1 / 3).tolist() == [HIGH, LOW, MID]
    everyone = np.array([5, 1, 6, 2, 3, 4])
    assert np.array_equal(activity_groups(counts, everyone), activity_groups(counts)[everyone])


@pytest.mark.parametrize("n", [1, 2, 3, 9, 10, 100, 101])
def test_group_sizes_are_floors(n):
    counts = np.random.default_rng(n).integers(5, size=n + 1)
    sizes = np.bincount(activity_groups(counts)[1:], minlength=3)
    assert sizes[LOW] == sizes[HIGH] == (3 * n) // 10
    assert sizes.sum() == n


def test_groups_are_ordered_by_count():
    counts = np.random.default_rng(0).integers(20, size=200)
    groups = activity_groups(counts, np.arange(1, 200))
    own = counts[1:]
    assert own[groups == LOW].max() <= own[groups == MID].min()
    assert own[groups == MID].max() <= own[groups == HIGH].min()


def test_rounding_of_shares_loses_no_user():
    sizes = np.bincount(activity_groups(np.ones(101), low_share=0.29, high_share=0.57)[1:])
    assert sizes.tolist() == [29, 14, 57]  # 0.29 * 100 is 28.999999999999996
    assert MID not in activity_groups(np.ones(11), low_share=0.3, high_share=0.7)[1:]
    assert (activity_groups(np.ones(11), low_share=0, high_share=0)[1:] == MID).all()


def test_no_users():
    assert activity_groups([0]).tolist() == [-1]
    assert activity_groups([0, 3], users=[]).tolist() == []


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.3), (0.3, -0.1), (0.6, 0.5), (np.nan, 0.3)])
def test_refuses_shares(low, high):
    with pytest.raises(ValueError, match="low_share and high_share must be >= 0"):
        activity_groups([0, 1, 2], low_share=low, high_share=high)


@pytest.mark.parametrize(
    ("counts", "users", "message"),
    [
        ([], None, "training_counts must be a vector"),
        ([[0, 1]], None, "training_counts must be a vector"),
        ([0, -1], None, "training_counts must be a vector"),
        ([0, 1, 2], [0, 1], r"users must lie in 1\.\.2, got 0\.\.1"),
        ([0, 1, 2], [3], r"users must lie in 1\.\.2, got 3\.\.3"),
        ([0, 1, 2], [1, 1], "users must be distinct"),
    ],
)
def test_refuses_counts_and_users(counts, users, message):
    with pytest.raises(ValueError, match=message):
        activity_groups(counts, users)
