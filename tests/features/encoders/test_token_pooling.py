"""Pooling of tokens against its formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_mars.features.encoders.pooling import POOLINGS, pool

HIDDEN = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [8.0, -9.0]]])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [2.0, -3.0]),
        ("mean_sqrt_len", [4.0 / math.sqrt(2), -6.0 / math.sqrt(2)]),
        ("weightedmean", [(1 + 2 * 3) / 3, (-4 - 2 * 2) / 3]),
        ("max", [3.0, -2.0]),
        ("cls", [1.0, -4.0]),
        ("last", [3.0, -2.0]),
    ],
)
def test_by_hand(how: str, expected: list[float]) -> None:
    mask = torch.tensor([[1, 1, 0]])
    torch.testing.assert_close(pool(HIDDEN, mask, how), torch.tensor([expected]))


def one(kept: np.ndarray, how: str) -> np.ndarray:
    n = len(kept)
    weights = np.arange(1, n + 1) if how == "weightedmean" else np.ones(n)
    if how in ("max", "cls", "last"):
        return {"max": kept.max(0), "cls": kept[0], "last": kept[-1]}[how]
    total = sum(weight * vector for weight, vector in zip(weights, kept))
    return total / (math.sqrt(n) if how == "mean_sqrt_len" else weights.sum())


def loop(hidden: np.ndarray, mask: np.ndarray, how: str) -> np.ndarray:
    """One text after another, tokens only, in float64; zeros for a text without."""
    texts = [vectors[real] for vectors, real in zip(hidden.astype(np.float64), mask)]
    return np.stack([one(kept, how) if len(kept) else np.zeros(kept.shape[1]) for kept in texts])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("how", POOLINGS)
def test_against_a_loop(how: str, side: str) -> None:
    hidden = np.random.default_rng(0).normal(size=(5, 7, 4)).astype(np.float32)
    mask = np.arange(7) < np.array([7, 1, 4, 0, 6])[:, None]
    mask = mask[:, ::-1].copy() if side == "left" else mask
    for dtype in (torch.int64, torch.bool):
        vectors = pool(torch.tensor(hidden), torch.tensor(mask).to(dtype), how)
        np.testing.assert_allclose(vectors, loop(hidden, mask, how), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fill", [torch.nan, torch.inf, -torch.inf, 1e30])
@pytest.mark.parametrize("how", POOLINGS)
def test_padding_never_matters(how: str, fill: float) -> None:
    hidden = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = pool(hidden, torch.ones(3, 4), how)
    for before, after in ((0, 3), (3, 0), (2, 2)):
        padded = torch.full((3, 4 + before + after, 5), fill)
        padded[:, before : before + 4] = hidden
        mask = torch.zeros(3, 4 + before + after)
        mask[:, before : before + 4] = 1
        torch.testing.assert_close(pool(padded, mask, how), expected)


@pytest.mark.parametrize("how", POOLINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(how: str, dtype: torch.dtype) -> None:
    hidden = torch.full((1, 3000, 1), 100.0, dtype=dtype)  # the sum overflows float16
    vectors = pool(hidden, torch.ones(1, 3000), how)
    assert vectors.dtype == torch.float32
    expected = 100.0 * (math.sqrt(3000) if how == "mean_sqrt_len" else 1.0)
    torch.testing.assert_close(vectors, torch.tensor([[expected]]))


@pytest.mark.parametrize("how", POOLINGS)
def test_nothing_to_pool(how: str) -> None:
    assert pool(torch.zeros(0, 3, 2), torch.zeros(0, 3), how).shape == (0, 2)
    empty = pool(torch.zeros(2, 0, 3), torch.zeros(2, 0), how)
    torch.testing.assert_close(empty, torch.zeros(2, 3))


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"pooling must be one of mean, cls.*got 'middle'"):
        pool(HIDDEN, torch.ones(1, 3), "middle")
    with pytest.raises(ValueError, match=r"got \(1, 3, 2\) and \(1, 2\)"):
        pool(HIDDEN, torch.ones(1, 2))
