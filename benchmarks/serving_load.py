"""How fast the online service answers: latency by rate, most requests a second; writes a table.

    python benchmarks/serving_load.py --users 20000 --items 10000 --rates 25 50 100 150

The service is a process of its own, and so is this one, which asks: both share the cores. Open
loop: requests come at moments drawn beforehand, whatever has been answered, and the time of each
counts from when it was due, so waiting is not hidden. Closed loop: so many clients ask anew as soon
as they are answered. Beside it the network alone, in this process, on the same requests' augmented
histories. Users are drawn as they come, three in ten are low-active and borrow.

--snapshots and --store name a deployment of your own in place of the synthetic world.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from serving_processes import Client, Redis, Service, ended, post
from serving_world import add_arguments, make, requests_of

from recbole_mars.ctr import score_targets
from recbole_mars.serving import Request, Scorer, Snapshots, UserRecord
from recbole_mars.serving.scoring import Prepared, collate
from recbole_mars.serving.stores import open_store
from recbole_mars.serving.users import user_key

SHARES = (0.5, 0.9, 0.99, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--snapshots", type=Path, help="of a deployment, with --store")
    parser.add_argument("--store", help="of a deployment; with the world: 'redis' starts one")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--recent", type=int, default=0, help="behaviours told with a request")
    parser.add_argument("--rates", type=float, nargs="+", default=[25.0, 50.0, 100.0, 150.0])
    parser.add_argument("--seconds", type=float, default=30, help="of each rate")
    parser.add_argument("--warm", type=float, default=5, help="seconds before the first rate")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], help="closed loop")
    parser.add_argument("--arrivals", choices=("poisson", "even"), default="poisson")
    parser.add_argument("--torch-threads", type=int, default=1)
    parser.add_argument("--serve", default="", help="more options of serve, in one text")
    parser.add_argument("--rounds", type=int, default=1, help="of all rates, one after the other")
    parser.add_argument("--bare", type=int, default=200, help="requests for the network alone")
    parser.add_argument("--name", help="of the table; from the world by default")
    parser.add_argument("--json", type=Path, default=Path("runs/serving-load.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.torch_threads)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    gc.freeze()  # a full collection would stop this client for 200 ms, and all its requests
    with ExitStack() as started:
        snapshots, store = places(args, started)
        bodies = requests_of(
            Snapshots(snapshots).current().folder, 2000, args.candidates, args.seed, args.recent
        )
        found = measure(args, snapshots, store, bodies)
    args.json.write_text(json.dumps(found, indent=1))
    name = args.name or f"{args.users}-users-{'redis' if args.store else 'lmdb'}"
    table = Path(__file__).parent / "results" / f"serving-load-{name}.md"
    table.write_text(report(args, found))
    print(f"Table: {table}")


def places(args: argparse.Namespace, started: ExitStack) -> tuple[Path, str]:
    """Folder of the snapshots and address of the store."""
    if args.snapshots is not None:
        if not args.store:
            raise SystemExit("--snapshots needs --store, that of the same deployment")
        return args.snapshots, args.store
    redis = None
    if args.store == "redis":
        redis = Redis(args.worlds.resolve() / "redis")
        started.enter_context(ended(redis))
    folder = make(args, None if redis is None else redis.address)
    return folder / "snapshots", str(folder / "store") if redis is None else redis.address


def measure(
    args: argparse.Namespace, snapshots: Path, store: str, bodies: list[bytes]
) -> dict[str, Any]:
    """All figures, by kind of load."""
    threads = ("--torch-threads", args.torch_threads, "--log-level", "warning")
    log = args.json.with_suffix(".log")
    service = Service(snapshots, store, log, *threads, *args.serve.split())
    with ended(service):
        random = np.random.default_rng(args.seed)
        asyncio.run(open_loop(service.port, bodies, due(20, args.warm, args, random)))
        rates = []
        for _ in range(args.rounds):
            for rate in args.rates:
                moments = due(rate, args.seconds, args, random)
                rates.append(observed(service, open_loop(service.port, bodies, moments)))
                rates[-1]["asked"] = rate
        closed = []
        for clients in args.clients:
            work = closed_loop(service.port, bodies, clients, args.seconds / 2)
            closed.append({**observed(service, work), "clients": clients})
        service.stop()
    return {"rates": rates, "closed": closed, "bare": bare(args, snapshots, store, bodies)}


def due(
    rate: float, seconds: float, args: argparse.Namespace, random: np.random.Generator
) -> np.ndarray:
    """Moments of requests, in seconds from the start."""
    count = max(1, int(rate * seconds))
    if args.arrivals == "even":
        return np.arange(count) / rate
    return np.sort(random.random(count)) * seconds  # a Poisson process, given its number


def observed(service: Service, load: Any) -> dict[str, Any]:
    """Figures of a load: latencies in ms, and what the service counted meanwhile."""
    names = ("recbole_mars_augmented_total", "recbole_mars_degraded_total")
    before, cpu = {name: service.metric(name) for name in names}, service.cpu_seconds()
    own, wall = time.process_time(), time.perf_counter()
    answers = asyncio.run(load)
    wall = time.perf_counter() - wall
    cpu, own = service.cpu_seconds() - cpu, time.process_time() - own
    latencies = np.array([seconds for seconds, status in answers if status == 200])
    statuses = Counter(status for _, status in answers)
    good = max(1, statuses[200])
    quantiles = np.quantile(latencies, SHARES) if len(latencies) else np.full(len(SHARES), np.nan)
    return {
        "requests": len(answers),
        "errors": {str(k): v for k, v in statuses.items() if k != 200},
        "per_second": statuses[200] / wall,
        "ms": dict(zip(map(str, SHARES), (1e3 * quantiles).round(3).tolist())),
        "augmented": (service.metric(names[0]) - before[names[0]]) / good,
        "degraded": service.metric(names[1]) - before[names[1]],
        "service_cores": cpu / wall,
        "service_ms_a_request": 1e3 * cpu / good,
        "client_cores": own / wall,
    }


async def open_loop(port: int, bodies: list[bytes], moments: np.ndarray) -> list[tuple[float, int]]:
    """Ask at these moments; seconds from when each was due to its answer, and its status."""
    client, answers = Client(port), []
    messages = [post(body) for body in bodies]

    async def ask(number: int, at: float) -> None:
        status, _ = await client.send(messages[number % len(messages)])
        answers.append((time.perf_counter() - at, status))

    begun = time.perf_counter() + 0.05
    waiting = set()
    for number, moment in enumerate(moments.tolist()):
        left = begun + moment - time.perf_counter()
        if left > 0:
            await asyncio.sleep(left)
        task = asyncio.create_task(ask(number, begun + moment))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    await asyncio.gather(*waiting)
    client.close()
    return answers


async def closed_loop(
    port: int, bodies: list[bytes], clients: int, seconds: float
) -> list[tuple[float, int]]:
    """So many clients, each asking as soon as it is answered."""
    client, answers = Client(port), []
    messages = [post(body) for body in bodies]
    until = time.perf_counter() + seconds

    async def ask(first: int) -> None:
        number = first
        while (begun := time.perf_counter()) < until:
            status, _ = await client.send(messages[number % len(messages)])
            answers.append((time.perf_counter() - begun, status))
            number += clients

    await asyncio.gather(*map(ask, range(clients)))
    client.close()
    return answers


def bare(
    args: argparse.Namespace, snapshots: Path, store: str, bodies: list[bytes]
) -> dict[str, Any]:
    """The network alone, and all of the scorer, a request at a time in this process."""
    scorer = Scorer.load(Snapshots(snapshots).current().folder)
    prepared, seconds = [], []
    with open_store(store, read_only=True) as opened:
        for body in bodies[: args.bare]:
            asked = json.loads(body)
            data = opened.get(user_key(asked["user"]))
            record = UserRecord() if data is None else UserRecord.from_bytes(data)
            ids = [scorer.model.items.find(item) + 1 for item in asked["candidates"]]
            prepared.append(scorer.prepare(Request(asked["user"], record, np.array(ids))))
    ways = {
        "ms": lambda each: scorer.score([each]),
        "ms, histories repeated": lambda each: repeated(scorer, each),
    }
    for each in (*prepared[:20], *prepared):  # in turn, so that the machine's state cancels out
        seconds.append([])
        for way in ways.values():
            begun = time.perf_counter()
            way(each)
            seconds[-1].append(time.perf_counter() - begun)
    taken = 1e3 * np.array(seconds[20:])
    lengths = [len(each.items) for each in prepared]
    quantiles = np.quantile(taken, SHARES, axis=0).round(3).T.tolist()
    return {
        **{name: dict(zip(map(str, SHARES), each)) for name, each in zip(ways, quantiles)},
        "times as fast as repeated": float(np.median(taken[:, 1] / taken[:, 0])),
        "mean_length": statistics.mean(lengths),
        "full": sum(length == max(lengths) for length in lengths) / len(lengths),
        "augmented": sum(map(_borrows, prepared)) / len(prepared),
    }


@torch.inference_mode()
def repeated(scorer: Scorer, prepared: Prepared) -> torch.Tensor:
    """The network with a history for each candidate, as in training."""
    return score_targets(scorer.model.network, *collate([prepared]))


def _borrows(prepared: Prepared) -> bool:
    return prepared.borrowed is not None and len(prepared.borrowed.rows) > 0


def report(args: argparse.Namespace, found: dict[str, Any]) -> str:
    """The Markdown page."""
    alone = found["bare"]
    what = args.snapshots or f"{args.users:,} users, {args.items:,} items, {args.index} index"
    page = [
        f"# The online service under load: {args.candidates} candidates a request\n",
        f"World: {what}; the store is {'Redis' if 'redis' in (args.store or '') else 'LMDB'}. "
        f"Histories as the network reads them: {alone['mean_length']:.0f} behaviours in the mean, "
        f"{alone['full']:.0%} of them as long as any; {alone['augmented']:.0%} of the requests "
        f"borrow. {args.arrivals.capitalize()} arrivals.\n",
        "| load | p50 ms | p90 ms | p99 ms | max ms | answered/s | errors | augmented | "
        "service, ms of CPU a request | cores: service, client |",
        "| --- |" + " --- |" * 9,
    ]
    for name, what in (
        ("ms", "the network alone, one after the other"),
        ("ms, histories repeated", "the same, each candidate with a history of its own"),
    ):
        cells = " | ".join(f"{value:.1f}" for value in alone[name].values())
        page.append(f"| {what} | {cells} | | | | | |")
    for load in (*found["rates"], *found["closed"]):
        clients = load.get("clients")
        title = f"{load['asked']:g}/s" if clients is None else f"{clients} clients in a closed loop"
        errors = sum(load["errors"].values())
        page.append(
            f"| {title} | {' | '.join(f'{value:.1f}' for value in load['ms'].values())} "
            f"| {load['per_second']:.1f} | {errors} | {load['augmented']:.0%} "
            f"| {load['service_ms_a_request']:.1f} "
            f"| {load['service_cores']:.2f}, {load['client_cores']:.2f} |"
        )
    times = alone["times as fast as repeated"]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    page.append(
        f"\nA history that its candidates share makes the network {times:.1f} times "
        "as fast (median of the ratios, request by request). "
        f"Latency of an open load counts from when a request was due; {args.seconds:g} s a rate, "
        f"{args.seconds / 2:g} s a closed loop. The client runs on the same cores."
        f"\n\n```\npython benchmarks/serving_load.py {' '.join(sys.argv[1:])}\n```\n\n"
        f"Commit {commit}, {date.today()}, {processor()}, torch {torch.__version__} with "
        f"{args.torch_threads} thread(s), Python {platform.python_version()}.\n"
    )
    return "\n".join(page)


def processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"


if __name__ == "__main__":
    main()
