"""What the deployment does when things go wrong; writes a table.

    python benchmarks/serving_faults.py all --kills 50 --minutes 60
    python benchmarks/serving_faults.py kill_runner malformed

Real processes on this machine, a small synthetic world (500 users, 500 items, random weights). Each
fault tells what was done and what was found; `as promised` compares that with the promises of
docs/serving.md. Figures of faults that --json holds stay until they are run again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from serving_kills import (
    Deployment,
    differing,
    events,
    finish,
    kill_runner,
    kill_service,
    kill_trainer,
    pair,
    records,
)
from serving_load import processor
from serving_malformed import malformed_requests
from serving_processes import Client, Redis, Service, ended, post
from serving_world import requests_of
from tqdm import tqdm

from recbole_mars.serving import Request, Scorer, UserRecord
from recbole_mars.serving.folders import link_folder
from recbole_mars.serving.offline import OfflineRunner
from recbole_mars.serving.stores import LMDBStore, open_store
from recbole_mars.serving.users import user_key

STATED = {0, 503, 504}  # 5xx that docs/service.md states, and connections that were cut


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faults", nargs="+", choices=[*FAULTS, "all"])
    parser.add_argument("--kills", type=int, default=50, help="of each process")
    parser.add_argument("--requests", type=int, default=10_000, help="malformed ones")
    parser.add_argument("--rate", type=float, default=30, help="good requests a second, of a load")
    parser.add_argument("--minutes", type=float, default=60, help="of the soak")
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("runs/serving-faults.json"))
    args = parser.parse_args()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(args.json.read_text()) if args.json.is_file() else {}
    for name in FAULTS if "all" in args.faults else args.faults:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            args.folder = Path(folder)
            begun = time.monotonic()
            found[name] = FAULTS[name][0](args)
            found[name]["minutes"] = round((time.monotonic() - begun) / 60, 1)
            found[name]["run"] = f"{command()}, commit {commit()}, {date.today()}"
        args.json.write_text(json.dumps(found, indent=1))
    table = Path(__file__).parent / "results" / "serving-faults.md"
    table.write_text(report(found))
    print(f"Table: {table}")


def redis(args: argparse.Namespace) -> dict[str, Any]:
    """Redis stopped under load, away for ten seconds, and started again."""
    deployment, _ = pair(args, "redis")
    server = Redis(args.folder / "server")
    store = f"{server.address}?timeout=0.2"
    with ended(server):
        with open_store(store) as opened:
            OfflineRunner(deployment.model, opened, deployment.snapshots).run()
        service = Service(deployment.snapshots.root, store, args.folder / "serve.log")
        with ended(service):
            bodies = requests_of(deployment.snapshots.current().folder, 200, 20, args.seed)
            load = Load(service.port, bodies, args.rate)
            with load:
                time.sleep(10)
                load.phase = "away"
                server.stop()
                time.sleep(10)
                begun = time.monotonic()
                again = Redis(args.folder / "server", server.port)
                with ended(again):
                    load.phase = "back"
                    while load.last_degraded or load.last is None:
                        time.sleep(0.01)
                    recovered = time.monotonic() - begun
                    time.sleep(10)
            return {**load.told(), "seconds from its start to a whole answer": round(recovered, 2)}


def disk_full(args: argparse.Namespace) -> dict[str, Any]:
    """The disk of snapshots and store full while the runner writes and publishes; then enlarged."""
    model_only, whole = pair(args, "disk")
    whole.append(events(whole.model, 20_000, 1))
    finish(whole.offline(), whole, "offline")
    size = _size(whole.root)
    outcomes: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    damaged, leftovers, step = 0, 0, max(1 << 18, size // 8)
    with small_disk(args.folder / "disk", 2 << 20) as disk:
        place = Deployment(args.folder / "disk" / "d", model_only.model)
        place.events = model_only.events
        place.append(events(whole.model, 20_000, 1))
        while True:
            status = place.offline().process.wait(600)
            statuses[status] += 1
            if status == 0:
                break
            said = (place.logs / "offline.log").read_text().strip().splitlines() or ["nothing"]
            told = any(text in said[-1].lower() for text in ("no space", "disk"))
            outcomes["told why" if told else said[-1][-80:]] += 1
            damaged += len(place.damaged())
            leftovers += place.leftovers()
            disk.enlarge(step)
        return {
            "ways the runner ended": dict(statuses),
            "failures": dict(outcomes),
            "damaged snapshots": damaged,
            "unfinished versions left": leftovers,
            "users that differ from a run with room": differing(
                records(place.store), records(whole.store)
            ),
            "MB in the end": round(_size(place.root) / 1e6, 1),
        }


def malformed(args: argparse.Namespace) -> dict[str, Any]:
    """Malformed requests, one a connection, from eight clients at once."""
    deployment, _ = pair(args, "malformed")
    finish(deployment.offline(with_events=False), deployment, "offline")
    log = args.folder / "serve.log"
    service = Service(deployment.snapshots.root, str(deployment.store), log)
    with ended(service):
        good = requests_of(deployment.snapshots.current().folder, 50, 20, args.seed)
        answers = asyncio.run(_send_all(service, args))
        alive = [status for status, _ in asyncio.run(_ask_all(service.port, good))]
        service.stop()
    statuses: dict[str, Counter[int]] = {}
    leaks, formless = 0, 0
    for kind, status, content in answers:
        statuses.setdefault(kind, Counter())[status] += 1
        leaks += any(text in content for text in (b"Traceback", b'File "', b".py"))
        formless += status >= 400 and kind != "no HTTP" and not _has_form(content)
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    total = Counter(status for _, status, _ in answers)
    return {
        "requests": len(answers),
        "answers by status (0: the connection was closed)": dict(sorted(total.items())),
        "5xx that are no stated limit": sum(
            n for status, n in total.items() if status >= 500 and status not in STATED
        ),
        "answers with a traceback": leaks,
        "errors not in the one form (Uvicorn's own, for what is no HTTP)": formless,
        "errors in the log": sum(line["level"] == "error" for line in lines),
        "good requests afterwards": f"{alive.count(200)} of {len(alive)} answered",
        "by kind": {kind: dict(sorted(counts.items())) for kind, counts in statuses.items()},
    }


def reload(args: argparse.Namespace) -> dict[str, Any]:
    """New weights published under load; each answer compared with the snapshot that it names."""
    deployment, _ = pair(args, "reload")
    finish(deployment.offline(with_events=False), deployment, "offline")
    bodies = requests_of(deployment.snapshots.current().folder, 20, 20, args.seed)
    options = ("--poll-seconds", 0.2)
    log = args.folder / "serve.log"
    service = Service(deployment.snapshots.root, str(deployment.store), log, *options)
    expected = {deployment.snapshots.current_name(): _expected(deployment, bodies)}
    with ended(service):
        load = Load(service.port, bodies, args.rate, keep=True)
        with load:
            for number in tqdm(range(args.reloads), "reloads"):
                _publish_other_weights(deployment, number)
                expected[deployment.snapshots.current_name()] = _expected(deployment, bodies)
                time.sleep(1.5)
    wrong, versions = 0, Counter()
    for number, content in load.kept:
        told = json.loads(content)
        versions[told["snapshot"]] += 1
        scores = np.array([each["probability"] for each in told["predictions"]])
        wrong += not np.allclose(scores, expected[told["snapshot"]][number], atol=1e-5)
    return {
        **load.told(),
        "versions published": args.reloads + 1,
        "versions that answered": len(versions),
        "answers other than their snapshot's": wrong,
    }


def soak(args: argparse.Namespace) -> dict[str, Any]:
    """A steady load for long, with malformed requests and new snapshots: does memory grow?"""
    deployment, _ = pair(args, "soak")
    finish(deployment.offline(with_events=False), deployment, "offline")
    bodies = requests_of(deployment.snapshots.current().folder, 2000, 100, args.seed)
    bad = [each.message for each in malformed_requests(300, args.seed) if each.kind != "no HTTP"]
    log = args.folder / "serve.log"
    options = ("--log-level", "warning", "--torch-threads", 1)
    service = Service(deployment.snapshots.root, str(deployment.store), log, *options)
    samples = []
    with ended(service):
        load = Load(service.port, bodies, args.rate, bad=bad)
        with load:
            begun = time.monotonic()
            published = begun
            while (now := time.monotonic()) < begun + 60 * args.minutes:
                samples.append((now - begun, *service.memory()))
                if now - published > 120:
                    published = now
                    _publish_other_weights(deployment, len(samples))
                time.sleep(5)
        reloads = service.metric("recbole_mars_reloads_total")
    seconds, own, resident = np.array(samples).T
    late = seconds >= 0.25 * seconds[-1]
    slopes = [np.polyfit(seconds[late] / 3600, each[late] / 1e6, 1)[0] for each in (own, resident)]
    return {
        **load.told(),
        "reloads": reloads,
        "own MB at a quarter of the time, at the end": [
            round(own[late][0] / 1e6, 1),
            round(own[-1] / 1e6, 1),
        ],
        "growth after a quarter of the time, own and resident MB an hour": [
            round(slope, 2) for slope in slopes
        ],
        "grows by more than 10 MB an hour": bool(slopes[0] > 10),
        "minutes of load": args.minutes,
        "samples": [[round(s), int(o), int(r)] for s, o, r in samples],
    }


FAULTS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], dict[str, Any]]] = {
    "kill_runner": (
        kill_runner,
        {"damaged snapshots": 0, "leftovers at the end": 0, "users that differ": 0},
    ),
    "kill_trainer": (
        kill_trainer,
        {
            "damaged snapshots": 0,
            "users that differ": 0,
            "weights that differ by a bit": 0,
            "samples lost or doubled": 0,
        },
    ),
    "kill_service": (
        kill_service,
        {"damaged snapshots": 0, "starts with other answers than the first": 0},
    ),
    "redis": (redis, {"requests that were not answered": 0}),
    "disk_full": (
        disk_full,
        {
            "damaged snapshots": 0,
            "unfinished versions left": 0,
            "users that differ from a run with room": 0,
        },
    ),
    "malformed": (
        malformed,
        {"5xx that are no stated limit": 0, "answers with a traceback": 0, "errors in the log": 0},
    ),
    "reload": (
        reload,
        {"requests that were not answered": 0, "answers other than their snapshot's": 0},
    ),
    "soak": (
        soak,
        {"requests that were not answered": 0, "grows by more than 10 MB an hour": False},
    ),
}


class Load:
    """Good requests at even moments, from a thread of its own, while the block runs.

    bad: messages of which one goes with every tenth good request. keep: all answers.
    """

    def __init__(
        self,
        port: int,
        bodies: list[bytes],
        rate: float,
        bad: list[bytes] | None = None,
        keep: bool = False,
    ) -> None:
        self.port, self.bodies, self.rate, self.bad, self.keep = port, bodies, rate, bad or [], keep
        self.phase = "before"
        self.kept: list[tuple[int, bytes]] = []
        self.last: int | None = None
        self.last_degraded = False
        self._answers: dict[str, Counter[str]] = {}
        self._seconds: dict[str, list[float]] = {}
        self._refused: Counter[int] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()

    def told(self) -> dict[str, Any]:
        """Counts and times of what was asked."""
        told: dict[str, Any] = {}
        for phase, counts in self._answers.items():
            name = "" if len(self._answers) == 1 else f", {phase}"
            ms = 1e3 * np.quantile(self._seconds[phase], (0.5, 0.99, 1.0))
            told[f"answers{name}"] = dict(counts)
            told[f"p50, p99, max ms{name}"] = ms.round(1).tolist()
        if self.bad:
            told["malformed among them, by status"] = dict(sorted(self._refused.items()))
        unanswered = sum(
            n
            for counts in self._answers.values()
            for kind, n in counts.items()
            if kind not in ("whole", "degraded")
        )
        return {**told, "requests that were not answered": unanswered}

    async def _run(self) -> None:
        client, waiting = Client(self.port), set()
        begun, number = time.perf_counter(), 0
        while not self._stopping.is_set():
            due = begun + number / self.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks = [asyncio.create_task(self._ask(client, number, due))]
            if self.bad and number % 10 == 0:
                tasks.append(asyncio.create_task(self._disturb(number)))
            for task in tasks:
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            number += 1
        await asyncio.gather(*waiting)
        client.close()

    async def _ask(self, client: Client, number: int, due: float) -> None:
        phase, place = self.phase, number % len(self.bodies)
        status, content = await client.post(self.bodies[place])
        kind = str(status)
        if status == 200:
            self.last_degraded = b'"degraded":[]' not in content
            kind = "degraded" if self.last_degraded else "whole"
            if self.keep:
                self.kept.append((place, content))
        self.last = status
        self._answers.setdefault(phase, Counter())[kind] += 1
        self._seconds.setdefault(phase, []).append(time.perf_counter() - due)

    async def _disturb(self, number: int) -> None:
        client = Client(self.port)
        status, _ = await client.send(self.bad[number % len(self.bad)], seconds=5)
        self._refused[status] += 1
        client.close()


async def _send_all(service: Service, args: argparse.Namespace) -> list[tuple[str, int, bytes]]:
    requests = iter(tqdm(malformed_requests(args.requests, args.seed), total=args.requests))
    answers = []

    async def send() -> None:
        for each in requests:
            client = Client(service.port)
            status, content = await client.send(each.message, seconds=5)
            answers.append((each.kind, status, content))
            client.close()

    await asyncio.gather(*(send() for _ in range(8)))
    return answers


async def _ask_all(port: int, bodies: list[bytes]) -> list[tuple[int, bytes]]:
    client = Client(port)
    answers = [await client.send(post(body)) for body in bodies]
    client.close()
    return answers


def _has_form(content: bytes) -> bool:
    try:
        return set(json.loads(content)["error"]) == {"code", "message", "field"}
    except (ValueError, KeyError, TypeError):
        return False


def _publish_other_weights(deployment: Deployment, seed: int) -> None:
    """The current snapshot with other weights of its network."""
    current = deployment.snapshots.current()
    model = Scorer.load(current.folder).model
    torch.manual_seed(seed)
    for parameter in model.network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))

    def write(folder: Path) -> dict[str, Any]:
        link_folder(current.folder, folder)
        (folder / "model" / "network.safetensors").unlink()
        model.save_network(folder / "model")
        return current.notes

    deployment.snapshots.publish(write)


def _expected(deployment: Deployment, bodies: list[bytes]) -> list[np.ndarray]:
    """What the current snapshot answers."""
    scorer = Scorer.load(deployment.snapshots.current().folder)
    found = []
    with LMDBStore(deployment.store, read_only=True) as store:
        for body in bodies:
            asked = json.loads(body)
            data = store.get(user_key(asked["user"]))
            record = UserRecord() if data is None else UserRecord.from_bytes(data)
            ids = scorer.model.items.find_many(asked["candidates"]) + 1
            (scores,) = scorer.score([scorer.prepare(Request(asked["user"], record, ids))])
            found.append(scores)
    return found


class _Disk:
    """A file system in memory that can be made larger."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        folder.mkdir()
        self._mount("size={size}")

    def enlarge(self, by: int) -> None:
        self.size += by
        self._mount("remount,size={size}")

    def _mount(self, options: str) -> None:
        given = options.format(size=self.size)
        subprocess.run(["mount", "-t", "tmpfs", "-o", given, "tmpfs", str(self.folder)], check=True)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[_Disk]:
    """A disk of so many bytes, gone behind the block; needs to be root."""
    disk = _Disk(folder, size)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def command() -> str:
    """The arguments, but for where figures are kept."""
    words = sys.argv[1:]
    place = words.index("--json") if "--json" in words else len(words)
    return " ".join(words[:place] + words[place + 2 :])


def commit() -> str:
    asked = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def report(found: dict[str, Any]) -> str:
    """The Markdown page."""
    page = ["# What the deployment does when things go wrong\n"]
    page += ["| fault | done | found | as promised |", "| --- | --- | --- | --- |"]
    hidden = ("samples", "by kind", "minutes", "run")
    for name, (function, promised) in FAULTS.items():
        if name not in found:
            continue
        facts = found[name]
        cells = "; ".join(
            f"{what}: {_text(value)}" for what, value in facts.items() if what not in hidden
        )
        kept = all(facts[what] == wanted for what, wanted in promised.items())
        about = str(function.__doc__).splitlines()[0]
        page.append(f"| {name} | {about} | {cells} | {'yes' if kept else '**no**'} |")
    if kinds := found.get("malformed", {}).get("by kind"):
        page += ["\n| malformed | answers by status |", "| --- | --- |"]
        page += [f"| {kind} | {_text(counts)} |" for kind, counts in kinds.items()]
    page += [
        "\n| run of | minutes | `python benchmarks/serving_faults.py` |",
        "| --- | --- | --- |",
    ]
    page += [
        f"| {name} | {found[name]['minutes']} | {found[name]['run']} |"
        for name in FAULTS
        if name in found
    ]
    page.append(f"\n{processor()}, Python {platform.python_version()}.\n")
    return "\n".join(page)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{n} x {key}" for key, n in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    main()
