"""Train the CTR network on a queue of interactions, and publish its weights as snapshots."""

from __future__ import annotations

import argparse
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_mars.serving.commands.threads import threads

if TYPE_CHECKING:
    from recbole_mars.serving.snapshots import Snapshots

__all__ = ["add_arguments", "run"]

_LOOK_SECONDS = 0.5  # between looks for the first snapshot
_logger = logging.getLogger(__name__)

_NUMBERS = {
    "publish_minutes": (float, "from one snapshot to the next, 20 by default"),
    "batch_size": (int, "new events of a step, 256 by default"),
    "commit_batches": (int, "steps from one saved state to the next, 20 by default"),
    "learning_rate": (float, "of AdamW, 0.0001 by default"),
    "weight_decay": (float, "of AdamW, 0 by default"),
    "max_norm": (float, "to which gradients are cut, 1 by default"),
    "max_loss_increase": (
        float,
        "do not publish weights whose log loss on recent events exceeds that of the published ones "
        "by more; not compared by default",
    ),
    "keep": (int, "snapshots that are left, 3 by default"),
    "seed": (int, "of dropout, 0 by default"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `train` can be told."""
    parser.add_argument("--snapshots", required=True, type=Path, help="folder of the snapshots")
    parser.add_argument(
        "--events",
        required=True,
        metavar="ADDRESS",
        help="the queue: a folder, or redis://HOST:PORT/DATABASE?stream=NAME",
    )
    parser.add_argument(
        "--state", required=True, type=Path, help="folder of the training itself, empty at first"
    )
    parser.add_argument(
        "--once", action="store_true", help="stop at the end of the queue, and publish"
    )
    parser.add_argument(
        "--accept-loss",
        action="store_true",
        help="go on with what is left where the queue no longer has all events",
    )
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="in a new state folder: go on behind what the published weights have learnt",
    )
    parser.add_argument("--torch-threads", type=threads, help="default: the number of cores")
    parser.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error")
    )
    numbers = parser.add_argument_group("numbers")
    for name, (kind, text) in _NUMBERS.items():
        numbers.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text)


def run(args: argparse.Namespace) -> None:
    """Train until SIGTERM or SIGINT, which save what was trained on; or until the queue's end."""
    import torch

    from recbole_mars.serving.events import open_queue
    from recbole_mars.serving.snapshots import Snapshots
    from recbole_mars.serving.training import StreamSettings, StreamTrainer

    logging.basicConfig(
        level=args.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if args.torch_threads is not None:
        torch.set_num_threads(args.torch_threads)
    known = {field.name for field in fields(StreamSettings)} & vars(args).keys()
    given = {name: value for name, value in vars(args).items() if name in known}
    settings = StreamSettings(**{name: value for name, value in given.items() if value is not None})
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stopping.append(number))
    snapshots = Snapshots(args.snapshots)
    if not args.once:
        _wait_for_the_first(snapshots, lambda: bool(stopping))
    if stopping:
        return
    with (
        open_queue(args.events, group="training") as queue,
        StreamTrainer(snapshots, queue, args.state, settings) as trainer,
    ):
        trainer.run(once=args.once, stopped=lambda: bool(stopping))


def _wait_for_the_first(snapshots: Snapshots, stopped: Callable[[], bool]) -> None:
    """The offline runner may just have been started."""
    told = False
    while not stopped():
        try:
            snapshots.current_name()
            return
        except FileNotFoundError as error:
            if not told:
                _logger.info("%s; training begins with it", error)
            told = True
        time.sleep(_LOOK_SECONDS)
