"""kill -9 of runner, trainer and service at random moments, against a twin that nobody killed."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from serving_processes import Client, Process, Service, ended, serving
from serving_world import requests_of, write_model
from tqdm import tqdm

from recbole_mars.serving import Snapshots, TokenTable, UserRecord
from recbole_mars.serving.events import Event, LocalLog
from recbole_mars.serving.stores import LMDBStore

BEGIN_SECONDS = 120
PER_ROUND = 2000  # events
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # sums in one order, so that all bits can be compared


class Deployment:
    """Folders of one deployment; several share a model."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model = root, model
        self.logs = model.parent / f"{root.name}-logs"  # not on a disk that may be full
        for folder in (root, self.logs):
            folder.mkdir(parents=True)
        self.snapshots = Snapshots(root / "snapshots")
        self.store, self.state, self.events = root / "store", root / "state", root / "events"

    def offline(self, with_events: bool = True) -> Process:
        options = ("--snapshots", self.snapshots.root, "--store", self.store, "--quiet")
        queue = ("--events", self.events) if with_events else ()
        command = serving("offline", "--model", self.model, *options, *queue)
        return Process(command, self.logs / "offline.log", **_ONE_THREAD)

    def train(self) -> Process:
        options = ("--snapshots", self.snapshots.root, "--state", self.state, "--torch-threads", 1)
        sizes = ("--batch-size", 64, "--commit-batches", 5, "--publish-minutes", 0.01)
        command = serving("train", "--events", self.events, *options, *sizes, "--once")
        return Process(command, self.logs / "train.log", **_ONE_THREAD)

    def append(self, events: list[Event]) -> None:
        with LocalLog(self.events) as queue:
            queue.append(events)

    def damaged(self) -> list[str]:
        """What is wrong with any version, by its checksums."""
        found = []
        for name in self.snapshots.names():
            try:
                self.snapshots.at(name)
            except (OSError, ValueError) as error:
                found.append(str(error))
        return found

    def leftovers(self) -> int:
        """Versions that were begun and never became one; the next publication removes them."""
        return len(list(self.snapshots.root.glob(".[0-9]*-*")))


def small_world(args: argparse.Namespace) -> Path:
    """Folder of a model small enough to be published in a second."""
    own = argparse.Namespace(
        users=500,
        items=500,
        length=50,
        width=64,
        index="flat",
        storage="float32",
        strategy="filtered",
        agreement=False,
        seed=args.seed,
    )
    folder = args.folder / "model"
    if not folder.is_dir():
        write_model(folder, own)
    return folder


def events(model: Path, number: int, seed: int) -> list[Event]:
    """Events of known and new users, one in ten told again later."""
    drawn = np.random.default_rng(seed)
    users = [*TokenTable.load(model / "world" / "users"), *(f"new{n}" for n in range(50))]
    items = list(TokenTable.load(model / "items"))
    begin = 1.8e9 + 1e5 * seed
    told = [
        Event(
            users[drawn.integers(len(users))],
            items[drawn.integers(len(items))],
            float(drawn.integers(1, 6)),
            begin + place,
        )
        for place in range(number)
    ]
    again = [told[place] for place in drawn.integers(0, number, number // 10)]
    return [*told, *again]


def kill_runner(args: argparse.Namespace) -> dict[str, Any]:
    """The offline runner killed while it embeds, writes and publishes."""
    killed, whole = pair(args, "runner")
    found = _kills(args, killed, whole, Deployment.offline, killed.store, "offline")
    own, other = records(killed.store), records(whole.store)
    found["users"] = len(other)
    found["behaviours"] = sum(record.seen for record in other.values())
    found["users that differ"] = differing(own, other)
    return found


def kill_trainer(args: argparse.Namespace) -> dict[str, Any]:
    """Streaming training killed while it learns, saves and publishes."""
    killed, whole = pair(args, "trainer")
    for deployment in (killed, whole):
        finish(deployment.offline(with_events=False), deployment, "offline")
    found = _kills(args, killed, whole, Deployment.train, killed.state / "records", "train")
    own, other = records(killed.state / "records"), records(whole.state / "records")
    found["users"] = len(other)
    found["users that differ"] = differing(own, other)
    weights = [_weights(deployment) for deployment in (killed, whole)]
    found["weights that differ by a bit"] = sum(
        not np.array_equal(one.numpy(), weights[1][name].numpy(), equal_nan=True)
        for name, one in weights[0].items()
    )
    notes = [d.snapshots.current().notes["training"] for d in (killed, whole)]
    found["samples trained on"] = notes[1]["samples"]
    found["samples lost or doubled"] = notes[0]["samples"] - notes[1]["samples"]
    return found


def kill_service(args: argparse.Namespace) -> dict[str, Any]:
    """The service killed under load while a writer goes on in its store."""
    deployment, _ = pair(args, "service")
    finish(deployment.offline(with_events=False), deployment, "offline")
    bodies = requests_of(deployment.snapshots.current().folder, 200, 20, args.seed)
    drawn = random.Random(args.seed)
    log = deployment.root / "serve.log"
    before, statuses, sizes = None, {}, []
    different, stuck = 0, 0
    keys = [key for key, _ in _pairs(deployment.store)][:100]
    for _ in tqdm(range(args.kills), "kills of the service"):
        service = Service(deployment.snapshots.root, str(deployment.store), log)
        with ended(service):
            answers = asyncio.run(_answers(service.port, bodies[:20]))
            before = before or answers
            different += answers != before
            asyncio.run(_until_killed(service, bodies, drawn.uniform(0.05, 1), statuses))
        with LMDBStore(deployment.store) as store:
            for _ in range(20):  # pages that a dead reader held can be used again
                store.put_many({key: store.get(key) or b"" for key in keys})
        sizes.append((deployment.store / "data.mdb").stat().st_size)
        stuck += bool(deployment.damaged())
    return {
        "kills": args.kills,
        "starts with other answers than the first": different,
        "damaged snapshots": stuck,
        "answers by status (0: the connection broke)": statuses,
        "store MB at first, at last": [round(sizes[0] / 1e6, 2), round(sizes[-1] / 1e6, 2)],
    }


async def _answers(port: int, bodies: list[bytes]) -> list[str]:
    """Predictions of some requests, rounded as far as two starts may differ."""
    client, found = Client(port), []
    for body in bodies:
        status, content = await client.post(body)
        told = json.loads(content)["predictions"] if status == 200 else []
        found.append(json.dumps([round(each["probability"], 5) for each in told]))
    client.close()
    return found


async def _until_killed(
    service: Service, bodies: list[bytes], seconds: float, statuses: dict[str, int]
) -> None:
    client = Client(service.port)

    async def ask(first: int) -> None:
        status, number = 200, first
        while status == 200:
            status, _ = await client.post(bodies[number % len(bodies)])
            statuses[str(status)] = statuses.get(str(status), 0) + 1
            number += 4

    asking = [asyncio.create_task(ask(number)) for number in range(4)]
    await asyncio.sleep(seconds)
    service.kill()
    await asyncio.gather(*asking)
    client.close()


def pair(args: argparse.Namespace, name: str) -> tuple[Deployment, Deployment]:
    """Two empty deployments of one model."""
    model = small_world(args)
    parts = [args.folder / f"{name}-{kind}" for kind in ("killed", "whole")]
    return Deployment(parts[0], model), Deployment(parts[1], model)


def _kills(
    args: argparse.Namespace,
    killed: Deployment,
    whole: Deployment,
    start: Callable[[Deployment], Process],
    mapped: Path,
    name: str,
) -> dict[str, Any]:
    """Kill a process at random moments of its work, with new events each time.

    mapped: the store that it opens when its work begins. Its twin reads all of them undisturbed.
    """
    drawn = random.Random(args.seed)
    told, takes = 2, 0.0
    for number in range(told):  # the first fills the store, the second is timed
        killed.append(events(killed.model, PER_ROUND, number))
        process = start(killed)
        begun = _begun(process, mapped)
        finish(process, killed, name)
        takes = time.monotonic() - begun
    counts = {"kills": 0, "ended before": 0, "left a version unfinished": 0, "damaged": 0}
    with tqdm(total=args.kills, desc=f"kills of {name}") as bar:
        while counts["kills"] < args.kills:
            killed.append(events(killed.model, PER_ROUND, told))
            told += 1
            process = start(killed)
            with ended(process):
                begun = _begun(process, mapped)
                moment = begun + drawn.uniform(0, 1) * takes
                while (now := time.monotonic()) < moment and process.process.poll() is None:
                    time.sleep(0.002)
                done = process.process.poll() is not None
                takes = min(takes, now - begun) if done else takes  # the machine has become faster
            counts["ended before" if done else "kills"] += 1
            counts["left a version unfinished"] += killed.leftovers() > 0
            counts["damaged"] += len(killed.damaged())
            bar.update(not done)
    finish(start(killed), killed, name)
    for number in range(told):
        whole.append(events(whole.model, PER_ROUND, number))
    finish(start(whole), whole, name)
    return {
        "kills": counts["kills"],
        "ended before the kill": counts["ended before"],
        "kills that left an unfinished version": counts["left a version unfinished"],
        "damaged snapshots": counts["damaged"] + len(killed.damaged()),
        "leftovers at the end": killed.leftovers(),
        "versions published": int(killed.snapshots.current_name()),
        "events, those told again included": told * (PER_ROUND + PER_ROUND // 10),
        "seconds of work of a run": round(takes, 2),
    }


def _begun(process: Process, mapped: Path) -> float:
    """Wait until the process has opened its store, or is over."""
    deadline = time.monotonic() + BEGIN_SECONDS
    maps = Path(f"/proc/{process.pid}/maps")
    while process.process.poll() is None and time.monotonic() < deadline:
        if str(mapped.resolve()) in maps.read_text():
            break
        time.sleep(0.01)
    return time.monotonic()


def finish(process: Process, deployment: Deployment, name: str) -> None:
    if process.process.wait(1800):
        raise SystemExit((deployment.logs / f"{name}.log").read_text()[-2000:])


def _pairs(store: Path) -> list[tuple[bytes, bytes]]:
    with LMDBStore(store, read_only=True) as opened:
        return list(opened.scan(b"u/"))


def records(store: Path) -> dict[bytes, UserRecord]:
    return {key: UserRecord.from_bytes(data) for key, data in _pairs(store)}


def differing(own: dict[bytes, UserRecord], other: dict[bytes, UserRecord]) -> int:
    """Users whose behaviours are not the same, or whose embeddings differ by more than rounding."""
    differ = len(own.keys() ^ other.keys())
    for key in own.keys() & other.keys():
        one, two = own[key], other[key]
        same = (one.seen, one.user, one.group, one.space) == (
            two.seen,
            two.user,
            two.group,
            two.space,
        )
        for column in ("items", "liked", "opinions", "times", "trained"):
            same = same and np.array_equal(getattr(one, column), getattr(two, column))
        differ += not (same and np.allclose(one.embedding, two.embedding, atol=1e-5))
    return differ


def _weights(deployment: Deployment) -> dict[str, Any]:
    current = deployment.snapshots.current().folder
    return load_file(current / "model" / "network.safetensors")
