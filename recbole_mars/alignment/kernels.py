"""The RBF kernel and its bandwidth (MARS, eq. 5).

Dimension letters: N, M samples, D width.
"""

from __future__ import annotations

from typing import Union

import torch
from torch import Tensor

__all__ = ["Bandwidth", "check_bandwidth", "choose_bandwidth", "median_bandwidth", "rbf_kernel"]

Bandwidth = Union[float, str]  # a positive number, or "median"


def rbf_kernel(x: Tensor, y: Tensor, bandwidth: float | Tensor) -> Tensor:
    """Similarity of every row of x to every row of y (MARS, eq. 5).

    K_ij = exp(-||x_i - y_j||^2 / (2 bandwidth^2))

    x: (N, D). y: (M, D). Returns (N, M), values in (0, 1], with gradients to x and y that are
    finite for equal rows too. Raises ValueError for other shapes or a bandwidth <= 0.
    """
    if not isinstance(bandwidth, Tensor):
        check_bandwidth(bandwidth)
    return torch.exp(-_squared_distances(x, y) / (2 * bandwidth**2))


@torch.no_grad()
def median_bandwidth(x: Tensor, y: Tensor) -> Tensor:
    """Median distance between the rows of x and of y, the adaptive bandwidth of eq. 5.

    x: (N, D). y: (M, D). If x is y, the zero distance of a row to itself is left out; of an even
    number of distances the lower middle one is taken. Returns a 0-d tensor without gradient,
    always positive: the mean distance where the median is zero, 1 where that is zero too.
    """
    squares = _squared_distances(x, y)
    if x is y:
        squares = squares[~torch.eye(len(x), dtype=torch.bool, device=x.device)]
    if squares.numel() == 0:
        return squares.new_ones(())
    distances = squares.sqrt()
    median, mean = distances.median(), distances.mean()
    return torch.where(median > 0, median, torch.where(mean > 0, mean, torch.ones_like(mean)))


def choose_bandwidth(bandwidth: Bandwidth, x: Tensor, y: Tensor) -> float | Tensor:
    """The given bandwidth, or median_bandwidth(x, y) for "median".

    Raises ValueError for anything but "median" or a positive number.
    """
    if bandwidth == "median":
        return median_bandwidth(x, y)
    check_bandwidth(bandwidth)
    return float(bandwidth)


def check_bandwidth(bandwidth: Bandwidth) -> None:
    """Raise ValueError for anything but a positive number."""
    if isinstance(bandwidth, str) or not bandwidth > 0:
        raise ValueError(
            f"bandwidth must be > 0, got {bandwidth!r}; use 'median' to choose it from the batch"
        )


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """||x_i - y_j||^2 by one matrix product. x: (N, D). y: (M, D). Returns (N, M)."""
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must be (N, D) and (M, D), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    # Far from the origin ||x||^2 + ||y||^2 - 2 x.y loses every digit, so both move there first.
    center = torch.cat([x, y]).detach().mean(0)
    x, y = x - center, y - center
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    squares = norms - 2 * x @ y.T
    # What is left below the rounding of the norms is noise: equal rows have distance 0.
    rounding = torch.finfo(x.dtype).eps * x.shape[1] ** 0.5
    return torch.where(squares <= rounding * norms, torch.zeros_like(squares), squares)
