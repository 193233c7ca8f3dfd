"""A user's opinions as a Gaussian process over the items met, one kernel for all users.

The kernel is a sum of parts, each with a weight: what the user thinks of everything, how that
drifts, how other users' opinions of two items go together, how alike two items' contents are. The
posterior mean at a target is a weighted sum of the user's own past opinions; with the
collaborative part the weights are what everybody who met both items agrees on, that is, all
neighbours who met the target, each in proportion to the agreement with the user.

Dimension letters: L behaviours of a user, C parts of the kernel, T targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache

import numpy as np
from scipy import linalg, optimize
from threadpoolctl import ThreadpoolController

__all__ = ["condition", "fit_weights", "one_step_ahead", "one_thread", "posterior"]

_LEAST, _MOST = 1e-5, 1e3  # of a weight in the search, in which 0 would have no logarithm


def one_step_ahead(
    kernel: np.ndarray, opinions: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior of each behaviour's opinion given those before it.

    kernel: (L, L) prior covariance in the order of time. opinions: (L,), centred. One Cholesky
    factor K + noise * I = R R' holds all of them: the innovations are R^-1 y, their scales the
    diagonal of R. Returns the means (L,) and the variances (L,) without the noise.
    """
    root, innovations = condition(kernel, opinions, noise)
    scale = root.diagonal()
    return opinions - scale * innovations, np.maximum(scale**2 - noise, 0.0)


def condition(
    kernel: np.ndarray, opinions: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """The Cholesky factor R (L, L) of K + noise * I, and the innovations R^-1 y, (L,).

    kernel: (L, L). opinions: (L,), centred. Behaviours there may be none of.
    """
    matrix = np.array(kernel, dtype=np.float64)
    if not len(matrix):
        return matrix, np.zeros(0)
    matrix.flat[:: len(matrix) + 1] += noise
    root = linalg.cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    return root, linalg.solve_triangular(root, opinions, lower=True, check_finite=False)


def posterior(
    root: np.ndarray, innovations: np.ndarray, covariance: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior of targets given all behaviours: means (T,), variances (T,) without the noise.

    root, innovations: see `condition`. covariance: (L, T) of behaviours with targets. variance:
    (T,) prior one of each target.
    """
    if not covariance.size:
        return np.zeros(len(variance)), variance
    gain = linalg.solve_triangular(root, covariance, lower=True, check_finite=False)
    return innovations @ gain, np.maximum(variance - np.square(gain).sum(axis=0), 0.0)


def fit_weights(
    samples: Sequence[tuple[np.ndarray, np.ndarray]], start: Sequence[float]
) -> np.ndarray:
    """Weights of the kernel's parts, and the noise, by maximal marginal likelihood.

    samples: for each user the parts (C, L, L) and the opinions (L,). start: C + 1 positive
    numbers, the noise last. Returns as many. The likelihood of a Gaussian process is that of
    predicting each opinion from those before it, so it needs no held-out data.
    """
    n_values = sum(len(opinions) for _, opinions in samples)

    def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
        weights = np.exp(logs)
        value, slope = 0.0, np.zeros(len(weights))
        for parts, opinions in samples:
            matrix = np.tensordot(weights[:-1], parts, 1)
            matrix.flat[:: len(matrix) + 1] += weights[-1]
            factor = linalg.cho_factor(matrix, lower=True, check_finite=False)
            inverse = linalg.cho_solve(factor, np.eye(len(matrix)), check_finite=False)
            alpha = inverse @ opinions
            value += 0.5 * opinions @ alpha + np.log(factor[0].diagonal()).sum()
            gap = 0.5 * (inverse - np.outer(alpha, alpha))
            slope[:-1] += np.tensordot(parts, gap, 2)
            slope[-1] += gap.trace()
        return value / n_values, slope * weights / n_values

    first = np.log(np.maximum(np.asarray(start, dtype=np.float64), _LEAST))
    bounds = [(np.log(_LEAST), np.log(_MOST))] * len(first)
    found = optimize.minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.exp(found.x)


def one_thread() -> AbstractContextManager[object]:
    """BLAS in one thread: several only wait for each other on matrices as small as a user's."""
    return _controller().limit(limits=1, user_api="blas")


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries: a millisecond
