"""Answer click probabilities over HTTP, from the newest snapshot and a store of users."""

from __future__ import annotations

import argparse
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_mars.serving.commands.threads import threads

if TYPE_CHECKING:
    from recbole_mars.serving.service import ServiceSettings

__all__ = ["add_arguments", "run"]

_LIMITS = {
    "max_body_bytes": (int, "bytes of a request's body"),
    "max_candidates": (int, "candidates of a request"),
    "max_recent": (int, "recent behaviours of a request"),
    "concurrency": (int, "scoring requests at once; more get 429"),
    "seconds": (float, "that a scoring request may take"),
    "batch_seconds": (float, "that a request waits for others to be scored with it, 0 for none"),
    "batch_candidates": (int, "from which on a batch waits for no more"),
    "queue": (int, "requests being prepared or waiting to be scored; more get 503"),
    "preparing_threads": (int, "threads that look users up and search"),
    "poll_seconds": (float, "between looks for a new snapshot"),
}

# Seconds. Balancers and clients keep idle connections for a minute; closed earlier from this side,
# a connection may break just as the next request is sent.
_KEEP_ALIVE = 75


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `serve` can be told."""
    parser.add_argument("--snapshots", required=True, type=Path, help="folder of the snapshots")
    parser.add_argument(
        "--store",
        required=True,
        help="folder of the LMDB store, or redis://HOST:PORT/DATABASE; with ?timeout=N it may take "
        "N seconds, a quarter of --seconds by default",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-key-file", type=Path, help="file whose first line is the API key")
    parser.add_argument(
        "--torch-threads", type=threads, default=1, help="of the network (%(default)s)"
    )
    parser.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error")
    )
    parser.add_argument(
        "--stop-seconds", type=int, default=30, help="for running requests once it is to stop"
    )
    limits = parser.add_argument_group("limits and times")
    limits.add_argument(
        "--head-seconds",
        type=float,
        default=10,
        metavar="N",
        help="for a request's head to come whole, or the rest of a body that is answered already, "
        "or the connection is closed (%(default)s)",
    )
    for name, (kind, text) in _LIMITS.items():
        limits.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text)


def run(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT; running requests are answered before it stops."""
    import torch
    from threadpoolctl import threadpool_limits

    from recbole_mars.serving.optional import import_optional

    uvicorn = import_optional("uvicorn")
    from recbole_mars.serving.redis_connection import DEFAULT_TIMEOUT
    from recbole_mars.serving.service import Engine, create_app
    from recbole_mars.serving.service.connections import protocol_of
    from recbole_mars.serving.service.logs import log_to_stderr
    from recbole_mars.serving.snapshots import Snapshots
    from recbole_mars.serving.stores import open_store

    if not args.head_seconds > 0:
        raise ValueError(f"--head-seconds must be > 0, got {args.head_seconds}")
    log_to_stderr(args.log_level)
    torch.set_num_threads(args.torch_threads)
    settings = _settings(args)
    snapshots = Snapshots(args.snapshots)
    _see_that_the_port_is_free(args.host, args.port)
    # Without the store a request is still answered, which also takes its time.
    timeout = min(DEFAULT_TIMEOUT, settings.seconds / 4)
    with open_store(args.store, read_only=True, timeout=timeout) as store:
        config = uvicorn.Config(
            create_app(Engine(snapshots, store), settings),
            host=args.host,
            port=args.port,
            http=protocol_of(args.head_seconds),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=args.stop_seconds,
            timeout_keep_alive=_KEEP_ALIVE,
        )
        server = uvicorn.Server(config)

        def stop(number: int, frame: object) -> None:
            server.should_exit = True

        # Uvicorn raises the signal that stopped it anew: with these it then ends with status 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        # A request's products are too small to share out: BLAS' other threads would only spin.
        with threadpool_limits(1, user_api="blas"):
            server.run()


def _see_that_the_port_is_free(host: str, port: int) -> None:
    """Before anything is loaded, and as one line: Uvicorn would tell it after both."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        raise OSError(f"--host {host} --port {port} cannot be listened to: {error}") from None


def _settings(args: argparse.Namespace) -> ServiceSettings:
    from recbole_mars.serving.service import ServiceSettings

    given = {name: getattr(args, name) for name in _LIMITS if getattr(args, name) is not None}
    if args.api_key_file is not None:
        given["api_key"] = _first_line(args.api_key_file)
    return ServiceSettings(**given)


def _first_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        # A decoding error's message holds bytes of the key.
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ValueError(
            f"--api-key-file {file} cannot be read: {reason}; name a file whose first line is the "
            "key"
        ) from None
    return lines[0].strip() if lines else ""
