"""FAISS indexes over unit vectors: how they are shaped, trained and filled.

Dimension letters: H indexed users, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import faiss
import numpy as np

__all__ = ["KINDS", "STORAGES", "empty_index", "fill_index"]

KINDS = ("flat", "hnsw", "ivf")
STORAGES = ("float32", "float16", "int8", "pq")
_CODEWORDS = 256  # what a byte of a product quantiser tells apart
_TRAINING = 100_000  # rows that the k-means and the quantisers see at least, if there are as many
_TRAINING_PER_LIST = 64


def empty_index(
    kind: str,
    storage: str,
    n_users: int,
    width: int,
    *,
    code_bytes: int | None,
    nlist: int | None,
    nprobe: int | None,
    links: int,
    ef: int,
    seed: int,
) -> Any:
    """An index by inner product for n_users of this width; for the options see UserIndex.

    Raises ValueError if code_bytes does not divide the width or n_users are too few for "pq".
    """
    index: Any
    codes = {"float32": "Flat", "float16": "SQfp16", "int8": "SQ8"}.get(storage)
    if codes is None:
        # "np": without polysemous codes; they take minutes, and no search here uses them.
        codes = f"PQ{_code_bytes(code_bytes, n_users, width)}np"
    if kind == "ivf":
        if nlist is None:
            nlist = max(1, min(round(4 * n_users**0.5), n_users // 39))
        nlist = min(nlist, n_users)
        index = faiss.index_factory(width, f"IVF{nlist},{codes}", faiss.METRIC_INNER_PRODUCT)
        index.nprobe = min(nprobe or max(1, nlist // 8), nlist)
        index.cp.seed = seed
        index.cp.min_points_per_centroid = 1  # fewer than 39 would be warned of on stderr
    elif kind == "hnsw":
        index = faiss.index_factory(width, f"HNSW{links},{codes}", faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = index.hnsw.efSearch = ef
    else:
        index = faiss.index_factory(width, codes, faiss.METRIC_INNER_PRODUCT)
    if storage == "pq":
        index.pq.cp.seed = seed
        index.pq.cp.min_points_per_centroid = 1
    return index


def fill_index(
    index: Any,
    n_users: int,
    blocks: Callable[[np.ndarray], Iterable[np.ndarray]],
    seed: int,
) -> None:
    """Train the index on a sample of the users, then add them all, a part after the other.

    blocks: from positions among the users (n,) to blocks of their unit vectors, n rows in all.
    """
    everyone = np.arange(n_users)
    if not index.is_trained:
        sample = max(_TRAINING, _TRAINING_PER_LIST * getattr(index, "nlist", 0))
        chosen = everyone
        if n_users > sample:
            chosen = np.random.default_rng(seed).choice(n_users, sample, replace=False)
            chosen.sort()
        index.train(np.concatenate(list(blocks(chosen))))
    for block in blocks(everyone):
        index.add(block)


def _code_bytes(code_bytes: int | None, n_users: int, width: int) -> int:
    if n_users < _CODEWORDS:
        raise ValueError(
            f"storage 'pq' needs at least {_CODEWORDS} users to learn from, got {n_users}; "
            "use 'int8'"
        )
    fitting = [n for n in range(1, width + 1) if width % n == 0]
    if code_bytes is None:
        return max(n for n in fitting if n <= max(1, width // 4))
    if code_bytes not in fitting:
        raise ValueError(
            f"code_bytes must divide the width {width}, got {code_bytes}; "
            f"use one of {', '.join(map(str, fitting))}"
        )
    return code_bytes
