"""Histories that begin with behaviours borrowed from similar high-active users (MARS, 3.4).

Dimension letters: Q query rows, D width, B targets, L longest history in the batch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from recbole_mars.augmentation.base import Augmenter, keep_latest, prepend
from recbole_mars.augmentation.prefixes import PrefixTable
from recbole_mars.augmentation.strategies import STRATEGIES
from recbole_mars.data import TRAIN, InteractionLog, pad_ragged
from recbole_mars.retrieval import (
    Candidate,
    DonorPool,
    UserIndex,
    candidate_sequences,
    check_storage,
    find_donors,
)

__all__ = ["RetrievalSettings", "RetrievedAugmenter", "build_prefixes"]

_logger = logging.getLogger(__name__)
_SAMPLE = 5000  # training queries from which a quantile is taken
_CHOICES = {
    "strategy": tuple(STRATEGIES),
    "theta_kind": ("quantile", "cosine"),
    "donor_time": ("any", "before"),
}


@dataclass(frozen=True)
class RetrievalSettings:
    """How prefixes are made.

    strategy: "filtered" (eq. 17), "most_similar", "top_k" or "dynamic_programming".
    candidates: donors of a query; None: 10 for the two strategies that read several, else 1.
    theta, theta_kind: the threshold of eq. 17, as a "cosine" or as a "quantile" of the
    similarities between the training queries (all, if none of these has a donor) and their donors'
    behaviours: the scale of cosines differs from one embedding space to another, a quantile keeps
    its meaning.
    index, storage, rerank, center: see UserIndex; center=False is the paper. The centre is also
    subtracted for the similarities of eq. 16, which are exact with every index and storage.
    donor_time: "any" lends a donor's training behaviours whenever they were (the paper),
    "before" only those strictly before the query, which a temporal split needs.
    max_length: of a donor's sequence (its latest behaviours) and of the augmented history.

    Raises ValueError for an unknown choice or a number out of range.
    """

    strategy: str = "filtered"
    candidates: int | None = None
    theta: float = 0.5
    theta_kind: str = "quantile"
    index: str = "flat"
    storage: str = "float32"
    rerank: int = 0
    center: bool = True
    donor_time: str = "any"
    max_length: int = 200

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        check_storage(self.index, self.storage, self.rerank)
        if self.candidates is not None and (
            self.candidates < 1 or (self.candidates > 1 and not self._merges)
        ):
            raise ValueError(
                f"candidates must be {'>= 1' if self._merges else '1'} for {self.strategy!r}, "
                f"got {self.candidates}; top_k and dynamic_programming read several"
            )
        lowest = 0.0 if self.theta_kind == "quantile" else -1.0
        if not lowest <= self.theta <= 1.0:
            raise ValueError(
                f"theta must lie in {lowest:g}..1 as a {self.theta_kind}, got {self.theta}"
            )
        if self.max_length < 1:
            raise ValueError(f"max_length must be >= 1, got {self.max_length}")

    @property
    def n_candidates(self) -> int:
        """Donors of a query, with the default filled in."""
        return self.candidates or (10 if self._merges else 1)

    @property
    def _merges(self) -> bool:
        return self.strategy in ("top_k", "dynamic_programming")


def build_prefixes(
    log: InteractionLog,
    query_rows: np.ndarray,
    query_embeddings: np.ndarray,
    pool: DonorPool,
    settings: RetrievalSettings,
    own_lengths: np.ndarray,
    *,
    progress: bool = False,
) -> PrefixTable:
    """Retrieve, filter and order what each query row's history is to begin with (eq. 15-17).

    query_rows: (Q,), all different: the targets of low-active users. query_embeddings: (Q, D),
    emb_user^mm before each target, zeros if there is none: such a row gets no prefix.
    own_lengths: (Q,), behaviours in the row's own history; the prefix fills the room they leave.

    Raises ValueError if the arrays do not match, rows repeat, or a quantile is asked for and no
    training query has a donor.
    """
    query_rows = np.asarray(query_rows, dtype=np.int64)
    if not len(query_rows) == len(query_embeddings) == len(own_lengths):
        raise ValueError(
            f"each of the {len(query_rows)} query_rows needs an embedding and an own length, "
            f"got {len(query_embeddings)} and {len(own_lengths)}"
        )
    order = np.argsort(query_rows, kind="stable")
    rows, queries = query_rows[order], query_embeddings[order]
    if np.any(np.diff(rows) == 0):
        raise ValueError("query_rows must differ, got one twice; ask for each row once")
    times = log.times[rows] if settings.donor_time == "before" else None

    index = UserIndex(
        pool.embeddings,
        pool.users,
        settings.index,
        center=settings.center,
        storage=settings.storage,
        rerank=settings.rerank,
    )
    if (settings.index, settings.storage) != ("flat", "float32"):
        sample = queries[_evenly(np.arange(len(rows)), 1000)]
        recall = index.recall(sample, settings.n_candidates, pool.embeddings, pool.users)
        _logger.info(
            "recall@%d of index %s, storage %s: %.4f",
            settings.n_candidates,
            index.kind,
            index.storage,
            recall,
        )
    donors, scores = find_donors(
        index,
        queries,
        log.users[rows],
        settings.n_candidates,
        first_times=pool.first_times(log),
        query_times=times,
    )

    def sequences(chosen: np.ndarray) -> Iterator[tuple[int, list[Candidate]]]:
        return candidate_sequences(
            log,
            pool,
            queries[chosen],
            donors[chosen],
            max_length=settings.max_length,
            query_times=None if times is None else times[chosen],
            center=index.center,
        )

    if settings.strategy == "most_similar":
        threshold = -1.0
    elif settings.theta_kind == "cosine":
        threshold = settings.theta
    else:
        served = np.flatnonzero(donors[:, 0] >= 0)
        trained = served[log.phases[rows[served]] == TRAIN]
        if len(trained):
            served = trained
        elif len(served):
            _logger.warning("no training query has a donor: theta is a quantile of all queries")
        threshold = _quantile(sequences(_evenly(served, _SAMPLE)), settings.theta)

    room = np.maximum(settings.max_length - np.asarray(own_lengths)[order], 0)
    borrow = STRATEGIES[settings.strategy]
    nothing = np.zeros(0, dtype=np.int64)
    prefixes = [nothing] * len(rows)
    everyone = tqdm(
        sequences(np.arange(len(rows))), "prefixes", total=len(rows), disable=not progress
    )
    for query, candidates in everyone:
        prefixes[query] = borrow(candidates, room[query], threshold)
    lengths = [len(prefix) for prefix in prefixes]
    small = len(log) <= np.iinfo(np.int32).max
    return PrefixTable(
        rows=rows,
        pointers=np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))),
        values=np.concatenate([nothing, *prefixes]).astype(np.int32 if small else np.int64),
        donor_similarities=np.where(donors[:, 0] >= 0, scores[:, 0], np.nan).astype(np.float32),
        threshold=threshold,
    )


class RetrievedAugmenter(Augmenter):
    """Prepend each target's prefix to its history, S' || S (MARS, eq. 18), in every phase.

    Targets without a prefix in the table keep their history. Where prefix and history together
    exceed max_length, the prefix loses its first rows.
    """

    borrows = True

    def __init__(self, table: PrefixTable) -> None:
        self._rows = np.append(table.rows, -1)  # -1: what is not in the table
        self._lengths = np.append(np.diff(table.pointers), 0)
        self._ends = np.append(table.pointers[1:], 0)
        self._values = table.values

    def augment(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        phase: str,
        epoch: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        histories, lengths = keep_latest(histories, lengths, max_length)
        place = np.searchsorted(self._rows[:-1], rows)
        known = self._rows[place] == rows
        borrowed = np.where(known, np.minimum(self._lengths[place], max_length - lengths), 0)
        prefixes = pad_ragged(self._values, self._ends[place] - borrowed, borrowed)
        return prepend(prefixes, borrowed, histories, lengths)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for part in (self._rows, self._lengths, self._values):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def _evenly(values: np.ndarray, at_most: int) -> np.ndarray:
    return values[:: max(1, -(-len(values) // at_most))]


def _quantile(sequences: Iterator[tuple[int, list[Candidate]]], theta: float) -> float:
    seen = [part.similarities for _, candidates in sequences for part in candidates]
    if not seen:
        raise ValueError(
            "theta_kind 'quantile' needs queries with donors, found none; "
            "use theta_kind 'cosine' or donor_time 'any'"
        )
    return float(np.quantile(np.concatenate(seen), theta))
