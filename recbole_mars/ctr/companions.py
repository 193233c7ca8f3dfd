"""Which items occur together: counted once over training histories.

Dimension letters: I items with padding, K companions of an item, D width of an item vector.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from recbole_mars.ctr.layers import VectorTable, distinct
from recbole_mars.data import InteractionLog

__all__ = ["CompanionVectors", "Companions", "find_companions", "no_companions"]


class Companions(NamedTuple):
    """The items that each occurs with most often.

    items: (I, K) int64, 0 where there are fewer. shares: (I, K) float32, of the K's occurrences;
    they sum to 1, or to 0 for an item without companions.
    """

    items: np.ndarray
    shares: np.ndarray


def find_companions(log: InteractionLog, rows: np.ndarray, count: int, window: int) -> Companions:
    """Companions: items that users met at most window behaviours apart.

    rows: (M,) ascending, the behaviours that count; between any two of a user's, those that do not
    count are no distance. count: K. Of equally frequent ones the smaller id is taken.
    """
    users, items = log.users[rows], log.items[rows]
    together = sparse.csr_matrix((log.n_items, log.n_items), dtype=np.int64)
    for step in range(1, min(window, len(rows) - 1) + 1):
        both = (users[step:] == users[:-step]) & (items[step:] != items[:-step])
        pair = items[:-step][both], items[step:][both]
        ones = np.ones(len(pair[0]), dtype=np.int64)
        together = together + sparse.csr_matrix((ones, pair), together.shape)
    together = (together + together.T).tocsr()
    row = np.repeat(np.arange(log.n_items), np.diff(together.indptr))
    order = np.lexsort((together.indices, -together.data, row))
    rank = np.arange(len(row)) - together.indptr[row]
    best = rank < count
    found = np.zeros((log.n_items, count), dtype=np.int64)
    times = np.zeros((log.n_items, count), dtype=np.float32)
    found[row[best], rank[best]] = together.indices[order][best]
    times[row[best], rank[best]] = together.data[order][best]
    return Companions(found, times / np.maximum(times.sum(1, keepdims=True), 1))


def no_companions(n_items: int, count: int) -> Companions:
    """Nothing occurs with anything. n_items: I. count: K."""
    shape = (n_items, count)
    return Companions(np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32))


class CompanionVectors(VectorTable):
    """Item vectors to which those of the companions are added, layer by layer: x + A x (DIMO).

    A holds the companions' shares. They are learned with, so a checkpoint keeps them.
    """

    companions: Tensor
    shares: Tensor

    def __init__(self, items: VectorTable, companions: Companions, layers: int) -> None:
        super().__init__()
        self.items, self.layers, self.width = items, layers, items.width
        self.register_buffer("companions", torch.from_numpy(companions.items))
        self.register_buffer("shares", torch.from_numpy(companions.shares))

    def hold(self, companions: Companions) -> None:
        """Take others, as many of as many items."""
        self.companions.copy_(torch.from_numpy(companions.items))
        self.shares.copy_(torch.from_numpy(companions.shares))

    def distinct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """See VectorTable. All items' vectors are made: each depends on others of any batch."""
        unique, places = distinct(ids, len(self.companions))
        vectors = self.items(torch.arange(len(self.companions), device=ids.device))
        for _ in range(self.layers):
            vectors = vectors + nn.functional.embedding_bag(
                self.companions,
                vectors,
                per_sample_weights=self.shares.to(vectors.dtype),
                mode="sum",
            )
        return places, vectors[unique]
