"""What a network is told of the columns: mean 0 and variance 1 over the training rows."""

import numpy as np
import pytest

from recbole_mars.agreement import ColumnScale


def scaled(columns, training):
    columns = np.asarray(columns, dtype=np.float32)
    return ColumnScale.of(columns, training).apply(columns)


def test_by_hand():
    """1 and 3 are training rows: mean 2, deviation 1."""
    columns = np.tile(np.array([1, 3, 7])[:, None], 5)
    found = scaled(columns, np.array([True, True, False]))
    assert found.dtype == np.float32
    assert found.tolist() == [[-1] * 5, [1] * 5, [5] * 5]


@pytest.mark.parametrize("constant", [0.0, 0.1, -0.7, np.log1p(499), 1e3])
def test_constant_columns_say_nothing(constant):
    found = scaled(np.full((600, 5), constant), np.arange(600) < 500)
    np.testing.assert_allclose(found, 0, atol=1e-3)


def test_columns_that_only_vary_outside_of_training_stay_small():
    """Such as the support, if no item was met by two users in training."""
    training = np.arange(600) < 500
    found = scaled(np.tile(np.where(training, 0, np.log1p(3))[:, None], 5), training)
    np.testing.assert_allclose(found[training], 0, atol=1e-3)
    np.testing.assert_allclose(found[~training], np.log(4), rtol=1e-6)
