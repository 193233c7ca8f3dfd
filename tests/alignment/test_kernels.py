from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_mars.alignment import median_bandwidth, rbf_kernel
from recbole_mars.alignment.kernels import choose_bandwidth, self_kernel


def random_rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kernel_of_hand_values() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    y = torch.tensor([[0.0, 0.0]])
    expected = torch.tensor([[1.0], [math.exp(-25 / 8)]])
    torch.testing.assert_close(rbf_kernel(x, y, 2.0), expected)


def test_kernel_equals_a_loop() -> None:
    x, y = random_rows(5, 3), random_rows(4, 3, seed=1)
    kernel = rbf_kernel(x, y, 0.7)
    for i in range(5):
        for j in range(4):
            square = sum((float(x[i, d]) - float(y[j, d])) ** 2 for d in range(3))
            assert kernel[i, j].item() == pytest.approx(math.exp(-square / (2 * 0.7**2)))


def test_kernel_keeps_its_digits_far_from_the_origin() -> None:
    x = random_rows(20, 8)
    near = rbf_kernel(x.float(), x.float(), 1.0)
    far = rbf_kernel((x + 300).float(), (x + 300).float(), 1.0)
    torch.testing.assert_close(far, near, atol=1e-3, rtol=0)


def test_kernel_gradients_pass_gradcheck_with_equal_rows() -> None:
    x, y = random_rows(4, 3), random_rows(3, 3, seed=1)
    y[0] = x[0]
    x[1] = x[0]
    inputs = (x.requires_grad_(), y.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, y: rbf_kernel(x, y, 1.3), inputs)


def test_kernel_gradient_of_equal_rows_is_zero_not_nan() -> None:
    x = torch.ones(3, 4, requires_grad=True)
    rbf_kernel(x, x, 1.0).sum().backward()
    assert torch.equal(x.grad, torch.zeros(3, 4))


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, float("nan"), "mean"])
def test_kernel_refuses_a_bandwidth_that_is_not_positive(bandwidth: float | str) -> None:
    with pytest.raises(ValueError, match=r"bandwidth must be > 0, got .*use 'median'"):
        rbf_kernel(torch.zeros(1, 2), torch.zeros(1, 2), bandwidth)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bandwidth must be > 0"):
        choose_bandwidth(bandwidth, torch.zeros(1, 2), torch.zeros(1, 2))


@pytest.mark.parametrize("shape", [(4,), (1, 3), (1, 1, 2)])
def test_kernel_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x and y must be \(N, D\) and \(M, D\)"):
        rbf_kernel(torch.zeros(2, 2), torch.zeros(shape), 1.0)


def test_median_of_the_cross_distances() -> None:
    x = torch.tensor([[0.0], [10.0]])
    y = torch.tensor([[1.0], [4.0], [5.0]])
    # distances 1, 4, 5, 9, 6, 5: sorted 1 4 5 5 6 9
    assert median_bandwidth(x, y).item() == pytest.approx(5.0)


def test_median_leaves_out_the_diagonal_of_the_same_tensor_only() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0]])
    # pairs 1, 2, 3, each twice; with the three zeros of the diagonal the median would be 1
    assert median_bandwidth(x, x).item() == pytest.approx(2.0)
    assert median_bandwidth(x, x.clone()).item() == pytest.approx(1.0)


def test_median_equals_numpy_on_an_odd_number_of_distances() -> None:
    x, y = random_rows(7, 3), random_rows(9, 3, seed=1)
    distances = np.linalg.norm(x.numpy()[:, None] - y.numpy(), axis=-1)
    assert median_bandwidth(x, y).item() == pytest.approx(np.median(distances))


@pytest.mark.parametrize("bandwidth", ["median", 0.7])
def test_the_kernel_of_samples_with_themselves(bandwidth: float | str) -> None:
    x = random_rows(7, 3)
    kernel, sigma = self_kernel(x, bandwidth)
    assert float(sigma) == float(choose_bandwidth(bandwidth, x, x))
    torch.testing.assert_close(kernel, rbf_kernel(x, x, sigma))
    with pytest.raises(ValueError, match="bandwidth must be > 0"):
        self_kernel(x, -1.0)


def test_a_zero_median_gives_the_mean_distance_and_then_one() -> None:
    x = torch.tensor([[0.1, 0.2], [0.1, 0.2], [0.1, 0.2], [0.1, 5.2]])
    # of the 6 pairs 3 are equal, so the lower median is 0 and the mean is 15 / 6
    assert median_bandwidth(x, x).item() == pytest.approx(2.5)
    equal = torch.full((5, 7), 0.1)
    assert median_bandwidth(equal, equal).item() == 1.0
    assert median_bandwidth(equal, equal.clone()).item() == 1.0


@pytest.mark.parametrize("width", [17, 64, 255, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_not_mistaken_for_distance(width: int, dtype: torch.dtype) -> None:
    x = torch.cat([random_rows(1, width).expand(40, width), random_rows(5, width, seed=1)])
    x = x.to(dtype)
    kernel = rbf_kernel(x, x, 1e-9)  # so narrow that any noise would show
    assert torch.equal(kernel[:40, :40], torch.ones(40, 40, dtype=dtype))
    distances = torch.cdist(x.double(), x.double())
    mean = distances.sum() / (45 * 44)
    assert median_bandwidth(x, x).item() == pytest.approx(mean.item(), rel=1e-4)


def test_a_single_row_and_no_row_have_bandwidth_one() -> None:
    for rows in (1, 0):
        x = torch.ones(rows, 3)
        assert median_bandwidth(x, x).item() == 1.0


def test_median_has_no_gradient() -> None:
    x = torch.randn(4, 2, requires_grad=True)
    assert not median_bandwidth(x, x).requires_grad
    assert median_bandwidth(x, x).dim() == 0


def test_what_is_not_finite_is_not_hidden() -> None:
    x = torch.tensor([[float("nan"), 0.0], [1.0, 0.0]])
    assert rbf_kernel(x, x, 1.0).isnan().any()
