"""What training knew of its users: their behaviours and where it placed them.

Dimension letters: U users, N behaviours of all users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recbole_mars.data import TEST, TRAIN, InteractionLog, load_columns, save_columns
from recbole_mars.serving.tokens import TokenTable
from recbole_mars.serving.users import UserRecord

__all__ = ["KnownWorld"]

_BEHAVIOURS = ("items", "liked", "opinions", "times", "trained")


@dataclass(frozen=True, eq=False)
class KnownWorld:
    """Users by internal id, the first is 1, and their behaviours, by user, then time.

    users: (U,) names. groups, folds: (U,) int8, as in a UserRecord. bounds: (U + 1,): user u has
    the behaviours bounds[u - 1] to bounds[u]. The others: (N,), as in a UserRecord.
    """

    users: TokenTable
    groups: np.ndarray
    folds: np.ndarray
    bounds: np.ndarray
    items: np.ndarray
    liked: np.ndarray
    opinions: np.ndarray
    times: np.ndarray
    trained: np.ndarray

    def record(self, user: int, keep: int, behaviours: int | None = None) -> UserRecord:
        """What is known of an internal user id.

        keep: behaviours kept at most. behaviours: tell only the first so many, for who wants to
        know what was known earlier.
        """
        begin, end = int(self.bounds[user - 1]), int(self.bounds[user])
        if behaviours is not None:
            end = min(end, begin + behaviours)
        rows = slice(max(begin, end - keep), end)
        columns: dict[str, Any] = {
            name: np.array(getattr(self, name)[rows]) for name in _BEHAVIOURS
        }
        record = replace(UserRecord(), **columns, seen=end - begin, user=user)
        fold, group = int(self.folds[user - 1]), int(self.groups[user - 1])
        return replace(record, fold=fold, group=group)

    def records(self, keep: int) -> Iterator[tuple[str, UserRecord]]:
        """Name and record of each user, in order."""
        for place, user in enumerate(self.users):
            yield user, self.record(place + 1, keep)

    def log(self, n_items: int) -> InteractionLog:
        """The behaviours as a log; those that were not trained on are its test rows."""
        lengths = np.diff(self.bounds)
        return InteractionLog(
            users=np.repeat(np.arange(1, len(lengths) + 1), lengths),
            items=self.items.astype(np.int64),
            labels=self.liked.astype(np.float32),
            times=np.asarray(self.times),
            phases=np.where(self.trained, TRAIN, TEST).astype(np.int8),
            n_users=len(self.users) + 1,
            n_items=n_items,
        )

    def save(self, folder: Path) -> None:
        """Write the files into a new folder."""
        folder.mkdir()
        self.users.save(folder / "users")
        save_columns(folder / "behaviours", {name: getattr(self, name) for name in _BEHAVIOURS}, {})
        save_columns(folder / "places", {"groups": self.groups, "folds": self.folds}, {})
        np.save(folder / "bounds.npy", self.bounds, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> KnownWorld:
        """Open what save wrote, mapped. Raises ValueError or FileNotFoundError for damage."""
        behaviours, _ = load_columns(folder / "behaviours")
        places, _ = load_columns(folder / "places")
        bounds = np.load(folder / "bounds.npy", allow_pickle=False)
        return cls(TokenTable.load(folder / "users"), bounds=bounds, **places, **behaviours)
