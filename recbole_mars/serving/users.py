"""What is kept of a user: past behaviours, and where training and stage 1 place the user.

Dimension letters: n behaviours, D width of a multimodal embedding.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

__all__ = ["RUNNER_KEY", "UNKNOWN_GROUP", "UserRecord", "embedding_key", "user_key"]

UNKNOWN_GROUP = -1
RUNNER_KEY = b"m/runner"  # where in a store its runner tells what it has done, and for which model
_MAGIC = b"RMU3"
_START = struct.Struct("<4sI")  # the magic, and CRC32 of all that follows
_HEAD = struct.Struct("<iibIIHI")
_COLUMNS = (
    ("items", np.int32),
    ("liked", np.bool_),
    ("opinions", np.float32),
    ("times", np.float64),
    ("trained", np.bool_),
)


def user_key(token: str) -> bytes:
    """Where a user's record is in a store."""
    return b"u/" + token.encode()


def embedding_key(token: str) -> bytes:
    """Where an item's multimodal embedding is in a store: float32, little endian."""
    return b"i/" + token.encode()


@dataclass(frozen=True, eq=False)
class UserRecord:
    """Behaviours by time, oldest first, the latest of them; all columns (n,).

    items: internal ids, int32. liked: bool. opinions: what agreement reads, labels or ratings,
    float32. times: float64. trained: whether the model's training knew them, bool. seen: behaviours
    ever, those no longer kept included.
    user: internal id, 0 for one whom training did not know. fold: for agreement. group:
    of activity in training, see evaluation.activity; UNKNOWN_GROUP for a new user. space: name of
    the embedding's space, "" for no embedding. embedding: (D,) float32, emb_user^mm after all
    behaviours (MARS, eq. 13).
    """

    items: np.ndarray = field(default_factory=partial(np.zeros, 0, np.int32))
    liked: np.ndarray = field(default_factory=partial(np.zeros, 0, np.bool_))
    opinions: np.ndarray = field(default_factory=partial(np.zeros, 0, np.float32))
    times: np.ndarray = field(default_factory=partial(np.zeros, 0, np.float64))
    trained: np.ndarray = field(default_factory=partial(np.zeros, 0, np.bool_))
    seen: int = 0
    user: int = 0
    fold: int = 0
    group: int = UNKNOWN_GROUP
    space: str = ""
    embedding: np.ndarray = field(default_factory=partial(np.zeros, 0, np.float32))

    def __len__(self) -> int:
        return len(self.items)

    def with_behaviours(
        self,
        items: np.ndarray,
        liked: np.ndarray,
        opinions: np.ndarray,
        times: np.ndarray,
        keep: int,
    ) -> tuple[UserRecord, int]:
        """The record with more behaviours, and how many of these were new.

        A behaviour whose item and time are here already is the same one, told again. So are those
        of the time of the oldest kept or before, once some are no longer kept: they cannot be told
        apart from those, and a new one of just that time is lost. So whatever is told again changes
        nothing. Of equal times those told first stand first; where more than keep are told at once,
        the last told of them are kept. How behaviours were cut into calls does not show but in
        which of the oldest time are kept and counted. keep: behaviours kept at most. The embedding
        stays only if nothing was new. Raises ValueError if keep < 1.
        """
        if keep < 1:
            raise ValueError(f"keep must be >= 1, got {keep}")
        here = set(zip(self.items.tolist(), self.times.tolist()))
        oldest = self.times[0] if self.seen > len(self) else -np.inf
        new = []
        for place, behaviour in enumerate(
            zip(np.asarray(items).tolist(), np.asarray(times).tolist())
        ):
            if behaviour not in here and behaviour[1] > oldest:
                here.add(behaviour)
                new.append(place)
        if not new:
            return self, 0
        columns = {}
        untrained = np.zeros(len(times), dtype=bool)
        for (name, kind), more in zip(_COLUMNS, (items, liked, opinions, times, untrained)):
            columns[name] = np.concatenate([getattr(self, name), np.asarray(more)[new]])
            columns[name] = columns[name].astype(kind)
        order = np.argsort(columns["times"], kind="stable")[-keep:]
        columns = {name: column[order] for name, column in columns.items()}
        nothing = np.zeros(0, dtype=np.float32)
        seen = self.seen + len(new)
        return replace(self, **columns, seen=seen, space="", embedding=nothing), len(new)

    def chosen(self, places: np.ndarray) -> UserRecord:
        """The record with only some of the behaviours, and no embedding. places: ascending."""
        columns = {name: getattr(self, name)[places] for name, _ in _COLUMNS}
        return replace(self, **columns, space="", embedding=np.zeros(0, dtype=np.float32))

    def to_bytes(self) -> bytes:
        """A form of its own, without pickle: checksum, head, space, columns, embedding."""
        space = self.space.encode()
        head = _HEAD.pack(
            self.user,
            self.fold,
            self.group,
            self.seen,
            len(self),
            len(space),
            len(self.embedding),
        )
        columns = [np.ascontiguousarray(getattr(self, name), kind) for name, kind in _COLUMNS]
        columns.append(np.ascontiguousarray(self.embedding, np.float32))
        rest = b"".join([head, space, *(column.tobytes() for column in columns)])
        return _START.pack(_MAGIC, zlib.crc32(rest)) + rest

    @classmethod
    def from_bytes(cls, data: bytes) -> UserRecord:
        """What to_bytes wrote; raises ValueError for anything else."""
        begin = _START.size + _HEAD.size
        if len(data) < begin or data[:4] != _MAGIC:
            raise ValueError("these bytes are no user record of this version; build the store anew")
        if _START.unpack_from(data)[1] != zlib.crc32(memoryview(data)[_START.size :]):
            raise ValueError("a user record is damaged: its checksum is another; mend the store")
        user, fold, group, seen, n, space_size, width = _HEAD.unpack_from(data, _START.size)
        place = begin + space_size
        per_behaviour = sum(np.dtype(kind).itemsize for _, kind in _COLUMNS)
        if len(data) != place + n * per_behaviour + 4 * width:
            raise ValueError(f"a user record of {n} behaviours is cut off at {len(data)} bytes")
        space = data[begin:place].decode()
        columns = {}
        for name, kind in (*_COLUMNS, ("embedding", np.float32)):
            count = width if name == "embedding" else n
            columns[name] = np.frombuffer(data, kind, count, place)
            place += columns[name].nbytes
        return cls(**columns, seen=seen, user=user, fold=fold, group=group, space=space)
