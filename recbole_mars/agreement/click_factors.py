"""Items as vectors by who clicked them: near each other where the same people clicked both."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

__all__ = ["fit_click_factors", "unit_rows"]

_DENSE = 256  # up to this many users or items a dense decomposition is as fast, and takes any width


def fit_click_factors(
    users: np.ndarray, items: np.ndarray, n_items: int, n_factors: int, seed: int = 0
) -> np.ndarray:
    """The largest singular directions of the normalised matrix of clicks, by item.

    M[u, i] = 1 / sqrt(items of u * users of i) where u clicked i, M = U S V', and the vectors V S
    (PureSVD, Cremonesi et al. 2010, with the normalisation of spectral co-clustering, Dhillon
    2001). v_i . v_j is then near the i, j of M'M: how many clicked both, each counted the less the
    more they click, against how many clicked either.

    users, items: (N,) ids; the same click twice counts once. Returns (n_items, n_factors) float32,
    the largest direction first, zeros for items without clicks and for directions that there are
    not. Deterministic under a seed.
    """
    found = np.zeros((n_items, n_factors), dtype=np.float32)
    clicked, columns = np.unique(items, return_inverse=True)
    clicking, rows = np.unique(users, return_inverse=True)
    shape = (len(clicking), len(clicked))
    n_kept = min(n_factors, *shape)
    if not n_kept:
        return found
    matrix = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape)
    matrix.data[:] = 1.0
    by_user, by_item = (np.asarray(matrix.sum(axis)).ravel() ** -0.5 for axis in (1, 0))
    matrix = sparse.diags(by_user) @ matrix @ sparse.diags(by_item)
    if min(shape) <= max(_DENSE, 2 * n_kept):
        _, scales, directions = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        first = np.random.default_rng(seed).normal(size=min(shape))
        _, scales, directions = svds(matrix, k=n_kept, v0=first)
    largest = np.argsort(-scales, kind="stable")[:n_kept]
    found[clicked, :n_kept] = (directions[largest] * scales[largest, None]).T
    return found


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float64, zeros where they are. (..., K)."""
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12)
