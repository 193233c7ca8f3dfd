"""Streaming training: events in, snapshots out, each event once in effect (MARS, 3.5.1)."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import numpy as np

from recbole_mars.serving.events import Event, EventQueue, EventsLost, QueueError
from recbole_mars.serving.folders import DamagedFolder
from recbole_mars.serving.scoring import Scorer, collate
from recbole_mars.serving.snapshots import Snapshot, Snapshots
from recbole_mars.serving.training.behaviours import Behaviours, Sample, prepare_samples
from recbole_mars.serving.training.learner import Diverged, Learner
from recbole_mars.serving.training.publishing import (
    publish_network,
    published_step,
    refuse_other,
    training_of,
)
from recbole_mars.serving.training.recent import RecentScores
from recbole_mars.serving.training.report import Report
from recbole_mars.serving.training.settings import StreamSettings
from recbole_mars.serving.training.state import Progress, StateFolder
from recbole_mars.serving.world import KnownWorld

__all__ = ["StreamTrainer"]

_EVENTS = 1024  # read at once
_WAIT_SECONDS = 1.0
_RETRY_SECONDS = 5.0

_logger = logging.getLogger(__name__)


class StreamTrainer:
    """Trains the CTR network on a queue's events, in their order, and publishes its weights.

    The samples are what the service would score: the user's behaviours before the event, with what
    they borrow from the donors of one snapshot, until the next is published. Stage 1 is frozen.
    A step takes the next batch_size new events, whatever was read at once; events that fill no
    batch wait. Weights, optimizer, users' records and the offset are saved together, so whoever is
    killed goes on from there, and ends with the same bits as without the kill (on the same machine
    with as many threads).

    folder: the trainer's own, a new one starts from the current snapshot.
    Raises NoSnapshot if nothing was published yet, ValueError if the folder is of another model's
    training than the current snapshot, another trainer uses it, another training has published
    since, or it is new and another training's weights are published, see StreamSettings.take_over.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        queue: EventQueue,
        folder: str | Path,
        settings: StreamSettings | None = None,
    ) -> None:
        self.snapshots, self.queue = snapshots, queue
        self.settings = settings or StreamSettings()
        self._state = StateFolder(folder)
        try:
            self.progress = self._start()
            base = self._state.base(self.progress.base)
            self._notes = self._state.base_notes(self.progress.base)
            with suppress(FileNotFoundError, DamagedFolder):  # publishing is tried again
                current = self.snapshots.current(verify=False)
                refuse_other(current, self._notes, self.progress.run)
            self.scorer = Scorer.load(base)
            world = base / "model" / "world"
            self._behaviours = Behaviours(
                self.scorer.model,
                KnownWorld.load(world) if world.is_dir() else None,
                self._state.store,
            )
            self._behaviours.restore(Counter(self.progress.skipped))
            self._published = self._published_scorer()
            self._learner = Learner(self.scorer.model.network, self.settings)
            self.recent = RecentScores(self.settings.recent)
            tensors = self._state.load()
            if tensors:
                self._learner.load(tensors)
                self.recent.load(tensors)
            if self.progress.based_at == self.progress.step:
                self.recent.forget_published()
        except BaseException:
            self._state.close()
            raise
        self._read_up_to = self.progress.offset
        self._waiting: list[Sample] = []
        self._taken = 0  # events since the last save

    def run(self, once: bool = False, stopped: Callable[[], bool] = lambda: False) -> None:
        """Train and publish until `stopped` says so, then save. once: until the queue's end, then
        publish.

        A queue that is away is asked again, and what cannot be published is tried again; once
        raises. Raises Diverged, and OSError if the state cannot be saved.
        """
        report = Report()
        pause = 60 * self.settings.publish_minutes
        publish_at = time.monotonic() + pause
        while not stopped():
            events = self._read(0 if once else _WAIT_SECONDS, patient=not once)
            for offset, event in events:
                self._take(offset, event)
                if stopped():
                    break
            report.tell(events, self.progress, self.recent)
            if once and len(events) < _EVENTS:  # the end; more may be coming all the while
                break
            if time.monotonic() >= publish_at:
                publish_at = time.monotonic() + pause
                self._publish_patiently()
        self.commit()
        if once and not stopped():
            self.publish()

    def commit(self) -> None:
        """Save all that was trained on; a crash later goes on from here."""
        self._state.store.ping()  # closed where training diverged: nothing of it may go out
        if self._state.progress == self.progress:
            return
        tensors = {**self._learner.tensors(), **self.recent.tensors()}
        self.progress = self._state.commit(self.progress, tensors, self._behaviours.changes())
        self._behaviours.saved()
        self._taken = 0
        try:
            if self.progress.offset is not None:
                self.queue.commit(self.progress.offset)
        except QueueError as error:
            _logger.warning("The queue learns at the next save what was done: %s", error)

    def publish(self) -> Snapshot | None:
        """Save, and publish the weights; None if they are no new ones, or worse than those out.

        Raises what publish_network raises.
        """
        self.commit()
        done = self.progress
        if done.step == done.based_at:
            _logger.info("Nothing new to publish: no batch was full since the last time")
            return None
        figures, most = self.recent.figures(), self.settings.max_loss_increase
        increase = figures["loss_increase"]
        if most is not None and increase is not None and increase > most:
            _logger.warning(
                "Not published: on the latest %d events the log loss exceeds that of the published "
                "weights by %.4f, more than max_loss_increase %g; training goes on",
                figures["events"],
                increase,
                most,
            )
            return None
        training = {
            "run": done.run,
            "step": done.step,
            "samples": done.samples,
            "skipped": dict(done.skipped),
            "offset": done.offset,
            "recent": figures,
        }
        model, keep = self.scorer.model, self.settings.keep
        snapshot = publish_network(self.snapshots, model, self._notes, training, keep)
        _logger.info("Published %s, the weights of step %d: %s", snapshot.name, done.step, figures)
        self._change_base(snapshot)
        return snapshot

    def close(self) -> None:
        """Free the folder without saving. Closing twice is allowed."""
        self._state.close()

    def __enter__(self) -> StreamTrainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> Progress:
        """Where the folder's state stands, made consistent with what was published."""
        state, done = self._state, self._state.progress
        if done is None:
            base = self._link_current()
            return state.commit(Progress(uuid4().hex, base, known_to=self._known_to(base)))
        if not state.has_base(done.base):
            _logger.warning(
                "The donors of snapshot %s are gone from %s or damaged: the current ones are taken",
                done.base,
                state.folder,
            )
            return state.commit(replace(done, base=self._link_current(), based_at=done.step))
        if done.based_at < done.step:
            published = published_step(self.snapshots, done.run, done.step)
            if published is not None:  # by a process that was killed before it could note that
                state.link(published)
                return state.commit(replace(done, base=published.name, based_at=done.step))
        return done

    def _known_to(self, base: str) -> str | None:
        """Offset up to which a snapshot's weights have learnt from the queue; None for none."""
        learnt = training_of(self._state.base_notes(base))
        if learnt and not self.settings.take_over:
            raise ValueError(
                f"snapshot {base} has the weights of another training, whose state is not in "
                f"{self._state.folder}, and its events would be trained on twice; name that "
                "training's folder, or, if it is lost, --take-over (take_over) goes on behind "
                "those events"
            )
        known_to = learnt.get("offset")
        if known_to is not None:
            try:
                self.queue.read(known_to, 1)
            except EventsLost as error:
                self._refuse_loss(error)
                return None
        return known_to

    def _link_current(self) -> str:
        while True:
            current = self.snapshots.current()
            try:
                self._state.link(current)
            except FileNotFoundError:
                if current.name == self.snapshots.current_name():
                    raise
                continue  # it was removed, as newer ones were published
            return current.name

    def _change_base(self, snapshot: Snapshot) -> None:
        """Take the donors of what was published, and compare with its weights from now on."""
        self._state.link(snapshot)
        done = replace(self.progress, base=snapshot.name, based_at=self.progress.step)
        self.progress = self._state.commit(done)
        self._notes = snapshot.notes
        base = self._state.base(snapshot.name)
        self.scorer = Scorer(self.scorer.model, Scorer.load(base).donors)
        self._published = self._published_scorer()
        self.recent.forget_published()

    def _published_scorer(self) -> Scorer | None:
        if self.settings.max_loss_increase is None:
            return None
        return Scorer.load(self._state.base(self.progress.base))

    def _publish_patiently(self) -> None:
        self.commit()  # a state that cannot be saved ends the training
        try:
            self.publish()
        except (OSError, DamagedFolder) as error:
            _logger.error("Publishing failed, the current snapshot stays: %s", error)

    def _read(self, wait_seconds: float, patient: bool) -> list[tuple[str, Event]]:
        try:
            return self.queue.read(self._read_up_to, _EVENTS, wait_seconds)
        except EventsLost as error:
            self._refuse_loss(error)
            self._read_up_to = None  # said once, also where nothing is there yet
            events = self.queue.read(None, _EVENTS, wait_seconds)
            if events and events[0][0] <= (self.progress.offset or ""):  # another queue's offsets
                self.progress = replace(self.progress, known_to=None)
            return events
        except QueueError as error:
            if not patient:
                raise
            _logger.warning("The queue is away, it is asked again: %s", error)
            time.sleep(_RETRY_SECONDS)
            return []

    def _refuse_loss(self, error: EventsLost) -> None:
        if not self.settings.accept_loss:
            raise EventsLost(
                f"{error}; --accept-loss (accept_loss) goes on with what is left, without "
                "these events"
            ) from error
        _logger.error("Events are lost, training goes on with what is left: %s", error)

    def _take(self, offset: str, event: Event) -> None:
        self._read_up_to = offset
        sample = self._behaviours.take(offset, event)
        self._taken += 1
        known_to = self.progress.known_to
        if sample is not None and (known_to is None or offset > known_to):
            self._waiting.append(sample)
        if len(self._waiting) == self.settings.batch_size:
            self._train()
        if not self._waiting:
            self._behaviours.settle()
            skipped = dict(self._behaviours.skipped)
            self.progress = replace(self.progress, offset=offset, skipped=skipped)
            if self._taken >= self.settings.commit_batches * self.settings.batch_size:
                self.commit()

    def _train(self) -> None:
        prepared = prepare_samples(self.scorer, self._waiting)
        labels = np.array([sample.liked for sample in self._waiting])
        scores = np.concatenate(self.scorer.score(prepared))
        published = None
        if self._published is not None:
            published = np.concatenate(self._published.score(prepared))
        step = self.progress.step + 1
        try:
            self._learner.step(collate(prepared), labels, step)
        except Diverged:
            self.close()  # nothing of it may be saved
            raise
        self.recent.add(labels, scores, published)
        samples = self.progress.samples + len(labels)
        self.progress = replace(self.progress, step=step, samples=samples)
        self._waiting = []
