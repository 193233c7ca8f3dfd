"""Users by the direction of their embeddings (MARS, eq. 15), searched with FAISS.

Dimension letters: H indexed users, Q queries, D width, k neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from recbole_mars.retrieval.cosine import Matrix, mean_row, unit_blocks, unit_rows
from recbole_mars.retrieval.faiss_index import KINDS, STORAGES, empty_index, fill_index
from recbole_mars.retrieval.index_files import read_index, write_index

__all__ = ["UserIndex", "check_storage"]

_CELLS = 1 << 22  # numbers of shortlisted vectors held at once


class UserIndex:
    """The nearest users by cosine, argmax_u cos(emb_u, query) (MARS, eq. 15).

    embeddings: (H, D), possibly a memmap: it is read in parts and not kept. user_ids: (H,), all
    different, in any order. Users whose embedding is zero have none and are never found.
    kind: "flat" compares with every user; "hnsw" (a graph: Malkov & Yashunin, 2018) and "ivf"
    (clusters) trade recall for speed, which pays off from some hundred thousand users on. Several
    threads build the graph together, so two builds of it may differ in a few links.
    center: subtract the mean embedding of the indexed users from theirs and from every query.
    User embeddings are means over sequences and crowd around a common direction, which makes all
    cosines alike; what is left tells the users apart. The paper does not centre.
    storage: what a user's D numbers take: "float32" 4 D bytes, "float16" 2 D, "int8" D (scalar
    quantisation), "pq" code_bytes (product quantisation: Jegou et al., 2011; not for "hnsw", from
    256 users on). Cosines are those of what is stored: exact with "float32" only.
    rerank: with a quantised storage, look up this many users more than wanted and compare them
    anew, exactly. That takes the float32 vectors too: in memory, or in a file once loaded.
    code_bytes: for "pq"; must divide D (None: the largest that does, up to a quarter of D).
    nlist, nprobe: for "ivf", the number of clusters (None: 4 sqrt(H), but at least 39 users a
    cluster, as FAISS advises) and of those searched (None: an eighth of them).
    links, ef: for "hnsw", the links of a user, and the breadth of building and searching.
    seed: of the k-means, and of the rows that it sees of large data.

    Raises ValueError for an unknown kind or storage, an option out of range, options that do not
    go together, repeated ids, embeddings that are not finite or do not match the ids, or if there
    is no user to find.
    """

    def __init__(
        self,
        embeddings: Matrix,
        user_ids: np.ndarray,
        kind: str = "flat",
        *,
        center: bool = False,
        storage: str = "float32",
        rerank: int = 0,
        code_bytes: int | None = None,
        nlist: int | None = None,
        nprobe: int | None = None,
        links: int = 32,
        ef: int = 128,
        seed: int = 0,
    ) -> None:
        check_storage(kind, storage, rerank)
        options: dict[str, Any] = {
            "code_bytes": code_bytes,
            "nlist": nlist,
            "nprobe": nprobe,
            "links": links,
            "ef": ef,
        }
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
        middle = mean_row(embeddings) if center else None
        known = [block.any(axis=1) for block in unit_blocks(embeddings, middle)]
        places = np.flatnonzero(np.concatenate(known)) if known else np.zeros(0, dtype=np.int64)
        if not len(places):
            raise ValueError(
                f"the index needs a user with an embedding{' off the mean' if center else ''}, got "
                f"none among {len(user_ids)}: no high-active user; widen the high-active group"
            )
        # In the order of ids the result does not depend on the order in which users were given.
        places = places[np.argsort(user_ids[places])]
        n_users, width = len(places), embeddings.shape[1]

        def blocks(chosen: np.ndarray) -> Iterator[np.ndarray]:
            return unit_blocks(embeddings, middle, places[chosen])

        self.kind, self.storage, self.rerank = kind, storage, rerank
        self.center, self.user_ids = middle, user_ids[places]
        self._width = width
        self._faiss: Any = None
        self._vectors: Any = None
        if (kind, storage) != ("flat", "float32"):
            self._faiss = empty_index(kind, storage, n_users, width, **options, seed=seed)
            fill_index(self._faiss, n_users, blocks, seed)
        if self._faiss is None or rerank:
            self._vectors = np.empty((n_users, width), dtype=np.float32)
            begin = 0
            for block in blocks(np.arange(n_users)):
                self._vectors[begin : begin + len(block)] = block
                begin += len(block)

    def __len__(self) -> int:
        """Number of users that can be found."""
        return len(self.user_ids)

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder, in place of the index that it holds.

        The folder appears whole: a kill leaves the old index, none, or the new one. Processes that
        have mapped the old one keep it. Raises ValueError if the folder holds other files.
        """
        settings = {
            "kind": self.kind,
            "storage": self.storage,
            "rerank": self.rerank,
            "width": self._width,
            "users": len(self),
        }
        arrays = {"user_ids": self.user_ids, "center": self.center, "vectors": self._vectors}
        write_index(
            Path(folder), settings, {k: v for k, v in arrays.items() if v is not None}, self._faiss
        )

    @classmethod
    def load(cls, folder: str | Path, mmap: bool = True) -> UserIndex:
        """Open an index that was saved; it answers like the saved one.

        mmap: leave the vectors in their files, of which searches read what they need; processes
        on one machine share those pages. False: read all into memory.
        Raises FileNotFoundError if the folder or one of its files is not there, ValueError if
        they are not those of an index, or of one that another version wrote.
        """
        settings, arrays, approximate = read_index(Path(folder), mmap)
        index = cls.__new__(cls)
        index.kind, index.storage = settings["kind"], settings["storage"]
        index.rerank, index._width = settings["rerank"], settings["width"]
        index.user_ids, index.center = arrays["user_ids"], arrays.get("center")
        index._vectors, index._faiss = arrays.get("vectors"), approximate
        return index

    def search(
        self, queries: Matrix, k: int, exclude_ids: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k users nearest to each query.

        queries: (Q, D). exclude_ids: (Q,), for each query a user who must not be found (its own).
        Returns cosines (Q, k) float32, falling, and user ids (Q, k) int64; among equal cosines
        found, the smaller id comes first. Places without a user (k too large, a query of zeros,
        an approximate search that found less) come last, with cosine -inf and id -1. Beside the
        answer and the queries' directions, memory is bounded, with "flat" over any H too.
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

    def recall(self, queries: Matrix, k: int, embeddings: Matrix, user_ids: np.ndarray) -> float:
        """Share of the exact k nearest users that the index finds.

        queries: (Q, D). embeddings: (H, D), user_ids: (H,), what the index was made of: it may not
        hold them exactly; they are read in parts. A found user counts if its exact cosine reaches
        the exact k-th, so users who tie may stand in for each other. Queries of zeros are left
        out; nan if there is no other.
        Raises ValueError if k < 1, a width is not the index's, or a user found is not among
        user_ids.
        """
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        unit = self._unit_queries(queries)
        unit = unit[unit.any(axis=1)]
        if not len(unit):
            return float("nan")
        k = min(k, len(self))
        best = np.zeros((len(unit), 0), dtype=np.float32)
        for block in unit_blocks(embeddings, self.center):
            block = block[block.any(axis=1)]
            if len(block):
                scores, _ = _exact(unit, block, min(k, len(block)))
                best = -np.sort(-np.concatenate([best, scores], axis=1), axis=1)[:, :k]

        user_ids = np.asarray(user_ids, dtype=np.int64)
        by_id = np.argsort(user_ids)
        found = self._nearest(unit, k)[1]
        ids = self.user_ids[found]
        rows = by_id[np.searchsorted(user_ids, ids, sorter=by_id) % len(by_id)]
        if np.any(user_ids[rows] != ids):
            raise ValueError(
                "user_ids must name the users of the index, got others; give those that it was "
                "made of, with their embeddings"
            )
        hits = 0
        for query, row, threshold, is_found in zip(unit, rows, best[:, -1], found >= 0):
            cosines = unit_rows(embeddings[row], self.center) @ query
            hits += int((is_found & (cosines >= threshold - 1e-6)).sum())
        return hits / found.size

    def _unit_queries(self, queries: Matrix) -> np.ndarray:
        if queries.ndim != 2 or queries.shape[1] != self._width:
            raise ValueError(
                f"queries must be (Q, {self._width}) like the index, got {tuple(queries.shape)}"
            )
        return unit_rows(queries, self.center)

    def _nearest(self, unit: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores (Q, k) and positions among user_ids (Q, k), -1 for none; best first."""
        if self._faiss is None:
            return _exact(unit, self._vectors, k)
        if not self.rerank:
            return self._faiss.search(unit, k)
        _, places = self._faiss.search(unit, min(k + self.rerank, len(self)))
        scores = np.empty(places.shape, dtype=np.float32)
        step = max(1, _CELLS // (places.shape[1] * self._width))
        for begin in range(0, len(unit), step):
            block = slice(begin, begin + step)
            scores[block] = np.matmul(self._vectors[places[block]], unit[block, :, None])[..., 0]
        scores[places < 0] = -np.inf
        best = np.lexsort((places, -scores), axis=-1)[:, :k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(places, best, axis=1)


def check_storage(kind: str, storage: str, rerank: int) -> None:
    """Raise ValueError unless the three are known and go together; see UserIndex."""
    if kind not in KINDS:
        raise ValueError(f"index must be one of {', '.join(KINDS)}, got {kind!r}")
    if storage not in STORAGES:
        raise ValueError(f"storage must be one of {', '.join(STORAGES)}, got {storage!r}")
    if storage == "pq" and kind == "hnsw":
        raise ValueError("storage 'pq' is for index 'flat' and 'ivf', got 'hnsw'; use 'int8'")
    if rerank < 0 or (rerank and storage == "float32"):
        raise ValueError(
            f"rerank must be {'0' if storage == 'float32' else '>= 0'} with storage {storage!r}, "
            f"got {rerank}; only quantised cosines can be made more exact"
        )


def _exact(unit: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    # Works on tiles of queries x users, never on a whole score matrix, and copies no vectors.
    return faiss.knn(unit, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
