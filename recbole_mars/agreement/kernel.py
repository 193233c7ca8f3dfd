"""Parts of the covariance of one user's opinions, each to be weighted.

Dimension letters: L behaviours of a user, C other items, I items, K factors, D content dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

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
    modality, zeros where an item has none.
    """

    def __init__(self, factors: Sequence[np.ndarray], contents: Mapping[str, np.ndarray]) -> None:
        self._factors, self._contents = factors, contents
        self.names = ["user", *(f"drift {length:g}" for length in _DRIFTS)]
        self.names += ["agreement"] if len(factors) else []
        self.names += [f"{name} {width:g}" for name in contents for width in _WIDTHS]

    def of(self, items: np.ndarray, positions: np.ndarray, fold: int) -> np.ndarray:
        """Of a user's behaviours with each other, (parts, L, L) float64.

        items, positions: (L,), positions count the behaviours. fold: the user's.
        """
        steps = np.abs(np.subtract.outer(positions, positions))
        return np.stack(list(self.between(items, items, steps, fold)))

    def between(
        self, items: np.ndarray, others: np.ndarray, steps: np.ndarray, fold: int
    ) -> Iterator[np.ndarray]:
        """Of some behaviours with others, part by part, (L, C) float64 each.

        items: (L,). others: (C,). steps: how many behaviours are between them, (L, C).
        """
        yield np.ones(steps.shape)
        for length in _DRIFTS:
            yield np.exp(-steps / length)
        if len(self._factors):
            rows, columns = _pick(self._factors[fold], items, others)
            yield rows @ columns.T
        for directions in self._contents.values():
            rows, columns = _pick(directions, items, others)
            gap = np.minimum(rows @ columns.T - 1, 0)
            alike = np.outer(rows.any(axis=1), columns.any(axis=1))
            for width in _WIDTHS:
                yield np.where(alike, np.exp(gap / width), 0)

    def alone(self, items: np.ndarray, fold: int) -> Iterator[np.ndarray]:
        """Of each item with itself at one time, part by part, (C,) float64 each. items: (C,)."""
        for _ in range(1 + len(_DRIFTS)):
            yield np.ones(len(items))
        if len(self._factors):
            vectors = self._factors[fold][items]
            yield np.square(vectors, dtype=np.float64).sum(axis=1)
        for directions in self._contents.values():
            there = directions[items].any(axis=1).astype(np.float64)
            yield from (there,) * len(_WIDTHS)


def _pick(
    table: np.ndarray, items: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two lists of items in float64; one array if it is one list."""
    rows = table[items].astype(np.float64, copy=False)
    return rows, rows if others is items else table[others].astype(np.float64, copy=False)


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
