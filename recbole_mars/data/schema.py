"""The interaction log: every behaviour of every user, one flat column per field."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["TEST", "TRAIN", "VALID", "InteractionLog"]

TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True)
class InteractionLog:
    """Interactions sorted by user, then by time; a *row* is a position in these columns.

    Everything that talks about behaviours (histories, donors, targets) names them by row, so a
    history costs one integer per behaviour and any column can be gathered for it.

    users: (N,) int64, internal ids; 0 is padding and never occurs.
    items: (N,) int64, internal ids; 0 is padding and never occurs.
    labels: (N,) float32, 1 = click (liked), 0 = no click.
    times: (N,) float64, any unit, non-decreasing within a user.
    phases: (N,) int8, TRAIN, VALID or TEST: the split that the row, as a target, belongs to.
    n_users, n_items: number of internal ids, padding included.
    drawn: (N,) bool, rows of label 0 that are no behaviours but sampled negatives; None: no row.

    Raises ValueError if the columns differ in length or the rows are not in order.
    """

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    times: np.ndarray
    phases: np.ndarray
    n_users: int
    n_items: int
    drawn: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {
            name: len(getattr(self, name))
            for name in ("users", "items", "labels", "times", "phases")
        }
        if self.drawn is not None:
            lengths["drawn"] = len(self.drawn)
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns must have one length, got {lengths}")
        same_user = self.users[1:] == self.users[:-1]
        if np.any(self.users[1:] < self.users[:-1]) or np.any(
            same_user & (self.times[1:] < self.times[:-1])
        ):
            raise ValueError("rows must be sorted by user, then by time; sort them before")
        if len(self) and (self.users.min() < 1 or self.users.max() >= self.n_users):
            raise ValueError(f"users must lie in 1..{self.n_users - 1}")
        if len(self) and (self.items.min() < 1 or self.items.max() >= self.n_items):
            raise ValueError(f"items must lie in 1..{self.n_items - 1}")
        offsets = np.zeros(self.n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.users, minlength=self.n_users), out=offsets[1:])
        object.__setattr__(self, "_offsets", offsets)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def offsets(self) -> np.ndarray:
        """(n_users + 1,) int64: the rows of user u are offsets[u] to offsets[u + 1]."""
        return self._offsets  # type: ignore[attr-defined]

    def fingerprint(self) -> str:
        """Hash of all columns: equal for equal interactions and splits."""
        digest = hashlib.sha256(f"{self.n_users} {self.n_items}".encode())
        drawn = [] if self.drawn is None else [self.drawn]
        for column in (self.users, self.items, self.labels, self.times, self.phases, *drawn):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def behaviours(self) -> InteractionLog:
        """The log without sampled negatives."""
        if self.drawn is None:
            return self
        names = ("users", "items", "labels", "times", "phases")
        done = {name: getattr(self, name)[~self.drawn] for name in names}
        return replace(self, **done, drawn=None)

    def behaviour_rows(self) -> np.ndarray:
        """Rows of this log that behaviours() keeps, ascending int64."""
        return np.arange(len(self)) if self.drawn is None else np.flatnonzero(~self.drawn)

    def behaviour_places(self) -> np.ndarray:
        """Where each row stands in behaviours(), a sampled negative before the next, (N,) int64."""
        if self.drawn is None:
            return np.arange(len(self))
        return np.cumsum(~self.drawn) - ~self.drawn

    def training_behaviours(self) -> np.ndarray:
        """(N,) bool: the rows of the training split that somebody did."""
        training: np.ndarray = self.phases == TRAIN
        return training if self.drawn is None else training & ~self.drawn

    def training_counts(self) -> np.ndarray:
        """Number of training behaviours of every user id, (n_users,) int64."""
        return np.bincount(self.users[self.training_behaviours()], minlength=self.n_users)
