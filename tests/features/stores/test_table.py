"""Reading features by item id."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_mars.features import FeatureTable

MATRIX = np.array([[1, 2], [0, 0], [3, 4]], dtype=np.float16)
PRESENT = np.array([True, False, True])


def test_select_orders_repeats_and_fills() -> None:
    table = FeatureTable("text", ("a", "b", "c"), MATRIX, PRESENT)
    matrix, present = table.select(["c", "unknown", "a", "b", "c"])
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, [[3, 4], [0, 0], [1, 2], [0, 0], [3, 4]])
    np.testing.assert_array_equal(present, [True, False, True, False, True])
    assert (len(table), table.dimensions) == (3, 2)


def test_select_nothing() -> None:
    matrix, present = FeatureTable("text", ("a", "b", "c"), MATRIX, PRESENT).select([])
    assert matrix.shape == (0, 2)
    assert present.shape == (0,)


def test_select_is_a_copy() -> None:
    table = FeatureTable("text", ("a", "b", "c"), MATRIX.astype(np.float32), PRESENT)
    table.select(["a", "b", "c"])[0][:] = 9
    assert table.matrix[0, 0] == 1


def test_select_refuses_numbers() -> None:
    with pytest.raises(ValueError, match="got 1 of type int"):
        FeatureTable("text", ("1", "b", "c"), MATRIX, PRESENT).select([1])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("ids", "matrix", "present", "complaint"),
    [
        (("a", "b"), MATRIX, PRESENT, r"must have shape \(2, D\).*got \(3, 2\)"),
        (("a", "b", "c"), MATRIX[0], PRESENT, r"must have shape \(3, D\)"),
        (("a", "b", "c"), MATRIX[:, :0], PRESENT, r"D >= 1.*got \(3, 0\)"),
        ((), MATRIX[:0], PRESENT[:0], r"0 >= 1 ids"),
        (("a", "b", "c"), MATRIX.astype(int), PRESENT, "must be floats, got int64"),
        (("a", "b", "c"), MATRIX, PRESENT[:2], r"present of 'text' must be bool of shape \(3,\)"),
        (("a", "b", "c"), MATRIX, PRESENT.astype(int), "got int64"),
        (("a", "b", "a"), MATRIX, PRESENT, "found again: 'a'"),
    ],
)
def test_bad_tables(ids, matrix, present, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        FeatureTable("text", ids, matrix, present)
