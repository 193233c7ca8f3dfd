"""From a question to an answer by the current snapshot, whatever else fails; no HTTP.

Dimension letters: C candidates.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from recbole_mars.serving.folders import MANIFEST
from recbole_mars.serving.model_folder import TrainedModel
from recbole_mars.serving.scoring import Prepared, Request, Scorer
from recbole_mars.serving.service.answers import Answer, Question, Recent, explain
from recbole_mars.serving.service.store_reader import StoreReader
from recbole_mars.serving.snapshots import NoSnapshot, Snapshot, Snapshots
from recbole_mars.serving.stores import KeyValueStore, StoreError
from recbole_mars.serving.users import RUNNER_KEY, UserRecord, user_key

__all__ = ["Engine", "Loaded", "Posed"]

_RETRY_SECONDS = 60.0
_logger = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """A snapshot in use.

    model: what its numbering of users and items is called, as a store's runner calls it too; None
    if the publisher did not say. published: when, in seconds since 1970.
    """

    name: str
    model: str | None
    published: float
    scorer: Scorer


@dataclass(frozen=True, eq=False)
class Posed:
    """A question that only has to be scored, all by one snapshot.

    prepared: with the borrowed behaviours and, where it is to be explained, without them. known:
    (C,) bool. The others: as in an Answer.
    """

    question: Question
    loaded: Loaded
    prepared: tuple[Prepared, ...]
    known: np.ndarray
    user_known: bool | None
    recent_ignored: int
    degraded: tuple[str, ...]


class Engine:
    """Answers by the newest snapshot, which it exchanges while it answers.

    pose is for many threads at once; score lets them in one by one.
    """

    def __init__(self, snapshots: Snapshots, store: KeyValueStore) -> None:
        self.snapshots = snapshots
        self._store = StoreReader(store)
        self._loaded: Loaded | None = None
        self._refused: tuple[str | None, float] = (None, 0.0)  # a version, and when it was
        # What the store says of itself, and what that was seen to fit.
        self._fitting: tuple[bytes | None, Loaded | None] = (None, None)
        self._failing: set[str] = set()
        self._waits = False  # for a first snapshot, which was said
        self._reloading = threading.Lock()
        self._scoring = threading.Lock()

    @property
    def loaded(self) -> Loaded | None:
        """What answers now; None until a snapshot was loaded."""
        return self._loaded

    def reload_if_new(self) -> str:
        """Load the current snapshot, if it is another one, beside the one in use, and swap.

        Returns "none" (nothing is published), "same", "loaded", or "refused": the new version is
        damaged or cannot be read or used, which is logged, and the one in use stays. A version
        that was refused for what it is is tried again after a minute: it may have been mended.
        """
        with self._reloading:
            name: str | None = None
            try:
                name = self.snapshots.current_name()
                if self._loaded is not None and name == self._loaded.name:
                    return "same"
                refused, at = self._refused
                if name == refused and time.monotonic() - at < _RETRY_SECONDS:
                    return "same"
                snapshot = self.snapshots.current()
                self._loaded = _load(snapshot)
            except NoSnapshot as error:
                if self._loaded is None and not self._waits:
                    _logger.warning("waiting for a first snapshot: %s", error)
                self._waits = True
                return "none"
            except Exception as error:
                # A version does not change by itself; what the system refused may work at once.
                self._refused = (None if isinstance(error, OSError) else name, time.monotonic())
                stays = "none is in use" if self._loaded is None else "the one in use stays"
                named = self.snapshots.root / (name or "")
                _logger.error("snapshot %s is refused, %s: %r", named, stays, error)
                return "refused"
            _logger.info("snapshot %s is in use", snapshot.name)
            return "loaded"

    def answer(self, question: Question) -> Answer:
        """Pose, score and reply; see there."""
        posed = self.pose(question)
        return self.reply(posed, self.score([posed])[0])

    def pose(self, question: Question) -> Posed:
        """Look the user up, add what is recent, and borrow, all by one snapshot.

        A store or an augmentation that fails is left out. Raises RuntimeError without a snapshot.
        """
        loaded = self._loaded
        if loaded is None:
            raise RuntimeError("no snapshot is loaded; publish one and call reload_if_new")
        model, degraded = loaded.scorer.model, []
        record: UserRecord | None = None
        try:
            record = self._look_up(question.user, loaded)
            user_known: bool | None = record is not None
            self._note("store")
        except StoreError as error:
            user_known = None
            degraded.append("store")
            self._note("store", error)
        record, recent_ignored = _with_recent(record or UserRecord(), question.recent, model)
        candidates = _ids(model, question.candidates)
        request = Request(
            question.user,
            record,
            candidates,
            np.inf if question.time is None else question.time,
            # A history of which a part is missing would borrow from the wrong donors.
            question.augment and not degraded,
        )
        try:
            prepared = loaded.scorer.prepare(request)
            if request.augment:
                self._note("augmentation")
        except Exception as error:
            if not request.augment:
                raise
            prepared = loaded.scorer.prepare(replace(request, augment=False))
            degraded.append("augmentation")
            self._note("augmentation", error)
        both = (prepared, _without_borrowed(prepared)) if question.explain else (prepared,)
        return Posed(
            question, loaded, both, candidates > 0, user_known, recent_ignored, tuple(degraded)
        )

    def score(self, posed: Sequence[Posed]) -> list[list[np.ndarray]]:
        """Probabilities of the candidates, for each question one (C,) a prepared history."""
        found: list[list[np.ndarray]] = [[] for _ in posed]
        scorers = {id(each.loaded.scorer): each.loaded.scorer for each in posed}
        for scorer in scorers.values():
            rows = [row for row, each in enumerate(posed) if each.loaded.scorer is scorer]
            owners = [row for row in rows for _ in posed[row].prepared]
            with self._scoring:
                scores = scorer.score([one for row in rows for one in posed[row].prepared])
            for row, probabilities in zip(owners, scores):
                found[row].append(probabilities)
        return found

    def reply(self, posed: Posed, scores: Sequence[np.ndarray]) -> Answer:
        """Put the scores of a question into words; raises ValueError if one is no number."""
        if not all(np.isfinite(each).all() for each in scores):
            raise ValueError(f"snapshot {posed.loaded.name} gives probabilities that are no number")
        prepared, names = posed.prepared[0], posed.question.candidates
        told = None
        if posed.question.explain:
            told = explain(posed.loaded.scorer, prepared, names, *scores)
        return Answer(
            snapshot=posed.loaded.name,
            candidates=names,
            probabilities=scores[0],
            known=posed.known,
            user_known=posed.user_known,
            augmented=prepared.borrowed is not None and len(prepared.borrowed.rows) > 0,
            degraded=posed.degraded,
            recent_ignored=posed.recent_ignored,
            explanation=told,
        )

    def _look_up(self, user: str, loaded: Loaded) -> UserRecord | None:
        """The user's record, None for an unknown user.

        Raises StoreError for a damaged record and for a store that another model's runner filled.
        """
        # It may be emptied or filled anew at any time: what it says of itself is read every time.
        data, state = self._store.get_many([user_key(user), RUNNER_KEY])
        try:
            if loaded.model is not None and (state, loaded) != self._fitting:
                if state is None:
                    raise ValueError("no runner has filled it")
                filled_for = json.loads(state)["model"]
                if filled_for != loaded.model:
                    raise ValueError(f"it was filled for model {filled_for}, not {loaded.model}")
                self._fitting = (state, loaded)
            record = None if data is None else UserRecord.from_bytes(data)
            if record is not None and not _has_items(loaded.scorer.model, record):
                raise ValueError("a record has items that the model does not have")
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"the store does not fit: {error}") from None
        return record

    def _note(self, part: str, error: Exception | None = None) -> None:
        """Log when a part begins to fail, and when it works again, not every time between."""
        if error is not None and part not in self._failing:
            self._failing.add(part)
            # What a store says of its failure has nothing in it that a user has sent.
            reason = f" ({error})" if isinstance(error, StoreError) else ""
            _logger.warning("%s fails%s, answers go on without it", part, reason, exc_info=error)
        elif error is None and part in self._failing:
            self._failing.discard(part)
            _logger.warning("%s works again", part)


def _load(snapshot: Snapshot) -> Loaded:
    """Read a snapshot and see that it can score and search."""
    scorer = Scorer.load(snapshot.folder)
    asked = Request("", UserRecord(), np.arange(min(2, scorer.model.n_items)))
    (scores,) = scorer.score([scorer.prepare(asked)])
    if not np.isfinite(scores).all():
        raise ValueError(f"{snapshot.folder} gives probabilities that are no number")
    settings, donors = scorer.model.settings, scorer.donors
    if donors is not None and settings.retrieval is not None:
        query = np.asarray(donors.users[0])
        donors.borrow(
            query, "", settings.requests.max_length, settings.retrieval, settings.threshold
        )
    published = (snapshot.folder / MANIFEST).stat().st_mtime
    return Loaded(snapshot.name, snapshot.notes.get("model"), published, scorer)


def _has_items(model: TrainedModel, record: UserRecord) -> bool:
    return record.items.min(initial=1) >= 1 and record.items.max(initial=1) < model.n_items


def _ids(model: TrainedModel, tokens: Sequence[str]) -> np.ndarray:
    """Internal ids, (C,), 0 for an unknown item."""
    return model.items.find_many(tokens) + 1


def _with_recent(
    record: UserRecord, recent: Sequence[Recent], model: TrainedModel
) -> tuple[UserRecord, int]:
    """The record with the behaviours told, and how many of these are left out."""
    if not recent:
        return record, 0
    requests = model.settings.requests
    items = _ids(model, [told.item for told in recent])
    values = np.array([told.value for told in recent])
    known = (items > 0) & model.plausible(values)
    liked, opinions = requests.read(values)
    kept = known & requests.remembered(liked)
    times = np.array([told.time for told in recent], dtype=np.float64)
    record, _ = record.with_behaviours(
        items[kept], liked[kept], opinions[kept], times[kept], keep=requests.kept
    )
    return record, int((~known).sum())


def _without_borrowed(prepared: Prepared) -> Prepared:
    borrowed = 0 if prepared.borrowed is None else len(prepared.borrowed.rows)
    return replace(
        prepared, items=prepared.items[borrowed:], labels=prepared.labels[borrowed:], borrowed=None
    )
