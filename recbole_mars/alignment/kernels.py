"""The RBF kernel and its bandwidth (MARS, eq. 5).

Dimension letters: N, M samples, D width.
"""

from __future__ import annotations

from math import inf
from typing import Union

import torch
from torch import Tensor

__all__ = [
    "Bandwidth",
    "check_bandwidth",
    "choose_bandwidth",
    "median_bandwidth",
    "rbf_kernel",
    "self_kernel",
]

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


def self_kernel(x: Tensor, bandwidth: Bandwidth) -> tuple[Tensor, float | Tensor]:
    """rbf_kernel(x, x) and its bandwidth, of distances that are measured once.

    x: (N, D). bandwidth: as in choose_bandwidth. Returns (N, N) and a positive scalar. Raises
    ValueError as both.
    """
    squares = _squared_distances(x, x)
    sigma = (
        _median_distance(_below_diagonal(squares.detach()))
        if bandwidth == "median"
        else choose_bandwidth(bandwidth, x, x)
    )
    return torch.exp(-squares / (2 * sigma**2)), sigma


@torch.no_grad()
def median_bandwidth(x: Tensor, y: Tensor) -> Tensor:
    """Median distance between the rows of x and of y, the adaptive bandwidth of eq. 5.

    x: (N, D). y: (M, D). If x is y, the zero distance of a row to itself is left out; of an even
    number of distances the lower middle one is taken. Returns a 0-d tensor without gradient,
    always positive: the mean distance where the median is zero, 1 where that is zero too.
    """
    squares = _squared_distances(x, y)
    return _median_distance(_below_diagonal(squares) if x is y else squares)


def choose_bandwidth(bandwidth: Bandwidth, x: Tensor, y: Tensor) -> float | Tensor:
    """The given bandwidth, or median_bandwidth(x, y) for "median".

    Raises ValueError for anything but "median" or a positive number.
    """
    if bandwidth == "median":
        return median_bandwidth(x, y)
    check_bandwidth(bandwidth)
    return float(bandwidth)


def check_bandwidth(bandwidth: Bandwidth) -> None:
    """Raise ValueError for anything but a finite positive number."""
    number = isinstance(bandwidth, (int, float)) and not isinstance(bandwidth, bool)
    if not (number and 0 < float(bandwidth) < inf):
        raise ValueError(
            f"bandwidth must be > 0, got {bandwidth!r}; use 'median' to choose it from the batch"
        )


def _median_distance(squares: Tensor) -> Tensor:
    """The positive median of median_bandwidth. squares: squared distances of any shape."""
    if squares.numel() == 0:
        return squares.new_ones(())
    median, mean = squares.median().sqrt(), squares.sqrt().mean()
    return torch.where(median > 0, median, torch.where(mean > 0, mean, torch.ones_like(mean)))


def _below_diagonal(squares: Tensor) -> Tensor:
    """Each pair of different rows once, which has the median of both. (N, N) to (N (N-1) / 2,)."""
    n = len(squares)
    row, column = torch.tril_indices(n, n, -1, device=squares.device)
    return squares[row, column]


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
