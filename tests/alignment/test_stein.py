from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_mars.alignment import median_bandwidth, rbf_kernel, stein_score


def samples(n: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator, dtype=torch.float64)


def test_score_equals_a_loop() -> None:
    x = samples(6, 3)
    sigma, eta = 1.5, 0.2
    kernel, repulsion = np.zeros((6, 6)), np.zeros((6, 3))
    for i in range(6):
        for k in range(6):
            difference = (x[i] - x[k]).numpy()
            kernel[i, k] = np.exp(-(difference @ difference) / (2 * sigma**2))
            repulsion[i] += kernel[i, k] * difference / sigma**2
    expected = -np.linalg.inv(kernel + eta * np.eye(6)) @ repulsion
    np.testing.assert_allclose(stein_score(x, sigma, eta).numpy(), expected, rtol=1e-8)


def test_score_of_two_points_by_hand() -> None:
    # K = [[1, k], [k, 1]], <grad, K> = (-2k, 2k) for x = (-1, 1), sigma = 1; by symmetry
    # G = (2k, -2k) / (1 + eta - k)
    k, eta = np.exp(-2.0), 0.5
    score = stein_score(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 1.0, eta)
    expected = 2 * k / (1 + eta - k)
    np.testing.assert_allclose(score.numpy(), [[expected], [-expected]])


def test_score_solves_its_equation() -> None:
    x = samples(40, 5)
    score = stein_score(x, regularization=0.05)
    sigma = median_bandwidth(x, x)
    kernel = rbf_kernel(x, x, sigma)
    repulsion = (kernel[:, :, None] * (x[:, None] - x)).sum(1) / sigma**2
    residual = kernel @ score + repulsion + 0.05 * score
    torch.testing.assert_close(residual, torch.zeros_like(residual), atol=1e-10, rtol=0)


def test_score_is_translation_invariant_and_scales_inversely() -> None:
    x = samples(30, 4)
    score = stein_score(x)
    torch.testing.assert_close(stein_score(x + 100), score)
    torch.testing.assert_close(stein_score(7 * x), score / 7)
    torch.testing.assert_close(stein_score(x[torch.arange(29, -1, -1)]).flip(0), score)


def test_score_of_a_gaussian_approaches_the_true_one() -> None:
    mix = torch.tensor([[1.0, 0.4], [-0.2, 0.7]], dtype=torch.float64)
    mean = torch.tensor([3.0, -1.0], dtype=torch.float64)
    true, estimated = [], []
    for n in (60, 600):
        x = samples(n, 2) @ mix.T + mean
        true.append(-(x - mean) @ torch.linalg.inv(mix @ mix.T))
        estimated.append(stein_score(x, regularization=0.05))
    cosines = [
        torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0).item()
        for found, exact in zip(estimated, true)
    ]
    assert cosines[0] < cosines[1]
    assert cosines[1] > 0.9
    slope = (estimated[1] * true[1]).sum() / true[1].square().sum()
    assert 0.8 < slope < 1.1


def test_regularization_shrinks_the_score() -> None:
    x = samples(50, 3)
    lengths = [stein_score(x, regularization=eta).norm().item() for eta in (0.01, 0.1, 1.0)]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("rows", [0, 1])
def test_score_of_one_sample_is_zero(rows: int) -> None:
    score = stein_score(torch.randn(rows, 3))
    torch.testing.assert_close(score, torch.zeros(rows, 3))


def test_equal_samples_have_no_score() -> None:
    torch.testing.assert_close(stein_score(torch.full((4, 3), 0.1)), torch.zeros(4, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x = samples(20, 3).to(dtype)
    score = stein_score(x)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, stein_score(x.float()))


def test_score_in_float32_agrees_with_float64() -> None:
    x = samples(100, 8)
    torch.testing.assert_close(stein_score(x.float()).double(), stein_score(x), atol=1e-3, rtol=0)


def test_score_has_no_gradient() -> None:
    assert not stein_score(torch.randn(5, 2, requires_grad=True)).requires_grad


def test_bad_input_is_refused() -> None:
    x = torch.randn(5, 2)
    with pytest.raises(ValueError, match=r"samples must be \(N, D\), got \(5,\)"):
        stein_score(x[:, 0])
    with pytest.raises(ValueError, match="bandwidth must be > 0"):
        stein_score(x, bandwidth=0.0)
    with pytest.raises(ValueError, match="regularization must be > 0, got 0"):
        stein_score(x, regularization=0.0)
    with pytest.raises(ValueError, match="samples must be finite"):
        stein_score(torch.full((3, 2), float("nan")))
    with pytest.raises(ValueError, match="regularization large enough"):
        stein_score(torch.zeros(64, 2), regularization=1e-12)
