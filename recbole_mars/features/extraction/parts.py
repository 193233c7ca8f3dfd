"""What an extraction has finished so far, in files that a kill leaves whole.

Next to the store that is to come stands a folder of parts. A part holds the vectors of a batch or,
once all its batches are there, of a shard. Vectors are found by the digest of what they were made
from, so parts stay of use when the catalogue changes in between.

Legend: a digest is the SHA-256 of an input, (32,) uint8; n inputs have (n, 32).
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_mars.data.files import write_whole

__all__ = ["Part", "PartsFolder", "find_digests", "merge_parts"]

logger = logging.getLogger(__name__)

# What reading a damaged archive raises.
DAMAGE = (
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    zipfile.BadZipFile,
    zlib.error,
)
NAME = re.compile(r"(?P<plan>[0-9a-f]{16})-(?P<shard>\d{7})(-(?P<batch>\d{5}))?\.npz")


@dataclass(frozen=True)
class Part:
    """Encoded inputs.

    digests: (n, 32) uint8. vectors: (n, D) float16 or float32. truncated: (n,) bool, whether the
    model could read only a part of the input. broken: (b, 32) uint8, digests of inputs that do not
    decode. reasons: why, (b,) strings.
    """

    digests: np.ndarray
    vectors: np.ndarray
    truncated: np.ndarray
    broken: np.ndarray
    reasons: np.ndarray

    def __len__(self) -> int:
        return len(self.digests) + len(self.broken)


def merge_parts(parts: Sequence[Part]) -> Part:
    """One part of several, in their order."""
    wide = max(part.vectors.shape[1] for part in parts)  # a part of broken inputs has width 0
    vectors = [part.vectors for part in parts if part.vectors.shape[1] == wide]
    return Part(
        np.concatenate([part.digests for part in parts]),
        np.concatenate(vectors),
        np.concatenate([part.truncated for part in parts]),
        np.concatenate([part.broken for part in parts]),
        np.concatenate([part.reasons for part in parts]),
    )


def find_digests(digests: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of `wanted`, (m, 32), stands among `digests`, (n, 32): (m,) integers, -1: nowhere.

    Of digests that stand twice, any.
    """
    if not len(digests):
        return np.full(len(wanted), -1)
    keys, queries = _keys(digests), _keys(wanted)
    order = np.argsort(keys, kind="stable")
    places = np.searchsorted(keys, queries, sorter=order)
    found = order[np.minimum(places, len(keys) - 1)]
    return np.where(keys[found] == queries, found, -1)


def _keys(digests: np.ndarray) -> np.ndarray:
    """Digests as byte strings, which numpy sorts."""
    return np.ascontiguousarray(digests).view("S32").ravel()


class PartsFolder:
    """The parts that were made towards the store `folder` with encoder settings of this key.

    key: hexadecimal; parts of other settings lie in other folders.
    """

    def __init__(self, folder: Path, key: str) -> None:
        folder = folder.resolve()
        self.path = folder.with_name(f".{folder.name}.parts-{key[:16]}")

    def plans(self) -> list[str]:
        """The plans that parts were made for."""
        return sorted({match["plan"] for match in self._names()})

    def has(self, plan: str, shard: int) -> bool:
        """Whether a shard is finished."""
        return self.file(plan, shard).is_file()

    def batches(self, plan: str, shard: int) -> dict[int, Part]:
        """The finished batches of an unfinished shard."""
        found = {}
        for match in self._names():
            if (match["plan"], match["shard"]) == (plan, f"{shard:07}") and match["batch"]:
                part = _load(self.path / match.string)
                if part is not None:
                    found[int(match["batch"])] = part
        return found

    def save(self, part: Part, plan: str, shard: int, batch: int | None = None) -> None:
        """Keep a batch, or a whole shard, in which case its batches go."""
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.file(plan, shard, batch)
        content = io.BytesIO()
        np.savez(content, **vars(part))
        try:
            write_whole(path, content.getbuffer(), durable=True)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(error.errno, f"cannot write, {reason}", str(path)) from error
        if batch is None:
            for leftover in self.path.glob(f"{plan}-{shard:07}-*.npz"):  # no wildcard in a plan
                leftover.unlink(missing_ok=True)

    def load(self, plan: str) -> Iterator[Part]:
        """The parts of a plan, shard by shard; damaged ones are left out."""
        for match in sorted(self._names(), key=lambda match: match.string):
            if match["plan"] == plan:
                part = _load(self.path / match.string)
                if part is not None:
                    yield part

    def digests(self, plan: str) -> np.ndarray:
        """What the parts of a plan have vectors of, (n, 32) uint8."""
        none = np.zeros((0, 32), dtype=np.uint8)
        return np.concatenate([none, *(part.digests for part in self.load(plan))])

    def file(self, plan: str, shard: int, batch: int | None = None) -> Path:
        """Where a shard or a batch is kept."""
        return self.path / f"{plan}-{shard:07}{'' if batch is None else f'-{batch:05}'}.npz"

    def remove(self, plan: str) -> None:
        """Remove the parts of a plan, and the folder with the last of them."""
        for leftover in (*self.path.glob(f"{plan}-*"), *self.path.glob(f".{plan}-*")):
            leftover.unlink(missing_ok=True)
        with suppress(OSError):  # another plan's parts are there, or the folder is not
            self.path.rmdir()

    def _names(self) -> list[re.Match[str]]:
        if not self.path.is_dir():
            return []
        matches: Iterable[re.Match[str] | None] = map(NAME.fullmatch, os.listdir(self.path))
        return [match for match in matches if match]


def _load(path: Path) -> Part | None:
    """The part in a file; a damaged file is removed, to be made again, and gives None."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Part(**{name: arrays[name] for name in Part.__dataclass_fields__})
    except FileNotFoundError:  # another process has just merged it into its shard
        return None
    except DAMAGE as error:  # archives have checksums
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # not the file, but the disk or the network
        logger.warning("%s is damaged and made again: %s", path, error)
        path.unlink(missing_ok=True)
        return None
