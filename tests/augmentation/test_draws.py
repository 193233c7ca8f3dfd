"""Random numbers by counter: what they depend on, and that they look random."""

import numpy as np
import pytest
from scipy import stats

from recbole_mars.augmentation import substream, uniforms

ROWS = np.array([0, 1, 7, 2**40])


def by_hand(seed, epoch, row, stream, column):
    """The definition in Python's integers."""
    bits, step = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(state):
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & bits
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & bits
        return state ^ (state >> 31)

    key = 3
    for value in (seed, epoch, stream):
        key = mix((key + step * (1 + value % 2**64)) & bits)
    state = mix((row * step + key) & bits)
    return (mix((state + (column + 1) * step) & bits) >> 11) / 2**53


@pytest.mark.parametrize(("seed", "epoch", "stream"), [(2020, 0, 0), (-3, 5, 2**63)])
def test_against_the_definition(seed, epoch, stream):
    found = uniforms(seed, epoch, ROWS, stream, 3)
    expected = [[by_hand(seed, epoch, int(r), stream, j) for j in range(3)] for r in ROWS]
    np.testing.assert_array_equal(found, expected)


def test_neither_company_nor_order_nor_number_of_draws_matters():
    whole = uniforms(1, 2, np.arange(50), 3, 8)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(uniforms(1, 2, order, 3, 8), whole[order])
    np.testing.assert_array_equal(uniforms(1, 2, np.array([17]), 3, 2), whole[17:18, :2])


@pytest.mark.parametrize("other", [(2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 0), (0, 0, 1)])
def test_other_seeds_epochs_and_streams_are_independent(other):
    rows = np.arange(2000)
    seed, epoch, stream = other
    one = uniforms(1, 0, rows, 0, 4).ravel()
    two = uniforms(seed, epoch, rows, stream, 4).ravel()
    assert not np.isin(two, one).any()
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(len(one))


@pytest.mark.parametrize("axis", [0, 1])
def test_uniform_along_rows_and_columns(axis):
    draws = uniforms(7, 0, np.arange(100_000), 0, 1) if axis == 0 else uniforms(7, 0, [5], 0, 10**5)
    draws = draws.ravel()
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.bincount((draws * 100).astype(int), minlength=100)
    assert stats.chisquare(counts).pvalue > 0.001
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 4 / np.sqrt(len(draws))


def test_nothing_is_drawn_for_nothing():
    assert uniforms(1, 0, np.zeros(0, dtype=np.int64), 0, 4).shape == (0, 4)
    assert uniforms(1, 0, ROWS, 0, 0).shape == (4, 0)


def test_substreams_differ():
    found = {substream(s, *path) for s in range(5) for path in [(), (0,), (1,), (0, 1), (1, 0)]}
    assert len(found) == 25
    assert substream(3, 1) == substream(3, 1)
