"""Bytes of a user and of an item, and what publishing and loading take; writes a table.

    python benchmarks/serving_capacity.py --users 20000 --items 10000

Measured on the files of the synthetic world that serving_load.py serves, or on a deployment of your
own (--snapshots, and --store, the folder of an LMDB store).
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from serving_load import processor
from serving_processes import memory_of
from serving_world import add_arguments, make

from recbole_mars.serving import Scorer, Snapshots, UserRecord, read_manifest
from recbole_mars.serving.stores import LMDBStore

QUERIES = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--snapshots", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--name", help="of the table; the number of users by default")
    parser.add_argument("--json", type=Path, default=Path("runs/serving-capacity.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.snapshots is None:
        world = make(args)
        args.snapshots, args.store = world / "snapshots", world / "store"
    found = measure(Snapshots(args.snapshots).current().folder, args.store)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1))
    name = args.name or f"{args.users}-users"
    table = Path(__file__).parent / "results" / f"serving-capacity-{name}.md"
    table.write_text(report(found))
    print(f"Table: {table}")


def measure(snapshot: Path, store: Path) -> dict[str, Any]:
    """Sizes in bytes, times in seconds."""
    with LMDBStore(store, read_only=True) as opened:
        records = [(len(key), len(data), data) for key, data in opened.scan(b"u/")]
        items = [len(key) + len(data) for key, data in opened.scan(b"i/")]
    behaviours = sum(len(UserRecord.from_bytes(data)) for _, _, data in records)
    stored = sum(size for _, size, _ in records)
    sizes = {part: _size(snapshot / part) for part in ("model/world", "users", "donors")}
    sizes["donors' index"] = _size(snapshot / "donors" / "index")
    sizes["donors' behaviours' embeddings"] = _size(snapshot / "donors" / "embeddings.npy")
    sizes["model without world"] = _size(snapshot / "model") - sizes["model/world"]
    begun, memory = time.perf_counter(), memory_of("self")[0]
    read_manifest(snapshot)
    verified = time.perf_counter()
    scorer = Scorer.load(snapshot)
    loaded = time.perf_counter()
    donors, lent, search, together = scorer.donors, 0, float("nan"), float("nan")
    if donors is not None:
        lent = int(donors.bounds[-1])
        asked = np.asarray(donors.users[:QUERIES])
        donors.index.search(asked[:1], 1)
        begun_search = time.perf_counter()
        for query in asked:
            donors.index.search(query[None], 1)
        search = (time.perf_counter() - begun_search) / len(asked)
        begun_search = time.perf_counter()
        donors.index.search(asked, 1)
        together = (time.perf_counter() - begun_search) / len(asked)
    return {
        "users": len(records),
        "items": len(scorer.model.items),
        "donors": 0 if donors is None else len(donors),
        "behaviours kept": behaviours,
        "behaviours lent": lent,
        "record bytes": stored,
        "embedding bytes of items in the store": sum(items),
        "items in the store": len(items),
        "store file": (store / "data.mdb").stat().st_size,
        "snapshot": _size(snapshot),
        "parts": sizes,
        "verify seconds": verified - begun,
        "load seconds": loaded - verified,
        "own bytes of a loaded scorer": memory_of("self")[0] - memory,
        "search seconds": search,
        "search seconds, many at once": together,
    }


def _size(place: Path) -> int:
    files = [place] if place.is_file() else place.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def report(found: dict[str, Any]) -> str:
    """The Markdown page."""
    users, items, donors = (max(1, found[name]) for name in ("users", "items", "donors"))
    kept, lent, parts = found["behaviours kept"], max(1, found["behaviours lent"]), found["parts"]
    rows = [
        ("store, file", found["store file"], users, "user"),
        ("store, records alone", found["record bytes"], users, "user"),
        (
            "store, embeddings of items",
            found["embedding bytes of items in the store"],
            max(1, found["items in the store"]),
            "item",
        ),
        ("snapshot", found["snapshot"], users, "user"),
        ("of it: weights, features, vocabulary", parts["model without world"], items, "item"),
        ("of it: what training knew", parts["model/world"], kept, "behaviour"),
        ("of it: users' names and embeddings", parts["users"], users, "user"),
        ("of it: donors, all", parts["donors"], donors, "donor"),
        ("of these: the index", parts["donors' index"], donors, "donor"),
        ("of these: embeddings", parts["donors' behaviours' embeddings"], lent, "behaviour lent"),
    ]
    page = [
        f"# What {users:,} users and {items:,} items take\n",
        f"{kept:,} behaviours kept, {kept / users:.0f} a user; {donors:,} donors lend {lent:,}, "
        f"{lent / donors:.0f} each.\n",
        "| what | MB | bytes | a |",
        "| --- | --- | --- | --- |",
    ]
    for name, size, number, unit in rows:
        page.append(f"| {name} | {size / 1e6:,.1f} | {size / number:,.0f} | {unit} |")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    page.append(
        f"\nReading and checking all of the snapshot: {found['verify seconds']:.2f} s; loading: "
        f"{found['load seconds']:.2f} s, {found['own bytes of a loaded scorer'] / 1e6:.0f} MB of "
        f"its own, the rest mapped. The nearest of {donors:,} donors: "
        f"{1e3 * found['search seconds']:.2f} ms one by one, "
        f"{1e3 * found['search seconds, many at once']:.3f} ms when {QUERIES} ask at once.\n\n"
        f"```\npython benchmarks/serving_capacity.py {' '.join(sys.argv[1:])}\n```\n\n"
        f"Commit {commit}, {date.today()}, {processor()}, Python {platform.python_version()}.\n"
    )
    return "\n".join(page)


if __name__ == "__main__":
    main()
