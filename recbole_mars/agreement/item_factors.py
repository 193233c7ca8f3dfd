"""Item factors whose products say how users' opinions of two items go together.

Dimension letters: U users, I items, N opinions, K factors.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

__all__ = ["fit_item_factors"]

_LEAST = 1e-6


def fit_item_factors(
    users: np.ndarray,
    items: np.ndarray,
    opinions: np.ndarray,
    n_users: int,
    n_items: int,
    n_factors: int,
    *,
    iterations: int = 15,
    seed: int = 0,
) -> np.ndarray:
    """Fit opinion = z_u . v_i + noise by variational Bayes (Lim & Teh, KDD Cup 2007).

    Users' vectors are standard normal, so the covariance of the opinions that one user has of two
    items is v_i . v_j: what all users who met both agree on. Each factor has its own prior
    variance, estimated too (Bishop, Variational Principal Components, 1999): factors and items
    that the data do not support shrink to nothing, so few opinions an item do no harm.

    users, items: (N,) ids, below n_users and n_items. opinions: (N,), centred. Returns the means
    of v, (n_items, n_factors) float64, zeros for items without an opinion. Deterministic under a
    seed. Raises ValueError if there is no opinion or n_factors < 1.
    """
    if n_factors < 1:
        raise ValueError(f"n_factors must be >= 1, got {n_factors}")
    if len(opinions) == 0:
        raise ValueError("opinions must not be empty; leave item factors out instead")
    shape = (n_users, n_items)
    met = sparse.csr_matrix((np.ones(len(users)), (users, items)), shape)
    said = sparse.csr_matrix((np.asarray(opinions, dtype=np.float64), (users, items)), shape)
    met_by, said_by = met.T.tocsr(), said.T.tocsr()
    rated = np.flatnonzero(np.diff(met_by.indptr))
    identity = np.eye(n_factors)
    total = float(np.square(opinions, dtype=np.float64).sum())
    noise = max(total / len(opinions), _LEAST)
    random = np.random.default_rng(seed)
    means = np.zeros((n_items, n_factors))
    means[rated] = random.normal(0, 0.3 * noise**0.5, (len(rated), n_factors))
    second = _outer(means)  # E[v v'], flat
    precision = np.full(n_factors, 1 / (0.1 * noise))
    for _ in range(iterations):
        precisions = (met @ second).reshape(-1, n_factors, n_factors) / noise + identity
        spread = np.linalg.inv(precisions)
        heard = said @ means
        tastes = np.einsum("ukl,ul->uk", spread, heard) / noise
        taste_second = _outer(tastes) + spread.reshape(n_users, -1)
        weights = (met_by[rated] @ taste_second).reshape(-1, n_factors, n_factors)
        spread = np.linalg.inv(weights / noise + np.diag(precision))
        means[rated] = np.einsum("ikl,il->ik", spread, said_by[rated] @ tastes) / noise
        second[rated] = _outer(means[rated]) + spread.reshape(len(rated), -1)
        explained = 2 * np.sum(means * (said_by @ tastes)) - np.sum(
            second[rated] * weights.reshape(len(rated), -1)
        )
        noise = max((total - explained) / len(opinions), _LEAST)
        strength = second.reshape(-1, n_factors, n_factors)[rated].sum(0).diagonal()
        precision = len(rated) / np.maximum(strength, _LEAST)
    return means


def _outer(vectors: np.ndarray) -> np.ndarray:
    """(M, K) to the flat outer products (M, K * K)."""
    return np.einsum("mk,ml->mkl", vectors, vectors).reshape(len(vectors), -1)
