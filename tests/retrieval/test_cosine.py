import numpy as np
import pytest
import torch

from recbole_mars.retrieval import cosine as cosine_module
from recbole_mars.retrieval.cosine import mean_row, unit_blocks, unit_rows


def test_hand_values():
    unit = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]]))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [0, -1]], rtol=1e-6)


def test_centre_is_subtracted_from_all_but_empty_rows():
    rows = np.array([[4.0, 5.0], [0.0, 0.0], [1.0, 1.0]], dtype=np.float16)
    unit = unit_rows(rows, np.array([1.0, 1.0], dtype=np.float32))
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [0, 0]], rtol=1e-6)


def test_rounding_next_to_the_centre_is_no_direction():
    rows = np.full((3, 4), 0.1, dtype=np.float32)
    rows[0, 0] = np.nextafter(rows[0, 0], np.float32(1))
    assert not unit_rows(rows, np.full(4, 0.1, dtype=np.float32)).any()


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_scale_does_not_matter(scale):
    rows = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.testing.assert_allclose(unit_rows(rows * np.float32(scale)), unit_rows(rows), rtol=1e-5)


def test_tensors_are_accepted():
    rows = torch.tensor([[3.0, 4.0]], requires_grad=True)
    np.testing.assert_allclose(unit_rows(rows.to(torch.bfloat16)), [[0.6, 0.8]], rtol=1e-6)


def test_mean_leaves_out_rows_of_zeros():
    np.testing.assert_allclose(mean_row(np.array([[1.0, 2.0], [0, 0], [3.0, 6.0]])), [2, 4])
    np.testing.assert_array_equal(mean_row(np.zeros((2, 3))), np.zeros(3))


def test_arguments_are_left_alone():
    rows = np.ones((2, 2), dtype=np.float32)
    unit_rows(rows, np.array([1.0, 0.0], dtype=np.float32))
    np.testing.assert_array_equal(rows, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="finite, row 1 "):
        unit_rows(np.array([[1.0], [bad]]))


def test_vector_is_refused():
    with pytest.raises(ValueError, match="matrix"):
        unit_rows(np.ones(3))


def test_vector_has_no_mean_row():
    with pytest.raises(ValueError, match="matrix"):
        mean_row(np.ones(3))


def test_blocks_are_the_rows_in_parts(monkeypatch):
    monkeypatch.setattr(cosine_module, "_BLOCK", 3)
    random = np.random.default_rng(0)
    rows, center, places = random.standard_normal((8, 4)), np.ones(4), np.array([7, 0, 2, 2, 5])
    blocks = list(unit_blocks(rows, center))
    assert [len(block) for block in blocks] == [3, 3, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), unit_rows(rows, center))
    chosen = np.concatenate(list(unit_blocks(torch.from_numpy(rows), center, places)))
    np.testing.assert_array_equal(chosen, unit_rows(rows[places], center))
    np.testing.assert_allclose(mean_row(rows), rows.mean(axis=0), rtol=1e-6)


def test_blocks_name_the_row_that_is_not_finite(monkeypatch):
    monkeypatch.setattr(cosine_module, "_BLOCK", 3)
    rows = np.ones((8, 2))
    rows[5] = np.nan
    with pytest.raises(ValueError, match="finite, row 5 "):
        list(unit_blocks(rows))
