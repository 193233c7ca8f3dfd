"""Encoding a catalogue with a pretrained model: in shards, resumable, each input once."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from recbole_mars.features.encoders import BatchEncoder
from recbole_mars.features.extraction.batches import Batch, encode_batches
from recbole_mars.features.extraction.execution import Execution
from recbole_mars.features.extraction.parts import Part, PartsFolder, find_digests, merge_parts
from recbole_mars.features.extraction.plan import Plan
from recbole_mars.features.extraction.sources import Sources
from recbole_mars.features.stores.store import FeatureStore

__all__ = ["Work"]


class Work:
    """What is left to encode of a catalogue, and the doing of it.

    store: what the target folder holds, if its vectors are of use, else None. precision: of the
    parts, "float16" or "float32". on_broken: told why inputs do not decode, all so far; it may
    raise. is_written: whether the store that is wanted stands in the folder, by another process.

    encoded, seconds: inputs that this run encoded and the time that it took, the loading of the
    model not included.
    """

    def __init__(
        self,
        sources: Sources,
        encoder: BatchEncoder[Any],
        folder: Path,
        precision: str,
        store: FeatureStore | None,
        execution: Execution,
        on_broken: Callable[[list[str]], None],
        is_written: Callable[[], bool],
    ) -> None:
        self.encoded, self.seconds = 0, 0.0
        self._encoder = encoder
        self._execution = execution
        self._precision = precision
        self._on_broken = on_broken
        self._is_written = is_written
        self._broken: list[str] = []
        made_from = json.dumps([encoder.name, encoder.settings(), precision], sort_keys=True)
        self.parts = PartsFolder(folder, hashlib.sha256(made_from.encode()).hexdigest())
        self.plan = self._plan(sources, store)

    def _plan(self, sources: Sources, store: FeatureStore | None) -> Plan:
        """What neither the store nor parts of other plans have; a plan that was begun is kept."""
        _, first = np.unique(sources.digests.view("S32").ravel(), return_index=True)
        first.sort()
        if store is not None:
            first = _without(sources, first, store.sources[store.present])
        parts = {name: self.parts.digests(name) for name in self.parts.plans()}
        self._known_plans = list(parts)
        lengths = np.asarray(self._encoder.lengths([sources.inputs[k] for k in first]))
        plan = None
        for name in (*parts, None):
            others = [done for other, done in parts.items() if other != name]
            left = _without(sources, first, np.concatenate([sources.digests[:0], *others]))
            plan = Plan.of(
                [sources.inputs[k] for k in left],
                sources.digests[left],
                lengths[np.isin(first, left)],
                self._execution.batch_size,
            )
            if plan.name == name:
                break
        assert plan is not None
        return plan

    def results(self) -> Iterator[Part]:
        """Everything that parts hold: of earlier plans, then of this one."""
        for plan in self.parts.plans():
            if plan != self.plan.name:
                yield from self.parts.load(plan)
        yield from self.parts.load(self.plan.name)

    def clean_up(self) -> None:
        """Remove the parts that the store has taken up; those of another catalogue stay."""
        for plan in {*self._known_plans, self.plan.name}:
            self.parts.remove(plan)

    def unfinished(self) -> list[int]:
        """The shards that nobody has finished."""
        return [k for k in range(self.plan.shards) if not self._done(k)]

    def run(self, progress: bool) -> None:
        """Encode what is missing of this run's shards, here or on a Ray cluster.

        Raises ValueError if the encoder cannot work, or if `on_broken` does.
        """
        i, n = self._execution.shard or (1, 1)
        mine = range(i - 1, self.plan.shards, n)
        missing = [k for k in mine if not self._done(k)]
        if not missing:
            return
        self.parts.path.mkdir(parents=True, exist_ok=True)  # fails now rather than after loading
        if self._execution.ray_address is None:
            self._encoder.load()  # before the bar: it may take minutes
        begun = time.perf_counter()
        with tqdm(
            total=sum(map(self._size, mine)),
            initial=sum(map(self._size, set(mine).difference(missing))),
            desc=f"encoding with {self._encoder.name}",
            unit="item",
            mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a log file needs fewer lines
            disable=not progress,
        ) as bar:
            if self._execution.ray_address is not None:
                self._run_on_cluster(missing, bar.update)
            else:
                while missing:
                    missing = self._run_free(missing, bar.update)
        self.seconds = time.perf_counter() - begun

    def _run_free(self, shards: list[int], advance: Callable[[int], Any]) -> list[int]:
        """Encode those of these shards that no other process works on; returns the others."""
        results: dict[int, dict[int, Part]] = {}  # of the shards that we hold, batch by batch
        locks: dict[int, FileLock] = {}
        taken: list[int] = []

        def finish(shard: int) -> None:
            batches = self.plan.batches(shard)
            if len(results[shard]) == len(batches):
                whole = merge_parts([results[shard][k] for k in range(len(batches))])
                self.parts.save(whole, self.plan.name, shard)
                del results[shard]
                locks.pop(shard).release()

        def batches() -> Iterator[tuple[tuple[int, int], Batch]]:
            for shard in shards:
                lock = self._lock(shard)
                if not _acquire(lock):
                    taken.append(shard)
                    continue
                locks[shard] = lock
                if self._done(shard):  # meanwhile, by another process
                    locks.pop(shard).release()
                    advance(self._size(shard))
                    continue
                if self._is_written():  # then the parts are gone, and not to be made again
                    return
                results[shard] = self.parts.batches(self.plan.name, shard)
                done = set(results[shard])
                advance(sum(len(part) for part in results[shard].values()))
                finish(shard)  # after a kill between the last batch and the shard
                for k, batch in enumerate(self._batches(shard)):
                    if k not in done:
                        yield (shard, k), batch

        try:
            for (shard, k), part in encode_batches(
                self._encoder, batches(), self._precision, self._execution.workers
            ):
                self.parts.save(part, self.plan.name, shard, k)
                self._count(part)
                advance(len(part))
                results[shard][k] = part
                finish(shard)
        finally:
            for lock in locks.values():
                lock.release()
        if taken:  # wait for the process that has it, holding nothing
            self._wait_for(taken[0])
        return [] if self._is_written() else [k for k in taken if not self._done(k)]

    def _wait_for(self, shard: int) -> None:
        """Wait until the process that encodes a shard has finished it, or died."""
        lock = self._lock(shard)
        while not self._done(shard) and not self._is_written():
            if _acquire(lock):
                lock.release()
                return
            time.sleep(0.1)

    def _run_on_cluster(self, shards: list[int], advance: Callable[[int], Any]) -> None:
        # Not above: Ray takes a second to load.
        from recbole_mars.features.extraction.cluster import encode_on_cluster

        jobs = ((k, self._batches(k)) for k in shards)
        for shard, part in encode_on_cluster(self._encoder, jobs, self._precision, self._execution):
            self.parts.save(part, self.plan.name, shard)
            self._count(part)
            advance(len(part))

    def _count(self, part: Part) -> None:
        self.encoded += len(part)
        if len(part.broken):
            self._broken += part.reasons.tolist()
            self._on_broken(self._broken)

    def _done(self, shard: int) -> bool:
        return self.parts.has(self.plan.name, shard)

    def _size(self, shard: int) -> int:
        return sum(batch.stop - batch.start for batch in self.plan.batches(shard))

    def _batches(self, shard: int) -> list[Batch]:
        plan = self.plan
        return [Batch(plan.inputs[k], plan.digests[k]) for k in plan.batches(shard)]

    def _lock(self, shard: int) -> FileLock:
        return FileLock(self.parts.path / f"{self.plan.name}-{shard:07}.lock")


def _without(sources: Sources, chosen: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Those of the chosen inputs whose digest is not known."""
    return chosen[find_digests(known, sources.digests[chosen]) < 0]


def _acquire(lock: FileLock) -> bool:
    """Take a lock if it is free, making its folder if need be."""
    path = Path(lock.lock_file)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
            return True
        except Timeout:
            return False
        except FileNotFoundError:
            pass  # another process, having finished, has just removed the folder
