"""The offline runner: from a model and interactions to user embeddings, donors and a snapshot.

Dimension letters: U users, H donors, D width.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from recbole_mars.alignment import export_embeddings
from recbole_mars.data.files import sha256_of_file
from recbole_mars.evaluation import HIGH
from recbole_mars.serving.donor_building import DonorBuilder
from recbole_mars.serving.donors import Donors
from recbole_mars.serving.embedding import LocalEmbedder, RayEmbedder
from recbole_mars.serving.events import Event, EventQueue, EventsLost
from recbole_mars.serving.folders import MANIFEST, DamagedFolder, link_folder, read_manifest
from recbole_mars.serving.model_folder import TrainedModel
from recbole_mars.serving.scoring import Scorer
from recbole_mars.serving.snapshots import NoSnapshot, Snapshot, Snapshots
from recbole_mars.serving.stores import KeyValueStore
from recbole_mars.serving.tokens import TokenTable
from recbole_mars.serving.users import (
    RUNNER_KEY,
    UNKNOWN_GROUP,
    UserRecord,
    embedding_key,
    user_key,
)
from recbole_mars.serving.world import KnownWorld

__all__ = ["OfflineRunner"]

_USERS = b"u/"
_BATCH = 256  # users embedded and written at once
_EVENTS = 4096  # read at once
_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


class OfflineRunner:
    """Keeps users' records in a store up to date, and publishes snapshots (MARS, 3.5.2).

    What was done is part of what is written: a runner that was killed goes on where the last batch
    ended, and events that are told again change nothing. Only one runner may write to a store.

    model: folder of a trained model. donors: "all" lends all behaviours that are known, "trained"
    those that training knew, as in an offline evaluation. embedder: of users; None: this process.
    Raises ValueError for another choice, and for a store or snapshots of another model.
    """

    def __init__(
        self,
        model: str | Path,
        store: KeyValueStore,
        snapshots: Snapshots,
        donors: str = "all",
        embedder: LocalEmbedder | RayEmbedder | None = None,
        progress: bool = False,
    ) -> None:
        if donors not in ("all", "trained"):
            raise ValueError(f"donors must be 'all' or 'trained', got {donors!r}")
        self.folder, self.store, self.snapshots = Path(model), store, snapshots
        self.donors, self.progress = donors, progress
        read_manifest(self.folder)
        self._exported = sha256_of_file(self.folder / MANIFEST)
        self.scorer = Scorer(TrainedModel.load(self.folder), None)
        self.embedder = embedder or LocalEmbedder(self.scorer)
        self.world = KnownWorld.load(self.folder / "world")
        self._state = self._read_state()
        self._refuse_another_models()

    def run(
        self,
        queue: EventQueue | None = None,
        keep: int = 3,
        accept_loss: bool = False,
        only_new: bool = False,
        go_on: Callable[[], bool] = lambda: True,
    ) -> Snapshot:
        """Bring the store up to date with all that is known and queued, and publish.

        accept_loss, go_on: see consume. only_new: where the current snapshot tells all there is, it
        stays, and is returned. Raises ValueError for a store that was filled for another model.
        """
        self._state = self._read_state()  # the store may have lost what was written to it
        self.bootstrap()
        if queue is not None:
            self.consume(queue, accept_loss=accept_loss, go_on=go_on)
        newest = self._newest() if only_new else None
        if newest is not None and self._is_told_by(newest):
            return newest
        return self.publish(keep)

    def bootstrap(self) -> None:
        """Write the records of all users whom training knew, and the items' embeddings, once."""
        done, total = self._state["bootstrapped"], len(self.world.users)
        if done == total:
            return
        if not done:
            self._write_items()
        keep = self.scorer.model.settings.requests.kept
        known = islice(self.world.records(keep), done, None)
        with self._bar("users", total, done) as bar:
            for users in self.embedder.map(_batches(known, _BATCH)):
                done += len(users)
                self._write(users, {"bootstrapped": done})
                bar.update(len(users))

    def consume(
        self,
        queue: EventQueue,
        limit: int | None = None,
        accept_loss: bool = False,
        go_on: Callable[[], bool] = lambda: True,
    ) -> int:
        """Add what is queued to the users' histories; returns how many behaviours were new.

        limit: events read at most; None reads until the queue's end. accept_loss: begin with what
        is there where the queue has lost events, or is another one. go_on: asked before each of
        the parts that are read and written at once. Raises EventsLost unless accept_loss.
        """
        new, read = 0, 0
        while (limit is None or read < limit) and go_on():
            wanted = _EVENTS if limit is None else min(_EVENTS, limit - read)
            try:
                events = queue.read(self._state["offset"], wanted)
            except EventsLost as error:
                if not accept_loss:
                    raise EventsLost(
                        f"{error}; --accept-loss (accept_loss) begins with what is there"
                    ) from error
                _logger.error("Events are lost, what is left is taken: %s", error)
                events = queue.read(None, wanted)
            if not events:
                break
            read += len(events)
            changed, added = self._apply(events)
            last = events[-1][0]
            placed = self.embedder.map(_batches(changed, _BATCH))
            self._write(chain.from_iterable(placed), {"offset": last})
            queue.commit(last)
            new += added
            if len(events) < wanted:  # the end; more may be coming all the while
                break
        return new

    def publish(self, keep: int = 3) -> Snapshot:
        """Publish the model, all embeddings and the donors as they are now; see Snapshots."""

        def write(folder: Path) -> dict[str, Any]:
            newest, exported = self._newest(), sha256_of_file(self.folder / MANIFEST)
            if exported != self._exported:
                raise ValueError(f"{self.folder} has changed since the runner began: start it anew")
            replaced = newest is None or newest.notes.get("exported") != exported
            current = None if replaced else newest
            if current is not None:
                # Streaming training may have published newer weights of this model.
                link_folder(current.folder / "model", folder / "model")
            else:
                link_folder(self.folder, folder / "model", copy=True)
            users = self._save_embeddings(folder / "users", self._users_embeddings())
            if current is not None and (current.folder / "items").is_dir():
                link_folder(current.folder / "items", folder / "items")
            else:
                self._save_embeddings(folder / "items", self._items_embeddings())
            donors = self._build_donors(newest, folder)
            if donors is not None:
                donors.save(folder / "donors")
            training = current.notes.get("training") if current else None
            return {
                "model": self._state["model"],
                "exported": exported,
                **({} if training is None else {"training": training}),
                "lent": self.donors,
                "offset": self._state["offset"],
                "users": users,
                "donors": 0 if donors is None else len(donors),
            }

        return self.snapshots.publish(write, keep)

    def _apply(self, events: list[tuple[str, Event]]) -> tuple[list[tuple[str, UserRecord]], int]:
        """Records of the users with new behaviours, and how many behaviours these are."""
        model = self.scorer.model
        by_user: dict[str, list[Event]] = {}
        for _, event in events:
            by_user.setdefault(event.user, []).append(event)
        found = self.store.get_many([user_key(user) for user in by_user])
        changed, added = [], 0
        for (user, told), data in zip(by_user.items(), found):
            record = UserRecord() if data is None else UserRecord.from_bytes(data)
            items = np.array([model.items.find(event.item) + 1 for event in told], dtype=int)
            values = np.array([event.value for event in told])
            # The model cannot read an item that it was not trained with.
            known = (items > 0) & model.plausible(values)
            liked, opinions = model.settings.requests.read(values)
            known &= model.settings.requests.remembered(liked)
            times = np.array([event.time for event in told])
            record, new = record.with_behaviours(
                items[known],
                liked[known],
                opinions[known],
                times[known],
                model.settings.requests.kept,
            )
            if new:
                changed.append((user, record))
                added += new
        return changed, added

    def _write_items(self) -> None:
        model = self.scorer.model
        if model.alignment is None:
            return
        nobody = np.zeros(0, dtype=np.int64)
        exported = export_embeddings(
            model.alignment,
            self.world.log(model.n_items),
            nobody,
            nobody,
            max_length=model.settings.requests.max_length,
            progress=self.progress,
        )
        rows = exported.item_embeddings.astype("<f4")
        pairs = {
            embedding_key(token): rows[place + 1].tobytes()
            for place, token in enumerate(model.items)
            if exported.item_seen[place + 1]
        }
        for batch in _batches(pairs.items(), _EVENTS):
            self.store.put_many(dict(batch))

    def _records(self) -> Iterator[tuple[str, UserRecord]]:
        """All users; Redis may tell of one twice."""
        for key, data in self.store.scan(_USERS):
            yield key[len(_USERS) :].decode(), UserRecord.from_bytes(data)

    def _users_embeddings(self) -> dict[str, np.ndarray]:
        return {token: record.embedding for token, record in self._records()}

    def _items_embeddings(self) -> dict[str, np.ndarray]:
        """Of the items that training has seen; see _write_items."""
        found: dict[str, np.ndarray] = {}
        for tokens in _batches(self.scorer.model.items, _EVENTS):
            rows = self.store.get_many([embedding_key(token) for token in tokens])
            found.update((t, np.frombuffer(row, "<f4")) for t, row in zip(tokens, rows) if row)
        return found

    def _save_embeddings(self, folder: Path, found: dict[str, np.ndarray]) -> int:
        """Write tokens and (N, D) float32 rows in the same order; returns N."""
        alignment = self.scorer.model.alignment
        width = 0 if alignment is None else alignment.settings.width
        rows = np.array(list(found.values()), dtype=np.float32).reshape(len(found), width)
        folder.mkdir()
        TokenTable(list(found)).save(folder / "tokens")
        np.save(folder / "embeddings.npy", rows, allow_pickle=False)
        return len(found)

    def _build_donors(self, newest: Snapshot | None, spool: Path) -> Donors | None:
        retrieval = self.scorer.model.settings.retrieval
        if retrieval is None:
            return None
        previous = None
        if newest is not None and newest.notes["donors"] and newest.notes["lent"] == self.donors:
            previous = Donors.load(newest.folder / "donors")
        builder = DonorBuilder(self.scorer, retrieval, self.donors == "trained", previous, spool)
        # In the order of training's ids, then of names, whatever order the store has.
        places = sorted(
            {
                (record.user == 0, record.user, token)
                for token, record in self._records()
                if self._is_high_active(record)
            }
        )
        for batch in _batches(self._bar("donors", len(places), wraps=places), _BATCH):
            tokens = [token for _, _, token in batch]
            found = self.store.get_many([user_key(token) for token in tokens])
            builder.add(
                [(t, UserRecord.from_bytes(d)) for t, d in zip(tokens, found) if d is not None]
            )
        return builder.finish()

    def _is_told_by(self, newest: Snapshot) -> bool:
        """Whether a snapshot is the current one and would be published again as it is."""
        try:
            if newest.name != self.snapshots.current_name():
                return False
        except DamagedFolder:  # the next publication names one again
            return False
        mine = {"exported": self._exported, "offset": self._state["offset"], "lent": self.donors}
        return all(newest.notes.get(name) == value for name, value in mine.items())

    def _newest(self) -> Snapshot | None:
        """The newest snapshot that is whole; parts go into the next."""
        try:
            found: Snapshot | None = self.snapshots.current()
        except NoSnapshot:
            return None
        except DamagedFolder as error:
            found = self.snapshots.newest_whole()
            _logger.error(
                "%s; the next is made from %s", error, self.folder if found is None else found.name
            )
        return found

    def _refuse_another_models(self) -> None:
        """A service would find its store another one's, and streamed weights would be gone."""
        with suppress(NoSnapshot, DamagedFolder):
            notes = self.snapshots.current(verify=False).notes
            if notes.get("model") != self._state["model"]:
                raise ValueError(
                    f"{self.snapshots.root} has the snapshots of another model than {self.folder}; "
                    "name a folder for this one's, and a store"
                )

    def _is_high_active(self, record: UserRecord) -> bool:
        if record.group == UNKNOWN_GROUP:
            return record.seen >= self.scorer.model.settings.requests.high_from
        return record.group == HIGH

    def _read_state(self) -> dict[str, Any]:
        data = self.store.get(RUNNER_KEY)
        fresh = {"bootstrapped": 0, "offset": None, "model": self._identity()}
        if data is None:
            return fresh
        state = json.loads(data)
        if state["model"] != fresh["model"]:
            raise ValueError(
                f"the store was filled for another model than {self.folder}: other users, items, "
                "training data, thresholds or embeddings; name an empty store"
            )
        return state

    def _identity(self) -> str:
        """Of what records are made of: the numbering of users and items, what training knew, how
        events are read, and the space of embeddings."""
        files = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        requests = asdict(self.scorer.model.settings.requests)
        digest = hashlib.sha256(json.dumps(requests, sort_keys=True).encode())
        for name in sorted(files):
            if name == "items/text" or name.startswith("world/"):
                digest.update(f"{name} {files[name]['sha256']}".encode())
        return f"{digest.hexdigest()[:32]}-{self.scorer.space}"

    def _write(self, users: Iterable[tuple[str, UserRecord]], state: dict[str, Any]) -> None:
        """Records, and then what they account for."""
        after = {**self._state, **state}
        self.store.put_many({user_key(user): record.to_bytes() for user, record in users})
        # Behind the records: the nodes of a cluster do not fail together, and a record takes what
        # is told twice once.
        self.store.put_many({RUNNER_KEY: json.dumps(after).encode()})
        self._state = after

    def _bar(self, title: str, total: int, done: int = 0, wraps: Any = None) -> Any:
        return tqdm(wraps, title, total=total, initial=done, disable=not self.progress)


def _batches(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch
