"""Parts of the covariance of one user's opinions, each to be weighted.

Dimension letters: L behaviours of a user, I items, D content dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recbole_mars.data import InteractionLog

__all__ = ["KernelParts", "content_directions"]

_DRIFTS = (8.0, 64.0)  # behaviours after which a mood has faded to 1/e
_WIDTHS = (0.5, 0.15)  # of the kernels on 1 - cosine
_MOST_DIMENSIONS = 256


class KernelParts:
    """What makes two opinions of a user alike; names tells the parts.

    "user": what a user thinks of everything. "drift": moods, exp(-steps between / length).
    "agreement": how all users' opinions of the two items go together, v_i . v_j of item factors.
    A modality's name with a width: how alike the contents are, exp(-(1 - cosine) / width).

    factors: for each fold (I, K) from the users outside it, or none. contents: unit rows (I, D) by
    modality, zeros where an item has none. fold: (n_users,).
    """

    def __init__(
        self,
        log: InteractionLog,
        fold: np.ndarray,
        factors: Sequence[np.ndarray],
        contents: Mapping[str, np.ndarray],
    ) -> None:
        self._log, self._fold, self._factors, self._contents = log, fold, factors, contents
        self.names = ["user", *(f"drift {length:g}" for length in _DRIFTS)]
        self.names += ["agreement"] if len(factors) else []
        self.names += [f"{name} {width:g}" for name in contents for width in _WIDTHS]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """rows: (L,) of one user, ascending. Returns (parts, L, L) float64."""
        items = self._log.items[rows]
        steps = np.abs(np.subtract.outer(rows, rows))
        parts = [np.ones(steps.shape), *(np.exp(-steps / length) for length in _DRIFTS)]
        if len(self._factors):
            vectors = self._factors[self._fold[self._log.users[rows[0]]]][items]
            parts.append(vectors @ vectors.T)
        for directions in self._contents.values():
            vectors = directions[items]
            there = vectors.any(axis=1)
            gap = np.minimum(vectors @ vectors.T - 1, 0)
            alike = np.outer(there, there)
            parts += [np.where(alike, np.exp(gap / width), 0) for width in _WIDTHS]
        return np.stack(parts)


def content_directions(features: np.ndarray) -> np.ndarray:
    """Centred features as unit rows, in at most 256 principal dimensions.

    features: (I, D), zeros where an item has none. Returns (I, min(D, 256)) float64, zeros there.
    """
    there = features.any(axis=1)
    if not there.any():
        return np.zeros((len(features), 1))
    centred = np.zeros(features.shape)
    centred[there] = features[there] - features[there].mean(axis=0, dtype=np.float64)
    if features.shape[1] > _MOST_DIMENSIONS:
        _, axes = np.linalg.eigh(centred.T @ centred)
        centred = centred @ axes[:, -_MOST_DIMENSIONS:]
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 1e-9)
