"""From a model folder to a service with the page, in this process."""

from __future__ import annotations

import hashlib
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI

from recbole_mars.serving.folders import MANIFEST
from recbole_mars.serving.offline import OfflineRunner
from recbole_mars.serving.optional import import_optional
from recbole_mars.serving.service import Engine, ServiceSettings, create_app
from recbole_mars.serving.showcase.cards import read_cards
from recbole_mars.serving.showcase.directory import Directory
from recbole_mars.serving.showcase.routes import Showcase
from recbole_mars.serving.showcase.telling import tell_answers
from recbole_mars.serving.snapshots import Snapshots
from recbole_mars.serving.stores import open_store

__all__ = ["listening", "running", "serve_showcase"]

_HOST = "127.0.0.1"
_SECONDS = 10.0  # for a request: on a busy laptop too


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket that only this machine reaches. port: 0 for a free one.

    Raises ValueError if it cannot be had.
    """
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((_HOST, port))
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"port {port} cannot be had ({error}); take another, such as --port 8001"
            ) from None
        yield found


def serve_showcase(
    model: Path,
    cards: Path,
    folder: Path,
    sock: socket.socket,
    once: bool,
    tell: Callable[[str], None],
) -> None:
    """Run the offline runner and the service, ask it something, and serve until Ctrl-C.

    cards: items.json. folder: gets store and snapshots. once: stop after the questions.
    """
    shown, place = read_cards(cards), _place_of(model, folder)
    tell(f"Model      {model}")
    begun = time.perf_counter()
    snapshots = Snapshots(place / "snapshots")
    with open_store(str(place / "store")) as store:
        snapshot = OfflineRunner(model, store, snapshots).run()
        tell(
            f"Snapshot   {snapshot.folder}: {snapshot.notes['users']} users, "
            f"{snapshot.notes['donors']} of whom lend; {time.perf_counter() - begun:.1f} s"
        )
        engine = Engine(snapshots, store)
        if engine.reload_if_new() != "loaded" or engine.loaded is None:
            raise ValueError(f"{snapshot.folder} cannot be loaded; the line above says why")
        directory = Directory(engine.loaded.scorer.model, store)
        app = create_app(engine, ServiceSettings(seconds=_SECONDS))
        app.include_router(Showcase(engine, directory, shown).router)
        with running(app, sock) as address:
            tell(f"Service    {address}\n")
            tell_answers(address, tell)
            if not once:
                ended = _signals()
                tell(f"Page       {address}/\n           Ctrl-C ends it.")
                ended.wait()


@contextmanager
def running(app: FastAPI, sock: socket.socket) -> Iterator[str]:
    """The application in a thread, ready; its address."""
    uvicorn = import_optional("uvicorn")
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise OSError("the service could not be started; the line above says why")
        time.sleep(0.01)
    try:
        yield f"http://{_HOST}:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def _place_of(model: Path, folder: Path) -> Path:
    """Where this model's store and snapshots are; those of earlier models are removed."""
    name = hashlib.sha256((model / MANIFEST).read_bytes()).hexdigest()[:16]
    for other in folder.glob("*"):
        if other.name != name:
            shutil.rmtree(other)
    return folder / name


def _signals() -> threading.Event:
    """What Ctrl-C or SIGTERM sets from now on."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: ended.set())
    return ended
