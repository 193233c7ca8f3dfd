"""High-active users as donors: what they can lend, and who lends to whom (MARS, eq. 15).

Dimension letters: H donors, R donors' rows, Q queries, D width, k donors of a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbole_mars.data import TRAIN, InteractionLog
from recbole_mars.retrieval.cosine import Matrix
from recbole_mars.retrieval.index import UserIndex

__all__ = ["DonorPool", "find_donors"]

_CELLS = 1 << 22  # neighbours held at once while searching


@dataclass(frozen=True)
class DonorPool:
    """Everything that can be borrowed.

    users: (H,), all different. embeddings: (H, D), emb_user^mm (eq. 13), zeros if there is none.
    rows: (R,), the donors' training behaviours as ascending rows of the log.
    row_embeddings: (R, D), emb_item^mm (eq. 11) of the item in the donor's sequence, float16 or
    float32, possibly a memmap.

    Raises ValueError if the shapes do not match, users repeat or rows do not ascend.
    """

    users: np.ndarray
    embeddings: np.ndarray
    rows: np.ndarray
    row_embeddings: np.ndarray

    def __post_init__(self) -> None:
        wanted = (len(self.users), len(self.rows))
        found = (len(self.embeddings), len(self.row_embeddings))
        if wanted != found:
            raise ValueError(
                f"the pool needs one embedding for each of {wanted[0]} users and {wanted[1]} rows, "
                f"got {found[0]} and {found[1]}"
            )
        if self.embeddings.shape[1:] != self.row_embeddings.shape[1:]:
            raise ValueError(
                "users and rows must be embedded in one space, got the shapes "
                f"{self.embeddings.shape} and {self.row_embeddings.shape}"
            )
        if len(np.unique(self.users)) != len(self.users):
            raise ValueError("users must differ, got one twice; name each donor once")
        if np.any(np.diff(self.rows) <= 0):
            raise ValueError("rows must ascend; sort them, with their embeddings")

    def stretches(self, log: InteractionLog) -> tuple[np.ndarray, np.ndarray]:
        """Where each donor's rows begin and end in rows; both (H,) int64.

        Raises ValueError if a row is not a training behaviour of one of the users.
        """
        if len(self.rows) and not 0 <= self.rows[0] <= self.rows[-1] < len(log):
            raise ValueError(f"rows must lie in the log, 0..{len(log) - 1}")
        if np.any(log.phases[self.rows] != TRAIN):
            raise ValueError(
                "donors lend training behaviours only, got validation or test rows; drop them"
            )
        starts = np.searchsorted(self.rows, log.offsets[self.users])
        ends = np.searchsorted(self.rows, log.offsets[self.users + 1])
        if (ends - starts).sum() != len(self.rows):
            raise ValueError("rows must belong to the pool's users, got rows of others; drop them")
        return starts, ends

    def first_times(self, log: InteractionLog) -> np.ndarray:
        """Time of each user's first row, (n_users,) float64; inf for those who can lend none."""
        starts, ends = self.stretches(log)
        lending = ends > starts
        times = np.full(log.n_users, np.inf)
        times[self.users[lending]] = log.times[self.rows[starts[lending]]]
        return times


def find_donors(
    index: UserIndex,
    queries: Matrix,
    query_users: np.ndarray,
    candidates: int,
    *,
    first_times: np.ndarray | None = None,
    query_times: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest users who have something to lend (MARS, eq. 15), never the query's own user.

    queries: (Q, D), emb_user^mm at the time of the query. query_users: (Q,).
    first_times: (n_users,), see DonorPool.first_times; users with inf are passed over.
    query_times: (Q,); with them, users whose first time is not before the query's are too.
    The donors' own embeddings are of all their training behaviours, with query_times too.

    Returns donor ids (Q, candidates) int64 and cosines float32, best first; -1 and -inf where
    there are fewer. Raises ValueError if query_times come without first_times.
    """
    if query_times is not None and first_times is None:
        raise ValueError("query_times need first_times; take them from DonorPool.first_times(log)")
    donors = np.full((len(queries), candidates), -1, dtype=np.int64)
    scores = np.full((len(queries), candidates), -np.inf, dtype=np.float32)
    limits = np.full(len(queries), np.inf) if query_times is None else np.asarray(query_times)
    pending = np.arange(len(queries))
    # The index knows nothing of times: search wider for those who found too few.
    width = candidates
    while len(pending):
        done = np.ones(len(pending), dtype=bool)
        step = max(1, _CELLS // width)
        for begin in range(0, len(pending), step):
            block = pending[begin : begin + step]
            found_scores, found = index.search(queries[block], width, query_users[block])
            usable = found >= 0
            if first_times is not None:
                usable &= first_times[found] < limits[block, None]
            found_scores[~usable] = -np.inf
            found[~usable] = -1
            best = np.argsort(~usable, axis=1, kind="stable")[:, :candidates]
            donors[block] = np.take_along_axis(found, best, axis=1)
            scores[block] = np.take_along_axis(found_scores, best, axis=1)
            done[begin : begin + step] = usable.sum(axis=1) >= candidates
        if width >= len(index):
            break
        pending = pending[~done]
        width = min(4 * width, len(index))
    return donors, scores
