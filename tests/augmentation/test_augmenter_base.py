import numpy as np
import pytest

from recbole_mars.augmentation import NoAugmenter, keep_latest, prepend

HISTORIES = np.array([[4, 5, 6], [7, -1, -1], [-1, -1, -1]])
LENGTHS = np.array([3, 1, 0])


def test_keep_latest():
    kept, lengths = keep_latest(HISTORIES, LENGTHS, 2)
    np.testing.assert_array_equal(kept, [[5, 6], [7, -1], [-1, -1]])
    np.testing.assert_array_equal(lengths, [2, 1, 0])


@pytest.mark.parametrize("max_length", [3, 50])
def test_histories_that_fit_stay(max_length):
    kept, lengths = NoAugmenter().augment(np.arange(3), HISTORIES, LENGTHS, max_length, "train")
    np.testing.assert_array_equal(kept, HISTORIES)
    np.testing.assert_array_equal(lengths, LENGTHS)


def test_needless_padding_is_trimmed():
    assert keep_latest(HISTORIES[1:], LENGTHS[1:], 3)[0].shape == (2, 1)


def test_no_targets():
    kept, lengths = keep_latest(np.zeros((0, 4), dtype=np.int64), np.zeros(0, dtype=np.int64), 3)
    assert kept.shape == (0, 0)
    assert prepend(kept, lengths, kept, lengths)[0].shape == (0, 0)


def test_max_length_is_checked():
    with pytest.raises(ValueError, match="max_length must be >= 1, got 0"):
        keep_latest(HISTORIES, LENGTHS, 0)


def test_prepend():
    prefixes = np.array([[1, -1], [2, 3], [-1, -1]])
    joined, lengths = prepend(prefixes, np.array([1, 2, 0]), HISTORIES, LENGTHS)
    np.testing.assert_array_equal(joined, [[1, 4, 5, 6], [2, 3, 7, -1], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(lengths, [4, 3, 0])
