"""Names of users or items on disk, found by number and by name without a dictionary in memory.

Dimension letters: T tokens.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

__all__ = ["TokenTable"]


class TokenTable(Sequence[str]):
    """T different tokens in a given order.

    A token costs its UTF-8 bytes and 24 more, all of which may stay on the disk: a lookup by name
    is a binary search among 64-bit digests, whose hits are compared in full.

    Raises ValueError for a token that occurs twice.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        words = [token.encode() for token in tokens]
        ends = np.cumsum([len(word) for word in words], dtype=np.int64)
        self._text: bytes | mmap.mmap = b"".join(words)
        self._bounds = np.concatenate([np.zeros(1, dtype=np.int64), ends])
        codes = np.array([_code(word) for word in words], dtype=np.uint64)
        self._order = np.argsort(codes, kind="stable").astype(np.int64)
        self._codes = codes[self._order]
        for first in np.flatnonzero(self._codes[1:] == self._codes[:-1]).tolist():
            one, other = self[int(self._order[first])], self[int(self._order[first + 1])]
            if one == other:
                raise ValueError(f"tokens must differ, got {one!r} twice")

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> str:  # type: ignore[override]
        if not 0 <= place < len(self):
            raise IndexError(f"place must lie in 0..{len(self) - 1}, got {place}")
        return self._text[self._bounds[place] : self._bounds[place + 1]].decode()

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    def find(self, token: str) -> int:
        """Its place, -1 for a token that is not here."""
        word = token.encode()
        code = np.uint64(_code(word))
        at = int(np.searchsorted(self._codes, code))
        while at < len(self) and self._codes[at] == code:
            place = int(self._order[at])
            if self._text[self._bounds[place] : self._bounds[place + 1]] == word:
                return place
            at += 1
        return -1

    def find_many(self, tokens: Sequence[str]) -> np.ndarray:
        """Their places, (n,) int64, -1 for those that are not here. Costs less than find."""
        if not len(self) or not tokens:
            return np.full(len(tokens), -1, dtype=np.int64)
        words = [token.encode() for token in tokens]
        codes = np.array([_code(word) for word in words], dtype=np.uint64)
        at = np.minimum(np.searchsorted(self._codes, codes), len(self) - 1)
        places = np.where(self._codes[at] == codes, self._order[at], -1)
        bounds = zip(self._bounds[places].tolist(), self._bounds[places + 1].tolist())
        for number, (word, (start, end)) in enumerate(zip(words, bounds)):
            if places[number] >= 0 and self._text[start:end] != word:
                places[number] = self.find(tokens[number])  # of two with one digest
        return places

    def save(self, folder: Path) -> None:
        """Write the files into a new folder."""
        folder.mkdir()
        (folder / "text").write_bytes(self._text)
        for name in ("bounds", "order", "codes"):
            np.save(folder / f"{name}.npy", getattr(self, f"_{name}"), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> TokenTable:
        """Open what save wrote, mapped. Raises FileNotFoundError for a missing file."""
        table = cls.__new__(cls)
        for name in ("bounds", "order", "codes"):
            array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            setattr(table, f"_{name}", np.asarray(array))  # of memmap's own type all is slower
        with open(folder / "text", "rb") as file:
            empty = table._bounds[-1] == 0  # which cannot be mapped
            table._text = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return table


def _code(word: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
