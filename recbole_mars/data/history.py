"""Histories as row numbers: built on demand, never written out.

RecBole stores a padded copy of every history, interactions x length numbers per field. Here a
history is the stretch of the log that ends before its target, so nothing is stored per target
and memory grows with the number of interactions only.

Dimension letters: B targets, L longest history in the batch.
"""

from __future__ import annotations

import numpy as np

from recbole_mars.data.schema import InteractionLog

__all__ = ["HistoryIndex", "look_back", "pad_ragged", "windows"]


def pad_ragged(values: np.ndarray | None, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Gather the stretches values[start : start + length] into one padded array.

    values: (M,) int64; None stands for 0, 1, 2, ... starts, lengths: (B,) int64.
    Returns (B, max(lengths)) int64, filled on the right with -1.
    """
    width = int(lengths.max()) if len(lengths) else 0
    steps = np.arange(width, dtype=np.int64)
    real = steps < lengths[:, None]
    places = starts[:, None] + steps
    if values is not None:
        places = values.take(places, mode="clip") if len(values) else places
    places[~real] = -1
    return places


class HistoryIndex:
    """Rows of the behaviours before a target, most recent last.

    kind "all" takes every earlier behaviour of the user, "positive" only those with label 1; a
    sampled negative is in no history.

    Raises ValueError for an unknown kind.
    """

    def __init__(self, log: InteractionLog, kind: str = "all") -> None:
        if kind not in ("all", "positive"):
            raise ValueError(f"history must be 'all' or 'positive', got {kind!r}")
        self.kind = kind
        self._offsets = log.offsets
        self._users = log.users
        self._members: np.ndarray | None = None  # None: every row is one, and its own number
        self._before: np.ndarray = self._offsets[:0]
        self._user_start = self._offsets  # first member of each user
        member = None if log.drawn is None else ~log.drawn
        if kind == "positive":
            member = log.labels > 0
        if member is not None:
            self._members = np.flatnonzero(member)
            self._before = np.cumsum(member) - member  # members before each row
            padded = np.append(self._before, len(self._members))
            self._user_start = padded[self._offsets]

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Number of behaviours before each row, not cut. rows: (B,). Returns (B,) int64."""
        rows = np.asarray(rows, dtype=np.int64)
        before = rows if self._members is None else self._before[rows]
        return before - self._user_start[self._users[rows]]

    def rows_before(self, rows: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
        """The latest max_length behaviours before each row.

        rows: (B,) int64. Returns the histories (B, L) int64 as rows of the log, oldest first,
        padded on the right with -1, and their lengths (B,) int64; L is the longest length.
        """
        if max_length < 1:
            raise ValueError(f"max_length must be >= 1, got {max_length}")
        rows = np.asarray(rows, dtype=np.int64)
        lengths = np.minimum(self.lengths(rows), max_length)
        if self._members is None:
            return pad_ragged(None, rows - lengths, lengths), lengths
        return pad_ragged(self._members, self._before[rows] - lengths, lengths), lengths


def windows(
    offsets: np.ndarray, targets: np.ndarray, length: int, context: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cover target rows by stretches of the log, for models that score a whole stretch at once.

    offsets: (U + 1,) row offsets of the users. targets: (N,) bool, rows that need a score.
    length: rows in a stretch at most. context: rows before a stretch's first counted target
    that it holds for context, where the user has them; 0 <= context < length.

    Returns starts, ends and firsts, each (W,) int64: stretch w is the rows starts[w]:ends[w], of
    one user, and the targets counted in it are those at or after row firsts[w]. Every target is
    counted in exactly one stretch. Raises ValueError if context is out of range.
    """
    _check_context(length, context)
    found: list[tuple[int, int, int]] = []
    rows = np.flatnonzero(targets)
    users = np.searchsorted(offsets, rows, side="right") - 1
    boundaries = np.flatnonzero(np.diff(users)) + 1
    for wanted in np.split(rows, boundaries) if len(rows) else []:
        begin = int(offsets[np.searchsorted(offsets, wanted[0], side="right") - 1])
        done = 0
        while done < len(wanted):
            first = int(wanted[done])
            start = max(begin, first - context)
            done += int(np.searchsorted(wanted[done:], start + length))
            found.append((start, int(wanted[done - 1]) + 1, first))
    table = np.array(found, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def look_back(position: int, length: int, context: int) -> int:
    """Rows before a user's row that its stretch of `windows` holds, if all rows are targets.

    position: of the row among the user's, from 0. length, context: as in `windows`. Raises
    ValueError if context is out of range.
    """
    _check_context(length, context)
    if position < length:
        return position
    return context + (position - length) % (length - context)


def _check_context(length: int, context: int) -> None:
    if not 0 <= context < length:
        raise ValueError(f"context must lie in 0..length-1, got {context} for length {length}")
