"""Whom and what the page offers: read once from a store, for data sets that fit into memory.

Dimension letters: I items, padding included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recbole_mars.evaluation import GROUP_NAMES
from recbole_mars.serving.model_folder import TrainedModel
from recbole_mars.serving.stores import KeyValueStore
from recbole_mars.serving.users import UNKNOWN_GROUP, UserRecord, user_key

__all__ = ["NEW_USER", "Directory", "Listed"]

NEW_USER = "new"
_USERS = user_key("")


class Listed(NamedTuple):
    """A user of the list. group: of activity, or NEW_USER. seen: behaviours ever."""

    user: str
    group: str
    seen: int


class Directory:
    """The users of a store, the least active first, and the items that they met, most met first.

    model: that the store was filled for. like, dislike: values of events that say so clearly.
    """

    def __init__(self, model: TrainedModel, store: KeyValueStore) -> None:
        self._store = store
        requests = model.settings.requests
        met = np.zeros(model.n_items, dtype=np.int64)
        listed, opinions = [], []
        for key, data in store.scan(_USERS):
            record = UserRecord.from_bytes(data)
            listed.append(Listed(key[len(_USERS) :].decode(), group_name(record), record.seen))
            np.add.at(met, record.items, 1)
            if len(record):
                opinions += [record.opinions.min(), record.opinions.max()]
        order = {name: rank for rank, name in enumerate((*GROUP_NAMES, NEW_USER))}
        self.users = sorted(listed, key=lambda each: (order[each.group], each.seen, each.user))
        ids = np.argsort(-met[1:], kind="stable")
        self.items = [model.items[place] for place in ids.tolist()]
        self.like, self.dislike = requests.like_from, requests.like_from - 1
        if requests.opinions == "value" and opinions:
            self.like = max(self.like, float(max(opinions)))
            self.dislike = min(self.dislike, float(min(opinions)))

    def find(self, text: str, group: str, limit: int) -> tuple[list[Listed], int]:
        """Users whose names begin with a text, of a group ("" for all); and how many there are."""
        found = [
            each for each in self.users if each.user.startswith(text) and group in ("", each.group)
        ]
        return found[:limit], len(found)

    def record(self, user: str) -> UserRecord | None:
        """What is known of a user now; None for a stranger. Raises StoreError."""
        data = self._store.get(user_key(user))
        return None if data is None else UserRecord.from_bytes(data)


def group_name(record: UserRecord) -> str:
    """Of the user's activity in training."""
    return NEW_USER if record.group == UNKNOWN_GROUP else GROUP_NAMES[record.group]
