"""Random, Random-seq and RepPad by hand."""

import numpy as np
import pytest

from recbole_mars.augmentation import (
    ItemRows,
    RandomAugmenter,
    RandomSeqAugmenter,
    RandomSettings,
    RepPadAugmenter,
    RepPadSettings,
)
from recbole_mars.data import TEST, TRAIN, InteractionLog

# User 1 has two behaviours and a test target, row 2; users 2 and 3 one behaviour, rows 3 and 4.
LOG = InteractionLog(
    np.array([1, 1, 1, 2, 3]),
    np.array([1, 1, 3, 2, 2]),
    np.ones(5, dtype=np.float32),
    np.array([1.0, 3, 5, 2, 6]),
    np.array([TRAIN, TRAIN, TEST, TRAIN, TRAIN], dtype=np.int8),
    4,
    5,
)
HISTORY = np.array([[0, 1]]), np.array([2])


def augmented(augmenter, row=2, history=HISTORY, max_length=9, phase="train", epoch=0):
    changed, lengths = augmenter.augment(np.array([row]), *history, max_length, phase, epoch)
    return changed[0, : lengths[0]].tolist()


@pytest.mark.parametrize("phase", ["train", "valid", "test"])
def test_random_by_hand(phase):
    """Items 1 and 2 have training behaviours, 3 and 4 none: rows 0 or 1 for one, 3 or 4."""
    added = []
    for seed in range(300):
        found = augmented(
            RandomAugmenter(ItemRows(LOG), RandomSettings(3), seed), phase=phase, epoch=seed
        )
        assert found[3:] == [0, 1]
        added += found[:3]
    rows, counts = np.unique(added, return_counts=True)
    assert rows.tolist() == [0, 1, 3, 4]
    np.testing.assert_allclose(counts / len(added), 0.25, atol=0.06)


def test_random_is_one_draw_a_user():
    """As DiffuASR's file of ten items a user: the same before each of the user's targets."""
    augmenter = RandomAugmenter(ItemRows(LOG, donor_time="any"), RandomSettings(5), seed=3)
    items = [
        LOG.items[augmented(augmenter, row, (np.zeros((1, 0), int), np.zeros(1, int)), 9, phase)]
        for row, phase in ((2, "test"), (2, "train"))
    ]
    assert items[0].tolist() == items[1].tolist()
    assert len(items[0]) == 5


def test_random_before_the_target():
    """Before time 3 only rows 0 and 3 are known: items 1 and 2; before time 1 nothing is."""
    augmenter = RandomAugmenter(ItemRows(LOG, donor_time="before"), RandomSettings(8), seed=0)
    nothing = np.zeros((1, 0), dtype=np.int64), np.zeros(1, dtype=np.int64)
    assert set(augmented(augmenter, 1, nothing)) == {0, 3}
    assert augmented(augmenter, 0, nothing) == []


def test_what_has_no_row_is_not_added():
    """For row 0 of user 1, item 1 has no row of another: only item 2's are added."""
    augmenter = RandomAugmenter(ItemRows(LOG), RandomSettings(8), seed=0)
    nothing = np.zeros((1, 0), dtype=np.int64), np.zeros(1, dtype=np.int64)
    found = augmented(augmenter, 0, nothing)
    assert set(found) == {3, 4}
    assert 0 < len(found) < 8


@pytest.mark.parametrize(("max_length", "added"), [(9, 3), (4, 2), (2, 0), (1, 0)])
def test_added_behaviours_take_the_room(max_length, added):
    """Too many lose the first of them; the own ones keep their place."""
    for augmenter in (
        RandomAugmenter(ItemRows(LOG), RandomSettings(3), seed=1),
        RandomSeqAugmenter(LOG.users, RandomSettings(3), seed=1),
    ):
        everything = augmented(augmenter)
        assert augmented(augmenter, max_length=max_length) == everything[-min(max_length, 5) :]
        assert len(everything) - 2 == 3
        assert len(augmented(augmenter, max_length=max_length)) - min(max_length, 2) == added


@pytest.mark.parametrize("phase", ["train", "test"])
def test_random_seq_by_hand(phase):
    added = []
    for seed in range(300):
        found = augmented(RandomSeqAugmenter(LOG.users, RandomSettings(2), seed), phase=phase)
        assert found[2:] == [0, 1]
        added += found[:2]
    assert set(added) == {0, 1}
    assert np.mean(added) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    ("repeats", "delimiter", "max_length", "expected"),
    [
        (0, True, 9, [0, 1]),
        (1, False, 9, [0, 1, 0, 1]),
        (1, True, 9, [0, 1, -1, 0, 1]),
        (2, True, 8, [0, 1, -1, 0, 1, -1, 0, 1]),
        (2, True, 7, [1, -1, 0, 1, -1, 0, 1]),
        (2, True, 6, [-1, 0, 1, -1, 0, 1]),
        (3, False, 5, [1, 0, 1, 0, 1]),
        (5, True, 2, [0, 1]),
        (5, True, 1, [1]),
    ],
)
def test_reppad_by_hand(repeats, delimiter, max_length, expected):
    augmenter = RepPadAugmenter(RepPadSettings(repeats, delimiter), seed=0)
    assert augmented(augmenter, max_length=max_length) == expected
    assert augmented(augmenter, max_length=max_length, phase="test") == [0, 1][-max_length:]


def test_reppad_draws_from_1_to_as_many_as_fit():
    """floor(7 / 2) = 3: one, two or three repetitions, the third cut; anew in each epoch."""
    augmenter = RepPadAugmenter(RepPadSettings(delimiter=False), seed=0)
    found = [augmented(augmenter, max_length=7, epoch=epoch) for epoch in range(600)]
    lengths, counts = np.unique(list(map(len, found)), return_counts=True)
    assert lengths.tolist() == [4, 6, 7]
    assert counts.min() > 160
    assert all(history == [0, 1, 0, 1, 0, 1, 0, 1][-len(history) :] for history in found)


def test_counts_are_checked():
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="items must be a whole number >= 0"):
            RandomSettings(wrong)
        with pytest.raises(ValueError, match="repeats must be a whole number >= 0"):
            RepPadSettings(wrong)
