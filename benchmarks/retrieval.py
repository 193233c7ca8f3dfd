"""Retrieval among many users: speed, recall, size and memory of every kind of index.

    python benchmarks/retrieval.py --users 1000000 --queries 100000 --json runs/retrieval.json

Data, all seeded. Items: feature vectors from --item_features (.npy, reduced to --width by PCA), or
made: 20,000 items in 200 topics of unequal size, in a space of 64 dimensions with a decaying
spectrum, with a common direction and a little noise in all of --width. Users: each likes four
items, drawn by popularity; a behaviour is, four times in five, one of the 50 items nearest to one
of these, else any item, by popularity. A user's embedding is the mean of the items' vectors, as in
stage 1 (MARS, eq. 13). Indexed users have a median of 60 behaviours, queries of 12. --data gaussian
is the hard case: independent normal numbers, among which no structure can be found.

Every index is centred. Recall is that of --checked queries against float32 vectors, all compared;
a user as near as the k-th counts. Every kind runs in a process of its own, for its peak of memory,
which includes Python and FAISS; embeddings are read from a mapped file and not part of the index.
Speed is measured on the index loaded by mmap, once warm; exact kinds, and others too slow, are
timed on as many queries as --seconds allow, at least those checked, as stated. Kinds that --json
holds are not run again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from scipy import sparse
from tqdm import tqdm

from recbole_mars.retrieval import UserIndex

KINDS: dict[str, dict[str, Any]] = {
    "flat": {},
    "flat-float16": {"storage": "float16"},
    "flat-int8": {"storage": "int8"},
    "flat-int8-rerank": {"storage": "int8", "rerank": 100},
    "flat-pq-rerank": {"storage": "pq", "rerank": 100},
    "ivf": {},
    "ivf-float16": {"storage": "float16"},
    "ivf-int8": {"storage": "int8"},
    "ivf-int8-rerank": {"storage": "int8", "rerank": 100},
    "ivf-pq": {"storage": "pq"},
    "ivf-pq-rerank": {"storage": "pq", "rerank": 100},
    "hnsw": {},
    "hnsw-int8-rerank": {"storage": "int8", "rerank": 100},
}
SLOW = {"hnsw", "hnsw-int8-rerank"}  # to build; run when named
REPETITIONS = 5
BLOCK = 20_000


def made_items(width: int, random: np.random.Generator) -> np.ndarray:
    """(20000, width) feature vectors in topics, of moderate intrinsic dimension."""
    n_items, n_topics, rank = 20_000, 200, min(64, width)
    axes = np.linalg.qr(random.standard_normal((width, rank)))[0].T
    topics = random.standard_normal((n_topics, rank))
    topic = random.choice(n_topics, n_items, p=random.dirichlet(np.ones(n_topics)))
    places = topics[topic] + 0.7 * random.standard_normal((n_items, rank))
    places *= np.arange(1, rank + 1) ** -0.5
    noise = 0.05 * random.standard_normal((n_items, width))
    return (places @ axes + 2 * axes[0] + noise).astype(np.float32)


def real_items(file: Path, width: int) -> np.ndarray:
    """(n, width) feature vectors, projected on their principal axes."""
    items = np.load(file, allow_pickle=False).astype(np.float32)
    if items.shape[1] < width:
        raise SystemExit(f"--width must be <= {items.shape[1]}, the width of {file}, got {width}")
    axes = np.linalg.svd(items - items.mean(axis=0), full_matrices=False)[2]
    return np.ascontiguousarray(items @ axes[:width].T)


def write_means(
    file: Path, items: np.ndarray, n_users: int, median: int, random: np.random.Generator
) -> None:
    """Mean vectors of n_users random histories with this median length, as .npy."""
    centred = items - items.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    near = faiss.knn(centred, centred, 50, metric=faiss.METRIC_INNER_PRODUCT)[1]
    popularity = random.permutation(1.0 / np.arange(10, 10 + len(items)))
    ladder = np.cumsum(popularity / popularity.sum())
    ladder[-1] = 1.0

    def popular(shape: int | tuple[int, int]) -> np.ndarray:
        return np.searchsorted(ladder, random.random(shape))

    out = np.lib.format.open_memmap(file, "w+", np.float32, (n_users, items.shape[1]))
    for begin in tqdm(range(0, n_users, BLOCK), f"{file.stem}"):
        n = min(BLOCK, n_users - begin)
        lengths = np.clip(random.lognormal(np.log(median), 0.5, n), 3, 500).astype(int)
        owner = np.repeat(np.arange(n), lengths)
        liked = popular((n, 4))[owner, random.integers(0, 4, len(owner))]
        behaviours = near[liked, random.integers(0, near.shape[1], len(owner))]
        other = random.random(len(owner)) >= 0.8
        behaviours[other] = popular(int(other.sum()))
        weights = np.repeat(1 / lengths, lengths).astype(np.float32)
        pointers = np.concatenate(([0], np.cumsum(lengths)))
        shape = (n, len(items))
        out[begin : begin + n] = sparse.csr_matrix((weights, behaviours, pointers), shape) @ items
    out.flush()


def write_gaussian(file: Path, n: int, width: int, random: np.random.Generator) -> None:
    out = np.lib.format.open_memmap(file, "w+", np.float32, (n, width))
    for begin in tqdm(range(0, n, BLOCK), f"{file.stem}"):
        out[begin : begin + BLOCK] = random.standard_normal((min(BLOCK, n - begin), width))
    out.flush()


def write_data(folder: Path, args: argparse.Namespace) -> None:
    """users.npy, queries.npy and what exact search finds for the checked ones."""
    random = np.random.default_rng(args.seed)
    parts = (("users", args.users, 60), ("queries", args.queries, 12))
    if args.data == "gaussian":
        for name, n, _ in parts:
            write_gaussian(folder / f"{name}.npy", n, args.width, random)
    else:
        made = args.item_features is None
        items = (
            made_items(args.width, random) if made else real_items(args.item_features, args.width)
        )
        for name, n, median in parts:
            write_means(folder / f"{name}.npy", items, n, median, random)
    users, queries = (np.load(folder / f"{name}.npy", "r") for name, _, _ in parts)
    index = UserIndex(users, np.arange(len(users)), center=True)
    np.save(folder / "cosines.npy", index.search(queries[: args.checked], 10)[0])
    np.save(folder / "center.npy", index.center)


def own_memory() -> int:
    """Bytes of this process that are not pages of a file; 0 where there is no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def measure_build(name: str, data: Path, threads: int) -> dict[str, Any]:
    """Build and save; in a process of its own."""
    faiss.omp_set_num_threads(threads)
    users = np.load(data / "users.npy", "r")
    seen, done = [own_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    index = UserIndex(users, np.arange(len(users)), name.split("-")[0], center=True, **KINDS[name])
    built = time.perf_counter() - start
    done.set()
    watcher.join()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    index.save(data / name)
    sizes = {path.name: path.stat().st_size for path in (data / name).iterdir()}
    codes = sizes.get("index.faiss", sizes.get("vectors.npy", 0)) + sizes["user_ids.npy"]
    return {
        "build_seconds": built,
        "peak_bytes": peak,
        "build_own_bytes": max(seen) - seen[0],
        "bytes_per_user": codes / len(users),
        "file_bytes": sum(sizes.values()),
    }


def measure_search(name: str, data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Load, search and compare; in a process of its own."""
    faiss.omp_set_num_threads(args.threads)
    queries = np.load(data / "queries.npy", "r")
    before = own_memory()
    start = time.perf_counter()
    index = UserIndex.load(data / name)
    loaded = time.perf_counter() - start
    cosines = np.load(data / "cosines.npy")
    checked = np.asarray(queries[: len(cosines)])
    _, ids = index.search(checked, 10)
    recalls = {}
    for k in (1, 10):
        exact = true_cosines(data, checked, ids[:, :k])
        recalls[f"recall_{k}"] = float((exact >= cosines[:, k - 1 : k] - 1e-6).mean())
    start = time.perf_counter()
    index.search(checked, 10)
    affordable = args.seconds / REPETITIONS / (time.perf_counter() - start) * len(checked)
    n = int(min(len(queries), max(len(checked), affordable)))  # few queries would slow "flat"
    chosen = np.asarray(queries[:n])
    speeds = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        index.search(chosen, 10)
        speeds.append(n / (time.perf_counter() - start))
    return {
        "load_seconds": loaded,
        "searched": n,
        "queries_per_second": speeds,
        "search_own_bytes": own_memory() - before,
        **recalls,
    }


def true_cosines(data: Path, queries: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Cosines of each query with the users found for it; -1 where there is none."""
    users, center = np.load(data / "users.npy", "r"), np.load(data / "center.npy")
    cosines = np.full(ids.shape, -1.0)
    for row, query, found in zip(cosines, queries - center, ids):
        near = users[found] - center
        lengths = np.linalg.norm(near, axis=1) * np.linalg.norm(query)
        row[:] = np.where(found >= 0, near @ query / np.maximum(lengths, 1e-12), -1.0)
    return cosines


def alone(function: Any, *arguments: Any) -> Any:
    """What the function returns from a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def cpu_model() -> str:
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def table(results: dict[str, Any], args: argparse.Namespace, what: str) -> str:
    """The Markdown page of these results."""
    lines = [
        "| index | recall@1 | recall@10 | queries/s (min-max) | queries | build s | bytes/user "
        "| files MB | peak RSS MB, building | own MB, building | own MB, searching | load s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in KINDS if name in results):
        r = results[name]
        speeds = r["queries_per_second"]
        lines.append(
            f"| {name} | {r['recall_1']:.4f} | {r['recall_10']:.4f} "
            f"| {statistics.median(speeds):,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f}) "
            f"| {r['searched']:,} | {r['build_seconds']:.1f} | {r['bytes_per_user']:.0f} "
            f"| {r['file_bytes'] / 1e6:,.0f} | {r['peak_bytes'] / 1e6:,.0f} "
            f"| {r['build_own_bytes'] / 1e6:,.0f} "
            f"| {r['search_own_bytes'] / 1e6:,.0f} | {r['load_seconds']:.3f} |"
        )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"# Retrieval among {args.users:,} users of width {args.width}: {what}\n\n"
        + "\n".join(lines)
        + f"\n\nRecall over {args.checked:,} queries. Queries/s: median of {REPETITIONS} passes "
        "over as many queries as stated, k = 10, on the index loaded by mmap. Bytes/user: codes, "
        "graph and id; a reranked index also has the float32 vectors in a file. Peak RSS: of the "
        "building process, pages of the mapped embeddings and all imports included. Own: what "
        "building, or searching, took in memory that is not a mapped file, the imports left out; "
        "for building at its peak, seen every 10 ms.\n"
        f"\n```\npython benchmarks/retrieval.py {' '.join(sys.argv[1:])}\n```\n\n"
        f"Commit {commit}, {date.today()}, {cpu_model()}, {os.cpu_count()} cores, "
        f"{args.threads} FAISS thread(s), Python {platform.python_version()}, "
        f"numpy {np.__version__}, faiss {faiss.__version__}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument(
        "--checked",
        type=int,
        default=2000,
        help="queries for the recall, and for the speed at least",
    )
    parser.add_argument("--data", choices=("users", "gaussian"), default="users")
    parser.add_argument("--item_features", type=Path, help="item vectors, .npy (n, D)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=sorted({*KINDS} - SLOW))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=60, help="of searching, for each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("runs/retrieval.json"))
    parser.add_argument("--again", action="store_true", help="run kinds that --json holds, too")
    args = parser.parse_args()
    args.checked = min(args.checked, args.queries)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # for the processes of each kind
    faiss.omp_set_num_threads(args.threads)

    what = "gaussian" if args.data == "gaussian" else "made items"
    if args.data == "users" and args.item_features:
        what = f"{args.item_features.parent.parent.name or 'real'} items"
    run = f"{args.users}x{args.width}-{what.replace(' ', '-')}-{args.queries}-{args.seed}"
    key = f"{run}, {args.threads} threads"
    recorded = json.loads(args.json.read_text()) if args.json.is_file() else {}
    results = recorded.setdefault(key, {})
    data = args.json.resolve().parent / f"retrieval-{run}"
    if not (data / "center.npy").is_file():  # the last that is written
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        write_data(data, args)
    kinds = [name for name in KINDS if name in args.kinds and (args.again or name not in results)]
    for name in tqdm(kinds, "indexes"):
        results[name] = alone(measure_build, name, data, args.threads)
        results[name].update(alone(measure_search, name, data, args))
        shutil.rmtree(data / name)
        unfinished = args.json.with_suffix(".tmp")
        unfinished.write_text(json.dumps(recorded, indent=1) + "\n")
        unfinished.replace(args.json)
        tqdm.write(f"{name}: {json.dumps(results[name])}")
    page = Path(__file__).parent / "results" / f"retrieval-{args.users}-{what.replace(' ', '-')}.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(table(results, args, what), encoding="utf-8")
    print(f"Table: {page}")


if __name__ == "__main__":
    main()
