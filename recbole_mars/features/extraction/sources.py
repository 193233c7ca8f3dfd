"""What the items of a catalogue are described by, and how we know that it changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_mars.features.catalogue.ids import check_ids, name_few
from recbole_mars.features.catalogue.image import map_images

__all__ = ["Sources"]


@dataclass(frozen=True)
class Sources:
    """The texts, or the picture files, of a catalogue.

    ids: of n items. rows: (m,) the rows of the items that have an input. inputs: those m texts or
    files. digests: (m, 32) uint8, their SHA-256.
    """

    ids: tuple[str, ...]
    rows: np.ndarray
    inputs: list[Any]
    digests: np.ndarray

    @classmethod
    def of_texts(cls, ids: Sequence[str], texts: Sequence[str]) -> Sources:
        """Texts, one an item; a blank one is missing.

        Raises ValueError if the lengths differ, an id stands twice, or no item has a text.
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
        inputs = [texts[row] for row in rows]
        return cls(tuple(ids), np.array(rows), inputs, _stack(map(_digest_of_text, inputs)))

    @classmethod
    def of_images(
        cls, ids: Sequence[str], images: Mapping[str, Path], progress: bool = False
    ) -> Sources:
        """Picture files, of the items that have one; every file is read once for its digest.

        Raises ValueError if an id stands twice, is unknown, or no item has a picture.
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
        rows = [row for row, item in enumerate(ids) if item in images]
        inputs = [Path(images[ids[row]]) for row in rows]
        digests = map_images(_digest_of_file, inputs, progress, "reading pictures")
        return cls(tuple(ids), np.array(rows), inputs, _stack(digests))

    def fingerprint(self, made_from: Mapping[str, Any]) -> str:
        """Changes with the encoder (`made_from`), the items, their order, or any input."""
        digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode())
        for part in (json.dumps(self.ids).encode(), self.by_row.tobytes()):
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()

    @property
    def by_row(self) -> np.ndarray:
        """The digest of every item, (n, 32) uint8, zeros for one without input."""
        digests = np.zeros((len(self.ids), 32), dtype=np.uint8)
        digests[self.rows] = self.digests
        return digests


def _stack(digests: Any) -> np.ndarray:
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


def _digest_of_text(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _digest_of_file(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:  # decoding will name it; another file that is unreadable is another input
        return hashlib.sha256(f"unreadable {path}".encode()).digest()
