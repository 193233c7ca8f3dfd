"""The Stein gradient estimator: the score of a distribution known by samples only.

Li & Turner, Gradient Estimators for Implicit Models, ICLR 2018.
Dimension letters: N samples, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_mars.alignment.kernels import Bandwidth, self_kernel

__all__ = ["stein_score"]


@torch.no_grad()
def stein_score(
    samples: Tensor, bandwidth: Bandwidth = "median", regularization: float = 0.1
) -> Tensor:
    """Estimate the score, the gradient of log q, at samples drawn from q.

    G = -(K + eta I)^-1 <grad, K>,   <grad, K>_i = sum_k K_ik (x_i - x_k) / sigma^2

    with K the RBF kernel of bandwidth sigma ("median": the median distance between samples) and
    eta the regularization: 0.01 to 0.1 suits a few hundred samples, more shrinks the score.

    samples: (N, D). Returns (N, D) in float32 or better, without gradient; zeros for one sample.
    Raises ValueError if samples is not 2-D or not finite, if bandwidth or regularization <= 0,
    or if the regularization is too small to solve for G in this precision.
    """
    if samples.dim() != 2:
        raise ValueError(f"samples must be (N, D), got {tuple(samples.shape)}")
    if not regularization > 0:
        raise ValueError(f"regularization must be > 0, got {regularization}; 0.1 is the default")
    x = samples if samples.dtype == torch.float64 else samples.float()
    kernel, sigma = self_kernel(x, bandwidth)
    x = x - x.mean(0)  # the score is translation-invariant, its rounding is not
    repulsion = (kernel.sum(1, keepdim=True) * x - kernel @ x) / sigma**2
    identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    factor, failed = torch.linalg.cholesky_ex(kernel + regularization * identity)
    if failed:
        raise ValueError(
            "the kernel matrix could not be solved: samples must be finite and regularization "
            f"large enough for {x.dtype}, got {regularization}; 0.1 is the default"
        )
    return -torch.cholesky_solve(repulsion, factor)
