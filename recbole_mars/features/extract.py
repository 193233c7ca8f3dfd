"""From the texts and pictures of a catalogue to a feature store, encoded once and reused."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from recbole_mars.features.encoders import Encoder
from recbole_mars.features.ids import check_ids, name_few
from recbole_mars.features.image import load_image, map_images
from recbole_mars.features.store import (
    FORMAT,
    CorruptStoreError,
    FeatureStore,
    check_target,
    writing_lock,
)

__all__ = ["extract_images", "extract_text", "join_text"]

logger = logging.getLogger(__name__)


def join_text(columns: Sequence[Sequence[object]]) -> list[str]:
    """Join what several columns say of an item into one text, each part a sentence.

    columns: equally long, of strings; None, NaN and blank parts are skipped. An item without any
    part gets ''. Raises ValueError if the columns differ in length or hold something else.
    """
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:
        raise ValueError(f"columns must have one length, got {lengths}; give a part per item")
    texts = []
    for row, parts in enumerate(zip(*columns)):
        sentences = []
        for part in parts:
            if part is None or (isinstance(part, float) and math.isnan(part)):
                continue
            if not isinstance(part, str):
                raise ValueError(
                    f"columns must hold strings, got {part!r} in row {row}; "
                    f"convert the column to strings"
                )
            part = part.strip()
            if part:
                sentences.append(part if part[-1] in ".!?" else f"{part}.")
        texts.append(" ".join(sentences))
    return texts


def extract_text(
    ids: Sequence[str],
    texts: Sequence[str],
    encoder: Encoder[str],
    folder: str | Path,
    *,
    dtype: str = "float16",
    progress: bool = False,
) -> FeatureStore:
    """Encode the texts of a catalogue into the store in `folder`, or reuse what it holds.

    ids, texts: one an item; a blank text is a missing one. The store is reused if it is intact
    and was made by the same encoder from the same ids and texts; the log says what was done.

    Raises ValueError if no item has a text.
    """
    check_ids(ids, "ids")
    if len(texts) != len(ids):
        raise ValueError(f"texts must be one per id, got {len(texts)} for {len(ids)} ids")
    for item, text in zip(ids, texts):
        if not isinstance(text, str):
            raise ValueError(
                f"the text of item {item!r} must be a string, got {text!r}; "
                f"use '' for a missing text"
            )
    rows = [row for row, text in enumerate(texts) if text.strip()]
    if not rows:
        raise ValueError(
            f"at least one of {len(ids)} items must have a text, all are blank; "
            f"check which columns hold the items' text"
        )

    def encode() -> tuple[list[int], np.ndarray, dict[str, str]]:
        return rows, encoder.encode([texts[row] for row in rows], progress), {}

    return _reuse_or_build(Path(folder), ids, encoder, dtype, zip(ids, texts), encode)


def extract_images(
    ids: Sequence[str],
    images: Mapping[str, Path],
    encoder: Encoder[Path],
    folder: str | Path,
    *,
    max_broken_share: float = 0.05,
    dtype: str = "float16",
    progress: bool = False,
) -> FeatureStore:
    """Encode the pictures of a catalogue into the store in `folder`, or reuse what it holds.

    ids: all items. images: the picture file of each item that has one, see `find_images`. The
    store is reused if it is intact and was made by the same encoder from the same ids, file names
    and file contents; the log says what was done.

    A picture that does not decode counts as missing; the store's broken.txt and the log name it.

    Raises ValueError if no item has a picture, or if more than `max_broken_share` of the pictures
    do not decode.
    """
    check_ids(ids, "ids")
    unknown = sorted(set(images) - set(ids))
    if unknown:
        raise ValueError(f"images must be of items among ids, found {name_few(unknown)}")
    if not images:
        raise ValueError(
            f"at least one of {len(ids)} items must have a picture, none has; "
            f"check that the files are named after the item ids"
        )
    if not 0.0 <= max_broken_share <= 1.0:
        raise ValueError(f"max_broken_share must lie in 0..1, got {max_broken_share}")
    pictured = [row for row, item in enumerate(ids) if item in images]
    paths = [Path(images[ids[row]]) for row in pictured]

    def check_broken(count: int, example: str) -> None:
        if count > max_broken_share * len(paths) or count == len(paths):
            raise ValueError(
                f"at most {max_broken_share:.1%} of the pictures may be broken, and never all, "
                f"found {count} of {len(paths)}{example}; repair or remove them, "
                f"or raise max_broken_share"
            )

    def encode() -> tuple[list[int], np.ndarray, dict[str, str]]:
        complaints = map_images(_complaint, paths, progress, "checking pictures")
        broken = {ids[row]: why for row, why in zip(pictured, complaints) if why}
        check_broken(len(broken), f": {'; '.join(list(broken.values())[:3])}")
        if broken:
            logger.warning(
                "%d of %d pictures are broken and count as missing: %s",
                len(broken),
                len(paths),
                name_few(list(broken)),
            )
        whole = [k for k, why in enumerate(complaints) if not why]
        encoded = encoder.encode([paths[k] for k in whole], progress)
        return [pictured[k] for k in whole], encoded, broken

    digests = map_images(_digest, paths, progress, "reading pictures")
    source_of = {ids[row]: (path.name, d) for row, path, d in zip(pictured, paths, digests)}
    sources = ((item, source_of.get(item)) for item in ids)
    store = _reuse_or_build(Path(folder), ids, encoder, dtype, sources, encode)
    check_broken(store.manifest["broken"], f", named in {store.folder / 'broken.txt'}")
    return store


def _reuse_or_build(
    folder: Path,
    ids: Sequence[str],
    encoder: Encoder[Any],
    dtype: str,
    sources: Iterable[Any],
    encode: Callable[[], tuple[list[int], np.ndarray, dict[str, str]]],
) -> FeatureStore:
    """Open the store in `folder` if it was made from these sources, else write it.

    encode: gives the rows of the items encoded, their vectors, and which pictures are broken.
    """
    made_from = {
        "format": FORMAT,
        "encoder": encoder.name,
        "settings": json.loads(json.dumps(encoder.settings(), allow_nan=False)),
        "dtype": dtype,
    }
    fingerprint = _fingerprint(made_from, sources)
    store, _ = _open_if_made_from(folder, made_from, fingerprint)
    if store is None:
        with writing_lock(folder):  # two runs never encode the same catalogue at once
            store, why_not = _open_if_made_from(folder, made_from, fingerprint)
            if store is None:
                logger.info("building features %r in %s: %s", encoder.name, folder, why_not)
                check_target(folder, dtype)
                rows, encoded, broken = encode()
                matrix, present = _place(encoder.name, ids, rows, encoded)
                return FeatureStore.write(
                    folder,
                    ids,
                    matrix,
                    present,
                    encoder=encoder.name,
                    settings=made_from["settings"],
                    fingerprint=fingerprint,
                    dtype=dtype,
                    broken=broken,
                )
    logger.info("reused features %r in %s", encoder.name, folder)
    return store


def _fingerprint(made_from: Mapping[str, Any], sources: Iterable[Any]) -> str:
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode())
    for source in sources:
        digest.update(b"\n" + json.dumps(source).encode())  # JSON tells ('a b', '') from ('a', 'b')
    return digest.hexdigest()


def _open_if_made_from(
    folder: Path, made_from: Mapping[str, Any], fingerprint: str
) -> tuple[FeatureStore | None, str]:
    """The intact store with this fingerprint, or None and why there is none."""
    try:
        store = FeatureStore.open(folder)
    except FileNotFoundError:
        return None, "there were none"
    except CorruptStoreError as error:
        return None, str(error)
    if store.manifest["fingerprint"] == fingerprint:
        return store, ""
    for field, now in made_from.items():
        if store.manifest[field] != now:
            return None, f"{field} was {store.manifest[field]!r}, is {now!r}"
    return None, "the items or what they are described by changed"


def _place(
    name: str, ids: Sequence[str], rows: list[int], encoded: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Spread the encoded rows over the catalogue: (len(ids), D) and which rows are present."""
    encoded = np.asarray(encoded)
    if encoded.ndim != 2 or len(encoded) != len(rows) or not encoded.shape[1]:
        raise ValueError(
            f"encoder {name!r} must return shape ({len(rows)}, D) with D >= 1, got {encoded.shape}"
        )
    matrix = np.zeros((len(ids), encoded.shape[1]), dtype=np.float32)
    matrix[rows] = encoded
    present = matrix.any(axis=1)
    mute = [ids[row] for row in rows if not present[row]]
    if mute:
        logger.warning(
            "encoder %r can say nothing of %d items, they count as missing: %s",
            name,
            len(mute),
            name_few(mute),
        )
    logger.info("%d of %d items have features %r", present.sum(), len(ids), name)
    return matrix, present


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "unreadable"  # the check of the pictures will name it


def _complaint(path: Path) -> str:
    try:
        load_image(path)
    except ValueError as error:
        return str(error)
    return ""
