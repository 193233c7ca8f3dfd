"""From events to samples, and to the users' records behind them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from recbole_mars.serving.events import Event
from recbole_mars.serving.model_folder import TrainedModel
from recbole_mars.serving.scoring import Prepared, Request, Scorer
from recbole_mars.serving.stores import KeyValueStore
from recbole_mars.serving.users import UserRecord, user_key
from recbole_mars.serving.world import KnownWorld

__all__ = ["Behaviours", "Sample", "prepare_samples"]

_logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """What is learnt from an event: user and past as they were, the item, and if it was liked."""

    user: str
    past: UserRecord
    item: int
    time: float
    liked: bool


class Behaviours:
    """Users' records, to which events are added; those of a batch count once it is trained on.

    A user whom the store does not have is as training knew him. skipped: events that gave no
    sample, by kind.
    """

    def __init__(self, model: TrainedModel, world: KnownWorld | None, store: KeyValueStore) -> None:
        self._model, self._world, self._store = model, world, store
        self._changed: dict[str, UserRecord] = {}  # since the last save
        self._waiting: dict[str, UserRecord] = {}  # by events of a batch that is not full
        self._skipped: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()

    def take(self, offset: str, event: Event) -> Sample | None:
        """Add an event; None if it is not new, or nothing can be learnt from it."""
        item = self._model.items.find(event.item) + 1
        requests = self._model.settings.requests
        problem = None
        if not item:
            problem = "unknown item"
        elif not self._model.plausible([event.value])[0]:
            problem = "value out of range"
        if problem is not None:
            self._skip(problem, offset)
            return None
        liked, opinions = requests.read(np.array([event.value]))
        record = self._record(event.user)
        sample = Sample(event.user, _until(record, event.time), item, event.time, bool(liked[0]))
        if not requests.remembered(liked)[0]:
            return sample
        times = np.array([event.time])
        after, new = record.with_behaviours(np.array([item]), liked, opinions, times, requests.kept)
        if not new:
            self._skipped["told before"] += 1
            return None
        self._waiting[event.user] = after
        return sample

    def settle(self) -> None:
        """The batch has been trained on: its events count."""
        self._changed.update(self._waiting)
        self._waiting = {}
        self.skipped = self._skipped.copy()

    def changes(self) -> dict[bytes, bytes]:
        """Records that have changed since `saved`, as they are stored."""
        return {user_key(user): record.to_bytes() for user, record in self._changed.items()}

    def saved(self) -> None:
        """The changes are in the store."""
        self._changed = {}

    def restore(self, skipped: Counter[str]) -> None:
        """Go on counting."""
        self.skipped, self._skipped = skipped.copy(), skipped.copy()

    def _skip(self, kind: str, offset: str) -> None:
        if kind not in self._skipped:
            _logger.warning(
                "Skipped the event at offset %s: %s; others of its kind are counted only",
                offset,
                kind,
            )
        self._skipped[kind] += 1

    def _record(self, user: str) -> UserRecord:
        for known in (self._waiting, self._changed):
            if user in known:
                return known[user]
        data = self._store.get(user_key(user))
        if data is not None:
            return UserRecord.from_bytes(data)
        place = -1 if self._world is None else self._world.users.find(user)
        if self._world is None or place < 0:
            return UserRecord()
        return self._world.record(place + 1, self._model.settings.requests.kept)


def prepare_samples(scorer: Scorer, samples: Sequence[Sample]) -> list[Prepared]:
    """What the service would have made of each: its item asked for, at its time.

    Multimodal embeddings of users are computed together, not one by one.
    """
    pasts = [sample.past for sample in samples]
    asking = [
        place
        for place, past in enumerate(pasts)
        if scorer.donors is not None and len(past) and scorer.is_low_active(past)
    ]
    embeddings = scorer.embed([pasts[place] for place in asking])
    for place, embedding in zip(asking, embeddings):
        pasts[place] = replace(pasts[place], space=scorer.space, embedding=embedding)
    return [
        scorer.prepare(Request(sample.user, past, np.array([sample.item]), sample.time))
        for sample, past in zip(samples, pasts)
    ]


def _until(record: UserRecord, time: float) -> UserRecord:
    """The record up to a time, for an event that came late; all of it for others."""
    place = int(np.searchsorted(record.times, time, side="right"))
    late = len(record) - place
    if not late:
        return record
    return replace(record.chosen(np.arange(place)), seen=record.seen - late)
