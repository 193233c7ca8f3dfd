"""Real Redis servers, and processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

START_SECONDS = 20


class RedisServer:
    """A redis-server on a free port, with all it writes in one folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        pytest.importorskip("redis")
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("no redis-server on this machine: apt-get install redis-server")
        self.folder = folder
        self.port = free_port()
        self.address = f"redis://127.0.0.1:{self.port}/0"
        # What was acknowledged survives a stop: AOF, synced at each write
        durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        place = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder))
        self.command = [program, *place, *durable, *options]
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        with closing(self.client()) as client:
            while True:
                try:
                    client.ping()
                    return
                except OSError:
                    pass
                except Exception:
                    if time.monotonic() > deadline or self.process.poll() is not None:
                        pytest.fail((self.folder / "server.log").read_text()[-2000:])
                time.sleep(0.02)

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(with_signal)
            self.process.wait()
            self.process = None

    def client(self):
        import redis

        return redis.Redis(port=self.port, protocol=2)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def session_redis(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(session_redis):
    """A running server that holds nothing."""
    with closing(session_redis.client()) as client:
        client.flushall()
    return session_redis


@pytest.fixture
def own_redis(tmp_path):
    """A server that the test may stop and start."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def session_cluster(tmp_path_factory):
    nodes = []
    for _ in range(2):
        cluster_port = str(free_port())
        nodes.append(
            RedisServer(
                tmp_path_factory.mktemp("node"),
                *("--cluster-enabled", "yes", "--cluster-port", cluster_port),
            )
        )
        nodes[-1].bus = cluster_port
    for node in nodes:
        node.start()
    first, second = (node.client() for node in nodes)
    first.execute_command("CLUSTER ADDSLOTSRANGE", 0, 8191)
    second.execute_command("CLUSTER ADDSLOTSRANGE", 8192, 16383)
    second.execute_command("CLUSTER SET-CONFIG-EPOCH", 2)
    first.execute_command("CLUSTER MEET", "127.0.0.1", nodes[1].port, nodes[1].bus)
    deadline = time.monotonic() + START_SECONDS
    while not all(b"cluster_state:ok" in raw_info(client) for client in (first, second)):
        assert time.monotonic() < deadline, raw_info(first)
        time.sleep(0.05)
    yield nodes
    first.close()
    second.close()
    for node in nodes:
        node.stop()


def raw_info(client) -> bytes:
    """CLUSTER INFO as text, whatever redis-py makes of it."""
    answer = client.execute_command("CLUSTER INFO")
    if isinstance(answer, dict):
        return "\n".join(f"{name}:{value}" for name, value in answer.items()).encode()
    return answer


@pytest.fixture
def cluster_address(session_cluster):
    """The address of a cluster of two nodes that hold nothing."""
    for node in session_cluster:
        with closing(node.client()) as client:
            client.flushall()
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in session_cluster)
    return f"redis+cluster://{nodes}"


class Child:
    """A forked process that says what it has done through a pipe, until it is killed."""

    def __init__(self, work, *arguments) -> None:
        self._read, write = os.pipe()
        self._last = -1
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=self._run, args=(write, work, arguments))
        self.process.start()
        os.close(write)

    def _run(self, write, work, arguments) -> None:
        os.close(self._read)
        work(lambda number: os.write(write, number.to_bytes(8, "big")), *arguments)

    def hear(self) -> int:
        """The next number that it says; fails where it ended without saying one."""
        said = os.read(self._read, 8)
        assert len(said) == 8, f"the child ended with exit code {self.join()}"
        self._last = int.from_bytes(said, "big")
        return self._last

    def kill(self) -> int:
        """Kill it; returns the last number that it said, -1 for none."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL
        while said := os.read(self._read, 8):
            self._last = int.from_bytes(said, "big")
        os.close(self._read)
        return self._last

    def join(self) -> int | None:
        self.process.join()
        return self.process.exitcode


@pytest.fixture
def child():
    """Start `work(say, *arguments)` in a forked process; those still alive are killed."""
    children: list[Child] = []

    def start(work, *arguments) -> Child:
        children.append(Child(work, *arguments))
        return children[-1]

    yield start
    for started in children:
        if started.process.is_alive():
            started.process.kill()
            started.process.join()
