"""What donors offer to a query: their behaviours, each with its similarity (MARS, eq. 16).

Dimension letters: Q queries, D width, k donors of a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from recbole_mars.data import InteractionLog
from recbole_mars.retrieval.cosine import unit_rows
from recbole_mars.retrieval.neighbours import DonorPool

__all__ = ["Candidate", "candidate_sequences"]

_BLOCK = 4096  # queries whose similarities are held at once


class Candidate(NamedTuple):
    """One donor's behaviours, oldest first; all (n,): log rows, their items, similarities s_i."""

    rows: np.ndarray
    items: np.ndarray
    similarities: np.ndarray


_NOTHING = Candidate(
    np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
)


def candidate_sequences(
    log: InteractionLog,
    pool: DonorPool,
    queries: np.ndarray,
    donors: np.ndarray,
    *,
    max_length: int,
    query_times: np.ndarray | None = None,
    center: np.ndarray | None = None,
) -> Iterator[tuple[int, list[Candidate]]]:
    """Compare every query with its donors' items (MARS, eq. 16): s_i = cos(emb_item_i, query).

    queries: (Q, D). donors: (Q, k) users of the pool, -1 for none; found by any rule.
    max_length: the latest behaviours of a donor that count. query_times: (Q,); with them only
    behaviours strictly before the query's time. center: (D,), subtracted before the cosine, see
    UserIndex.

    Yields (position of the query, its candidates in the order of its donors), each query once,
    in an order that lets queries share the work on a donor. A donor with no behaviour to offer
    gives an empty candidate. A behaviour without an embedding has similarity -1.
    Raises ValueError for a donor outside the pool.
    """
    starts, ends = pool.stretches(log)
    times = log.times[pool.rows]
    place = np.full(log.n_users, -1, dtype=np.int64)
    place[pool.users] = np.arange(len(pool.users))
    if np.any(place[donors[donors >= 0]] < 0):
        raise ValueError("donors must be users of the pool, got others; search the pool's index")
    together = np.argsort(donors[:, 0], kind="stable")
    for begin in range(0, len(together), _BLOCK):
        block = together[begin : begin + _BLOCK]
        directions = unit_rows(queries[block], center)
        borrower, rank = np.nonzero(donors[block] >= 0)
        lender = place[donors[block][borrower, rank]]
        offers: list[Candidate] = [_NOTHING] * len(lender)
        for donor, pairs in _groups(lender):
            start, end = starts[donor], ends[donor]
            stops = np.full(len(pairs), end)
            if query_times is not None:
                limits = query_times[block[borrower[pairs]]]
                stops = start + np.searchsorted(times[start:end], limits)
            firsts = np.maximum(stops - max_length, start)
            low, high = firsts.min(), stops.max()
            embeddings = unit_rows(pool.row_embeddings[low:high], center)
            similarities = directions[borrower[pairs]] @ embeddings.T
            similarities[:, ~embeddings.any(axis=1)] = -1.0
            rows = pool.rows[low:high]
            items = log.items[rows]
            spans = zip(pairs.tolist(), (firsts - low).tolist(), (stops - low).tolist())
            for similar, (pair, a, b) in zip(similarities, spans):
                offers[pair] = Candidate(rows[a:b], items[a:b], similar[a:b])
        bounds = np.searchsorted(borrower, np.arange(len(block) + 1))
        for i, query in enumerate(block.tolist()):
            yield query, offers[bounds[i] : bounds[i + 1]]


def _groups(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each value with its positions."""
    order = np.argsort(values, kind="stable")
    distinct, firsts = np.unique(values[order], return_index=True)
    return zip(distinct.tolist(), np.split(order, firsts[1:]))
