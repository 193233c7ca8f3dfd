"""int8 with a scale per row: half a step at most is lost, and nothing the second time."""

from __future__ import annotations

from fractions import Fraction
from importlib import import_module

import numpy as np
import pytest

from recbole_mars.features import cosine_errors, dequantise, quantise

module = import_module("recbole_mars.features.stores.quantise")  # its name means the function, too
TINY = float(np.finfo(np.float32).tiny)
MAX = float(np.finfo(np.float32).max)


def random_rows(rows: int = 200, width: int = 33, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    sizes = 10.0 ** generator.uniform(-6, 4, size=(rows, 1))
    return (generator.normal(size=(rows, width)) * sizes).astype(np.float32)


def test_by_hand() -> None:
    matrix = np.array([[127, -127, 63.4, 0.6], [-2, 1, 0, 0.5], [0, 0, 0, 0]], dtype=np.float32)
    quantised, scales = quantise(matrix)
    # 1 / (2 / 127) = 63.5 goes to the even 64, and so does 0.5 / (2 / 127) = 31.75 to 32.
    np.testing.assert_array_equal(quantised, [[127, -127, 63, 1], [-127, 64, 0, 32], [0, 0, 0, 0]])
    np.testing.assert_array_equal(scales, np.array([1, 2 / 127, 0], dtype=np.float32))
    assert (quantised.dtype, scales.dtype) == (np.int8, np.float32)
    restored = dequantise(quantised, scales)
    assert restored.dtype == np.float32
    np.testing.assert_array_equal(restored[0], [127, -127, 63, 1])
    np.testing.assert_allclose(restored[1], [-2, 128 / 127, 0, 64 / 127], rtol=1e-6)
    np.testing.assert_array_equal(restored[2], 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_half_a_step_at_most(dtype: type) -> None:
    matrix = random_rows().astype(dtype)
    quantised, scales = quantise(matrix)
    for row, steps, scale in zip(matrix, quantised, scales):
        for x, q in zip(row, steps):
            error = abs(Fraction(float(x)) - int(q) * Fraction(float(scale)))
            assert error <= Fraction(float(scale)) / 2 * (1 + Fraction(1, 10**12))
    assert (np.abs(quantised).max(axis=1) == 127).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_twice_is_once(dtype: type) -> None:
    quantised, scales = quantise(random_rows(2000).astype(dtype))
    again, _ = quantise(dequantise(quantised, scales))
    np.testing.assert_array_equal(again, quantised)


@pytest.mark.parametrize(
    "largest",
    [1e-45, 1e-42, TINY / 2, TINY, 63 * TINY, 127 * TINY, 128 * TINY, 1e-30, 1e30, MAX / 127, MAX],
)
def test_extreme_magnitudes(largest: float) -> None:
    row = np.linspace(-1, 1, 256) * np.float64(np.float32(largest))
    matrix = np.concatenate([row, -row])[None].astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        quantised, scales = quantise(matrix)
        restored = dequantise(quantised, scales)
    assert np.isfinite(restored).all()
    assert scales[0] >= TINY
    np.testing.assert_array_equal(quantise(restored)[0], quantised)
    errors = np.abs(matrix.astype(np.float64) - quantised * scales.astype(np.float64)[:, None])
    assert errors.max() <= scales[0] / 2 * (1 + 1e-12)


def test_signs_scales_and_order() -> None:
    matrix = random_rows()
    quantised, scales = quantise(matrix)
    np.testing.assert_array_equal(quantise(-matrix)[0], -quantised)
    for power in (-3, 5):
        np.testing.assert_array_equal(quantise(matrix * np.float32(2.0**power))[0], quantised)
    order = np.random.default_rng(1).permutation(len(matrix))
    np.testing.assert_array_equal(quantise(matrix[order])[0], quantised[order])
    np.testing.assert_array_equal(quantise(matrix[order])[1], scales[order])


@pytest.mark.parametrize("block", [1, 40, 1000])
def test_blocks(monkeypatch, block: int) -> None:
    matrix, restored = random_rows(), random_rows(seed=1)
    expected = *quantise(matrix), cosine_errors(matrix, restored)
    monkeypatch.setattr(module, "BLOCK", block)
    found = *quantise(matrix), cosine_errors(matrix, restored)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_no_rows() -> None:
    quantised, scales = quantise(np.zeros((0, 3), dtype=np.float16))
    assert (quantised.shape, scales.shape) == ((0, 3), (0,))
    assert dequantise(quantised, scales).shape == (0, 3)
    assert cosine_errors(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0,)


def slow_errors(matrix: np.ndarray, restored: np.ndarray) -> list[float]:
    errors = []
    for x, y in zip(matrix.astype(np.float64), restored.astype(np.float64)):
        lost = 1.0 if x.any() else 0.0
        errors.append(1.0 - (x @ y) / np.sqrt((x @ x) * (y @ y)) if x.any() and y.any() else lost)
    return errors


def test_cosine_error_of_quantising() -> None:
    matrix = np.random.default_rng(0).normal(size=(500, 64))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix[7] = 0
    restored = dequantise(*quantise(matrix))
    errors = slow_errors(matrix, restored)
    found = cosine_errors(matrix, restored)
    np.testing.assert_allclose(found, errors, rtol=1e-9)
    assert 1e-6 < found.mean() < found.max() < 2e-4
    assert found[7] == 0


def test_cosine_error_by_hand() -> None:
    matrix = np.array([[2, 0], [3, 0], [1, 1], [0, 0], [1, 0]], dtype=np.float32)
    restored = np.array([[5, 0], [0, 1], [-2, -2], [9, 9], [0, 0]], dtype=np.float32)
    np.testing.assert_allclose(cosine_errors(matrix, restored), [0, 1, 2, 0, 1], rtol=1e-12)
    assert not cosine_errors(matrix, 3 * matrix).any()


def test_cosine_error_keeps_its_digits() -> None:
    angle = 1e-9
    matrix, restored = np.array([[1.0, 0.0]]), np.array([[np.cos(angle), np.sin(angle)]])
    np.testing.assert_allclose(cosine_errors(matrix, restored)[0], angle**2 / 2, rtol=1e-6)
    for size in (1e-300, 1e300):
        assert cosine_errors(size * matrix, matrix) == [0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_do_not_fit(monkeypatch, value: float) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    matrix = np.ones((5, 2))
    matrix[3, 1] = value
    with pytest.raises(ValueError, match="finite and fit float32, found otherwise in row 3; rep"):
        quantise(matrix)


def test_wrong_shapes_and_kinds() -> None:
    for matrix in (np.ones(3), np.ones((3, 0)), np.ones((3, 2), dtype=np.int64)):
        with pytest.raises(ValueError, match="matrix must hold floats of shape"):
            quantise(matrix)
    quantised, scales = quantise(np.ones((3, 2)))
    for wrong in (quantised.astype(np.int16), quantised[0]):
        with pytest.raises(ValueError, match="quantised must be int8"):
            dequantise(wrong, scales)
    for wrong in (scales[:2], scales.astype(np.float64)):
        with pytest.raises(ValueError, match=r"scales must be float32 of shape \(3,\)"):
            dequantise(quantised, wrong)
    for shapes in (((3, 2), (2, 2)), ((3,), (3,))):
        with pytest.raises(ValueError, match="must have one shape"):
            cosine_errors(*map(np.ones, shapes))
