"""From parts, and what an older store holds, to a store in the order of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from recbole_mars.features.extraction.parts import Part
from recbole_mars.features.extraction.sources import Sources
from recbole_mars.features.stores.store import FeatureStore
from recbole_mars.features.stores.writer import StoreWriter

__all__ = ["assemble"]

MANY = 8  # different inputs; a few pictures may well look the same
BLOCK = 8192  # rows written at a time


def assemble(
    folder: Path,
    sources: Sources,
    parts: Iterable[Part],
    old: FeatureStore | None,
    check_broken: Callable[[list[str]], None],
    *,
    encoder: str,
    dtype: str,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    fingerprint: str,
) -> FeatureStore:
    """Write the store of `sources` into `folder`; memory holds a part or a block at a time.

    parts, old: together they hold a vector of every input, or why it is broken. check_broken: told
    why, of all that are, before anything is replaced; it may raise.

    Raises ValueError if they do not, if no input has a vector, or if all inputs have the same.
    """
    index = _RowsOf(sources)
    truncated = np.zeros(len(sources.ids), dtype=bool)
    reasons: dict[int, str] = {}
    seen = np.zeros(len(sources.ids), dtype=bool)
    parts = iter(parts)
    first = list(_until_vectors(parts))
    dimensions = old.dimensions if old is not None else 0
    dimensions = max([dimensions, *(part.vectors.shape[1] for part in first)])
    with StoreWriter(encoder, folder, sources.ids, max(1, dimensions), dtype) as writer:
        if old is not None:
            usable = np.flatnonzero(old.present)
            _, once = np.unique(old.sources[usable].view("S32").ravel(), return_index=True)
            usable = usable[np.sort(once)]  # rows made from one input are one
            for rows, which in index.find(old.sources[usable]):
                writer.put_from(rows, old, usable[which])
                truncated[rows] = old.truncated[usable[which]]
                seen[rows] = True
        for part in chain(first, parts):
            for rows, which in index.find(part.digests):
                writer.put(rows, part.vectors[which])
                truncated[rows] = part.truncated[which]
                seen[rows] = True
            for rows, which in index.find(part.broken):
                reasons.update(zip(rows.tolist(), part.reasons[which].tolist()))
                seen[rows] = True
        unseen = sources.rows[~seen[sources.rows]]
        if len(unseen):
            raise ValueError(
                f"the parts of {folder} lack {len(unseen)} inputs, that of item "
                f"{sources.ids[unseen[0]]!r} first: a file was damaged or removed; "
                f"run the extraction again, it encodes what is missing"
            )
        broken = {
            sources.ids[row]: reasons[row]
            for row in sorted(reasons)
            if not writer.present[row]  # an earlier run may have failed where this did not
        }
        check_broken(list(broken.values()))
        _check_sense(encoder, writer, len(np.unique(sources.digests.view("S32"))))
        return writer.commit(
            settings=settings,
            provenance=provenance,
            fingerprint=fingerprint,
            sources=sources.by_row,
            truncated=truncated,
            broken=broken,
        )


def _check_sense(encoder: str, writer: StoreWriter, different: int) -> None:
    """Refuse a store that can be of no use, whatever the reason."""
    if not writer.present.any():
        raise ValueError(
            f"encoder {encoder!r} must give vectors, found none for {different} inputs; see that "
            f"the model is one for such inputs, and whole"
        )
    if different >= MANY and not writer.varied:
        raise ValueError(
            f"encoder {encoder!r} must tell inputs apart, found one and the same vector for all of "
            f"{different}; see that the model is one for such inputs, and whole"
        )


def _until_vectors(parts: Iterable[Part]) -> Iterable[Part]:
    """The first parts, up to one that tells how wide the vectors are."""
    for part in parts:
        yield part
        if part.vectors.shape[1]:
            return


class _RowsOf:
    """Finds the rows of the catalogue that an input belongs to; several may share one."""

    def __init__(self, sources: Sources) -> None:
        keys = sources.digests.view("S32").ravel()
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows = keys[order], sources.rows[order]

    def find(self, digests: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows made from these digests, and which digest it is for each, BLOCK rows at a time."""
        wanted = np.ascontiguousarray(digests).view("S32").ravel()
        start = np.searchsorted(self._keys, wanted, "left")
        count = np.searchsorted(self._keys, wanted, "right") - start
        which = np.repeat(np.arange(len(wanted)), count)
        within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
        rows = self._rows[start[which] + within]
        for begin in range(0, len(rows), BLOCK):
            yield rows[begin : begin + BLOCK], which[begin : begin + BLOCK]
