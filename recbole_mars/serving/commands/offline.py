"""Bring users' records up to date, embed those who changed, and publish a snapshot."""

from __future__ import annotations

import argparse
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from recbole_mars.serving.snapshots import Snapshots

__all__ = ["add_arguments", "run"]

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `offline` can be told."""
    parser.add_argument(
        "--model", required=True, type=Path, help="folder that python -m recbole_mars.export made"
    )
    parser.add_argument("--snapshots", required=True, type=Path, help="folder of the snapshots")
    parser.add_argument(
        "--store", required=True, help="folder of the LMDB store, or redis://HOST:PORT/DATABASE"
    )
    parser.add_argument(
        "--events",
        metavar="ADDRESS",
        help="a queue of interactions since the model's: a folder, or "
        "redis://HOST:PORT/DATABASE?stream=NAME",
    )
    parser.add_argument(
        "--every-minutes", type=float, metavar="N", help="do it again and again; once by default"
    )
    parser.add_argument(
        "--donors",
        choices=("all", "trained"),
        default="all",
        help="lend all that is known of high-active users, or what training knew (%(default)s)",
    )
    parser.add_argument(
        "--accept-loss",
        action="store_true",
        help="begin with what is there where the queue has lost events, or is another one",
    )
    parser.add_argument("--keep", type=int, default=3, help="snapshots that are left (%(default)s)")
    parser.add_argument(
        "--ray-address", help="embed on this Ray cluster; 'local' for the cores of this machine"
    )
    parser.add_argument("--workers", type=int, help="on the cluster; as many as it has cores")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


@contextmanager
def _alone(snapshots: Snapshots) -> Iterator[None]:
    """Two runners would embed the same users, and each overwrite what the other did."""
    snapshots.root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(snapshots.root / ".runner.lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(
            f"another offline runner publishes to {snapshots.root}; one is enough"
        ) from None


def _may_go_on(stopping: threading.Event, until: float) -> bool:
    return not stopping.is_set() and time.monotonic() < until


def run(args: argparse.Namespace) -> None:
    """Once, or until SIGTERM or SIGINT, which let a run end that has begun."""
    from recbole_mars.serving.embedding import RayEmbedder
    from recbole_mars.serving.events import EventsLost, open_queue
    from recbole_mars.serving.folders import DamagedFolder
    from recbole_mars.serving.offline import OfflineRunner
    from recbole_mars.serving.snapshots import Snapshots
    from recbole_mars.serving.stores import open_store

    if args.keep < 1:
        raise ValueError(f"--keep must be >= 1, got {args.keep}")
    if args.workers is not None and args.ray_address is None:
        raise ValueError(
            f"--workers {args.workers} needs --ray-address, such as 'local'; without one this "
            "process embeds alone"
        )
    if args.every_minutes is not None and not 0 < args.every_minutes < float("inf"):
        raise ValueError(f"--every-minutes must be > 0 and finite, got {args.every_minutes}")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    stopping = threading.Event()
    if args.every_minutes is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: stopping.set())
    with ExitStack() as opened:
        snapshots = Snapshots(args.snapshots)
        opened.enter_context(_alone(snapshots))
        store = opened.enter_context(open_store(args.store))
        queue = None
        if args.events is not None:
            queue = opened.enter_context(open_queue(args.events, group="offline"))
        embedder = None
        if args.ray_address is not None:
            embedder = RayEmbedder(args.model, args.ray_address, args.workers)
            opened.callback(embedder.close)
        runner = OfflineRunner(args.model, store, snapshots, args.donors, embedder, not args.quiet)
        # A round is as long as it takes, but to take from the queue it has the time until the next.
        while True:
            begin = time.monotonic()
            until = math.inf if args.every_minutes is None else begin + 60 * args.every_minutes
            try:
                before = runner.snapshots.names()
                snapshot = runner.run(
                    queue,
                    args.keep,
                    accept_loss=args.accept_loss,
                    only_new=True,
                    go_on=partial(_may_go_on, stopping, until),
                )
                if snapshot.name in before:
                    _logger.info("nothing new: snapshot %s stays", snapshot.name)
                else:
                    _logger.info(
                        "published %s: %s users, %s donors, %.1f s",
                        snapshot.name,
                        snapshot.notes["users"],
                        snapshot.notes["donors"],
                        time.monotonic() - begin,
                    )
            except (OSError, DamagedFolder) as error:
                if args.every_minutes is None or isinstance(error, EventsLost):
                    raise
                _logger.error("this round failed, the next one goes on from there: %s", error)
            if args.every_minutes is None:
                return
            if stopping.wait(max(0.0, 60 * args.every_minutes - (time.monotonic() - begin))):
                return
