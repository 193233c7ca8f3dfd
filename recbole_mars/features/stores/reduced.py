"""A store of fewer dimensions, made from another one."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recbole_mars.features.stores.locking import writing_lock
from recbole_mars.features.stores.reduction import Projection
from recbole_mars.features.stores.store import CorruptStoreError, FeatureStore
from recbole_mars.features.stores.writer import StoreWriter, check_target

__all__ = ["reduce_store"]

logger = logging.getLogger(__name__)

BLOCK = 8192  # rows in memory at a time


def reduce_store(
    full: FeatureStore, folder: str | Path, width: int, *, whiten: bool, dtype: str
) -> FeatureStore:
    """Write the principal components of a store's features into `folder`, or reuse what it holds.

    width: components at most. whiten: scale each to variance 1. dtype: as `extract_text` takes
    it. The components are those of all items that have features; the store's projection.npz holds
    them, for features of items to come: `Projection.load(folder).apply(...)`.

    Raises ValueError as `Projection.fit` does, or if `folder` holds other files.
    """
    folder = Path(folder)
    check_target(folder, dtype)
    reduction = {"width": width, "whiten": whiten}
    made_from = json.dumps([full.manifest["fingerprint"], reduction, dtype])
    fingerprint = hashlib.sha256(made_from.encode()).hexdigest()
    with writing_lock(folder):
        try:
            store = FeatureStore.open(folder)
            if store.manifest["fingerprint"] == fingerprint:
                logger.info("reused features %r in %s", full.name, folder)
                return store
        except (FileNotFoundError, CorruptStoreError):
            pass
        rows = np.flatnonzero(full.present)
        projection = Projection.fit(_blocks(full, rows), width, whiten)
        with StoreWriter(full.name, folder, full.ids, projection.width, dtype) as writer:
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                writer.put(block, projection.apply(full.matrix[block]))
            return writer.commit(
                settings={**full.manifest["settings"], "reduction": reduction},
                provenance={
                    **full.manifest["provenance"],
                    "full_dimensions": full.dimensions,
                    "explained_variance": projection.explained,
                },
                fingerprint=fingerprint,
                present=full.present,
                sources=full.sources,
                truncated=full.truncated,
                broken=full.broken,
                projection=projection,
            )


def _blocks(store: FeatureStore, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BLOCK):
        yield np.asarray(store.matrix[rows[start : start + BLOCK]])
