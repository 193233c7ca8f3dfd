"""Processes that the serving benchmarks start, and a client that keeps its connections."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 120
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A command of `python -m recbole_mars.serving` or another program, its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, **environment: str) -> None:
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                list(command), stdout=out, stderr=out, env={**os.environ, **environment}
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 60) -> int:
        """Ask it to end; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def memory(self) -> tuple[int, int]:
        """See memory_of."""
        return memory_of(self.pid)

    def cpu_seconds(self) -> float:
        """Processor time that it has taken so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def serving(command: str, *options: object) -> list[str]:
    """The command line of a sub-command."""
    return [sys.executable, "-m", "recbole_mars.serving", command, *map(str, options)]


class Service(Process):
    """The online service on a free port of this machine, ready once it is made."""

    def __init__(self, snapshots: Path, store: str, log: Path, *options: object) -> None:
        self.port = free_port()
        places = ("--snapshots", snapshots, "--store", store, "--port", self.port)
        super().__init__(serving("serve", *places, *options), log)
        deadline = time.monotonic() + START_SECONDS
        while self.get("/readyz")[0] != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the service did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET; 0 where nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as got:
                return got.status, got.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def metric(self, name: str) -> float:
        """A number of /metrics, summed over its labels."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.partition("{")[0].partition(" ")[0] == name
        )


class Redis(Process):
    """A Redis server on a free port (or the one given) that loses nothing once acknowledged."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise SystemExit("redis-server is needed: apt-get install redis-server")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.address = f"redis://127.0.0.1:{self.port}/0"
        durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        place = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder))
        super().__init__([program, *place, *durable], folder / "server.log")
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text()[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        """Whether it is there, and has read what it had written."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def memory_of(process: int | str) -> tuple[int, int]:
    """Bytes in memory that are its own, and all of them, pages of mapped files included."""
    found = {}
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "VmRSS"):
            found[name] = 1024 * int(value.split()[0])
    return found["RssAnon"], found["VmRSS"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def ended(*processes: Process) -> Iterator[None]:
    """Whatever happens inside, the processes are over behind it."""
    try:
        yield
    finally:
        for process in processes:
            if process.process.poll() is None:
                process.kill()


class Client:
    """Requests over connections that are kept; as many as are needed at once."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes, path: str = "/v1/ctr") -> tuple[int, bytes]:
        """Status and body; 0 and the error's name where the connection broke."""
        return await self.send(post(body, path))

    async def send(self, message: bytes, seconds: float = 60) -> tuple[int, bytes]:
        """As post, of a request as it goes over the wire. seconds: to wait for the answer."""
        try:
            return await asyncio.wait_for(self._exchange(message), seconds)
        except (OSError, EOFError, asyncio.TimeoutError, asyncio.LimitOverrunError) as error:
            return 0, type(error).__name__.encode()

    async def _exchange(self, message: bytes) -> tuple[int, bytes]:
        reader, writer = await self._connection()
        try:
            writer.write(message)
            while (head := await reader.readuntil(b"\r\n\r\n"))[9:10] == b"1":
                pass  # of 100 Continue, which an answer follows
            fields = _fields(head)
            size = 0 if message.startswith(b"HEAD") else int(fields.get(b"content-length", b"0"))
            content = await reader.readexactly(size)
        except BaseException:
            writer.close()
            raise
        if fields.get(b"connection", b"").lower() == b"close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head[9:12]), content

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():  # else the service has closed it meanwhile
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


def post(body: bytes, path: str = "/v1/ctr") -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines: Iterable[bytes] = head.split(b"\r\n")[1:]
    pairs = (line.partition(b":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
