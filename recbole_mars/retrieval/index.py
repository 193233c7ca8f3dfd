"""Users by the direction of their embeddings (MARS, eq. 15), searched with FAISS.

Dimension letters: H indexed users, Q queries, D width, k neighbours.
"""

from __future__ import annotations

import faiss
import numpy as np

from recbole_mars.retrieval.cosine import Matrix, mean_row, unit_rows

__all__ = ["UserIndex"]


class UserIndex:
    """The nearest users by cosine, argmax_u cos(emb_u, query) (MARS, eq. 15).

    embeddings: (H, D). user_ids: (H,), all different, in any order. Users whose embedding is zero
    have none and are never found.
    kind: "flat" is exact; "hnsw" (a graph) and "ivf" (clusters) trade recall for speed, which
    pays off from some hundred thousand users on. Several threads build the graph together, so
    two builds of it may differ in a few links.
    center: subtract the mean embedding of the indexed users from theirs and from every query.
    User embeddings are means over sequences and crowd around a common direction, which makes all
    cosines alike; what is left tells the users apart. The paper does not centre.
    nlist, nprobe: for "ivf", the number of clusters (None: 4 sqrt(H), but at least 39 users a
    cluster, as FAISS advises) and of those searched (None: an eighth of them).
    links, ef: for "hnsw", the links of a user, and the breadth of building and searching.
    seed: of the k-means.

    Raises ValueError for an unknown kind, an option < 1, repeated ids, embeddings that are not
    finite or do not match the ids, or if there is no user to find.
    """

    def __init__(
        self,
        embeddings: Matrix,
        user_ids: np.ndarray,
        kind: str = "flat",
        *,
        center: bool = False,
        nlist: int | None = None,
        nprobe: int | None = None,
        links: int = 32,
        ef: int = 128,
        seed: int = 0,
    ) -> None:
        if kind not in ("flat", "hnsw", "ivf"):
            raise ValueError(f"index must be 'flat', 'hnsw' or 'ivf', got {kind!r}")
        options = {"nlist": nlist, "nprobe": nprobe, "links": links, "ef": ef}
        for name, value in options.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        user_ids = np.asarray(user_ids, dtype=np.int64)
        if user_ids.shape != (len(embeddings),):
            raise ValueError(
                f"user_ids must name each of the {len(embeddings)} embeddings, "
                f"got shape {user_ids.shape}"
            )
        if len(np.unique(user_ids)) != len(user_ids):
            raise ValueError("user_ids must differ, got one twice; give one embedding per user")
        self.kind = kind
        self.center = mean_row(embeddings) if center else None
        unit = unit_rows(embeddings, self.center)
        known = np.flatnonzero(unit.any(axis=1))
        if not len(known):
            raise ValueError(
                f"the index needs a user with an embedding{' off the mean' if center else ''}, "
                f"got none among {len(unit)}: no high-active user; widen the high-active group"
            )
        # In the order of ids the result does not depend on the order in which users were given.
        known = known[np.argsort(user_ids[known])]
        self.user_ids = user_ids[known]
        self._unit = unit[known]
        self._approximate = None
        if kind == "hnsw":
            self._approximate = _hnsw(self._unit, links, ef)
        elif kind == "ivf":
            self._approximate = _ivf(self._unit, nlist, nprobe, seed)

    def __len__(self) -> int:
        """Number of users that can be found."""
        return len(self.user_ids)

    def search(
        self, queries: Matrix, k: int, exclude_ids: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k users nearest to each query.

        queries: (Q, D). exclude_ids: (Q,), for each query a user who must not be found (its own).
        Returns cosines (Q, k) float32, falling, and user ids (Q, k) int64; among equal cosines
        found, the smaller id comes first. Places without a user (k too large, a query of zeros,
        an approximate search that found less) come last, with cosine -inf and id -1.
        Raises ValueError if k < 1, the width is not the index's or exclude_ids do not match.
        """
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        unit = self._unit_queries(queries)
        wanted = k
        if exclude_ids is not None:
            exclude_ids = np.asarray(exclude_ids, dtype=np.int64)
            if exclude_ids.shape != (len(unit),):
                raise ValueError(
                    f"exclude_ids must hold one id for each of the {len(unit)} queries, "
                    f"got shape {exclude_ids.shape}"
                )
            wanted = k + 1
        scores, places = self._nearest(unit, min(wanted, len(self)))
        ids = np.where(places >= 0, self.user_ids[places], -1)
        ids[~unit.any(axis=1)] = -1
        if exclude_ids is not None:
            ids[ids == exclude_ids[:, None]] = -1
        scores[ids < 0] = -np.inf
        order = np.lexsort((ids, -scores), axis=-1)[:, :k]
        gaps = ((0, 0), (0, k - order.shape[1]))
        return (
            np.pad(np.take_along_axis(scores, order, axis=1), gaps, constant_values=-np.inf),
            np.pad(np.take_along_axis(ids, order, axis=1), gaps, constant_values=-1),
        )

    def recall(self, queries: Matrix, k: int) -> float:
        """Share of the exact k nearest users that the index finds; 1 for kind "flat".

        queries: (Q, D). A found user counts if its cosine reaches the exact k-th, so users who
        tie may stand in for each other. Queries of zeros are left out; nan if there is no other.
        Raises ValueError if k < 1 or the width is not the index's.
        """
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        unit = self._unit_queries(queries)
        unit = unit[unit.any(axis=1)]
        if not len(unit):
            return float("nan")
        k = min(k, len(self))
        exact, _ = self._exact(unit, k)
        found, _ = self._nearest(unit, k)
        return float((found >= exact[:, -1:] - 1e-6).mean())

    def _unit_queries(self, queries: Matrix) -> np.ndarray:
        width = self._unit.shape[1]
        if queries.ndim != 2 or queries.shape[1] != width:
            raise ValueError(
                f"queries must be (Q, {width}) like the index, got {tuple(queries.shape)}"
            )
        return unit_rows(queries, self.center)

    def _exact(self, unit: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return faiss.knn(unit, self._unit, k, metric=faiss.METRIC_INNER_PRODUCT)

    def _nearest(self, unit: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self._approximate is None:
            return self._exact(unit, k)
        return self._approximate.search(unit, k)


def _hnsw(unit: np.ndarray, links: int, ef: int) -> faiss.Index:
    index = faiss.IndexHNSWFlat(unit.shape[1], links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = index.hnsw.efSearch = ef
    index.add(unit)
    return index


def _ivf(unit: np.ndarray, nlist: int | None, nprobe: int | None, seed: int) -> faiss.Index:
    n_users, width = unit.shape
    if nlist is None:
        nlist = max(1, min(round(4 * n_users**0.5), n_users // 39))
    nlist = min(nlist, n_users)
    quantizer = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFFlat(quantizer, width, nlist, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = min(nprobe or max(1, nlist // 8), nlist)
    index.cp.seed = seed
    index.cp.min_points_per_centroid = 1  # fewer than 39 would be warned of on stderr
    index.train(unit)
    index.add(unit)
    return index
