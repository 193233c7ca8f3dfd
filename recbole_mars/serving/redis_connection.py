"""Connections to Redis, one server or a cluster, that come back by themselves."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from recbole_mars.serving.addresses import REDIS_SCHEMES
from recbole_mars.serving.optional import import_optional

__all__ = ["RedisAddress", "RedisConnection"]

_DEFAULT_PORT = 6379
_DEFAULT_TIMEOUT = 5.0
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis server or cluster is, and as whom it is entered.

    nodes: host and port of the server, or of the nodes that a cluster is first asked at. timeout:
    seconds that connecting and each answer may take. options: what else stood after the `?`.
    """

    scheme: str
    nodes: tuple[tuple[str, int], ...]
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = _DEFAULT_TIMEOUT
    tls_files: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, address: str, known_options: Collection[str] = ()) -> RedisAddress:
        """Read `redis://USER:PASSWORD@HOST:PORT/DATABASE?timeout=SECONDS&...`.

        The scheme is `rediss` for TLS, with `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` as
        options that name files. With `redis+cluster` and `rediss+cluster` there is no database,
        and several nodes may stand between commas. known_options: those that the caller reads.

        Raises ValueError, which never holds the password, for anything else.
        """
        try:
            parts = urlsplit(address)
        except ValueError:  # its message may hold the password
            raise ValueError("a Redis address must be a URL: redis://HOST:PORT/DATABASE") from None
        if parts.scheme not in REDIS_SCHEMES:
            raise ValueError(f"scheme must be one of {REDIS_SCHEMES}, got {parts.scheme!r}")
        user, at, hosts = parts.netloc.rpartition("@")
        username, _, password = user.partition(":")
        nodes = tuple(_node(host) for host in hosts.split(","))
        database = parts.path.strip("/")
        if "cluster" in parts.scheme:
            if database:
                raise ValueError(f"a Redis cluster has no numbered databases, got {database!r}")
        elif len(nodes) > 1:
            raise ValueError(f"several nodes need {parts.scheme}+cluster://, got {hosts!r}")
        elif not (database or "0").isdecimal():
            raise ValueError(f"the database of {hosts} must be a number, got {database!r}")
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        options = dict(given)
        known = {"timeout", *_TLS_FILES, *known_options}
        if unknown := sorted(set(options) - known) or len(options) < len(given):
            raise ValueError(
                f"options of {hosts} must be of {sorted(known)}, once each, got {unknown}"
            )
        return cls(
            scheme=parts.scheme,
            nodes=nodes,
            database=int(database or 0),
            username=unquote(username) or None,
            password=unquote(password) if at and password else None,
            timeout=_seconds(options.pop("timeout", str(_DEFAULT_TIMEOUT))),
            tls_files=tuple((name, options.pop(name)) for name in _TLS_FILES if name in options),
            options=tuple(options.items()),
        )

    @property
    def is_cluster(self) -> bool:
        return self.scheme.endswith("+cluster")

    def __str__(self) -> str:
        """The address without user, password and options, for messages."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.nodes)
        return f"{self.scheme}://{hosts}" + ("" if self.is_cluster else f"/{self.database}")

    def client(self, retries: int) -> Any:
        """A client of redis-py; one of a cluster asks it at once for its nodes.

        retries: how often a command is sent again after a connection broke or timed out.
        """
        redis = import_optional("redis")
        retry = import_optional("redis.retry").Retry(
            import_optional("redis.backoff").NoBackoff(), retries
        )
        common: dict[str, Any] = {
            "username": self.username,
            "password": self.password,
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "protocol": 2,  # answers then have the same form in all versions of redis-py
            "retry": retry,
        }
        if self.scheme.startswith("rediss"):
            common.update({"ssl": True, **dict(self.tls_files)})
        if self.is_cluster:
            cluster = import_optional("redis.cluster")
            nodes = [cluster.ClusterNode(host, port) for host, port in self.nodes]
            return cluster.RedisCluster(startup_nodes=nodes, **common)
        ((host, port),) = self.nodes
        lost = [redis.ConnectionError, redis.TimeoutError] if retries else []
        return redis.Redis(host=host, port=port, db=self.database, retry_on_error=lost, **common)


class RedisConnection:
    """One client for all threads, made at its first use; what goes wrong is reported as one error.

    A server that is away is tried anew at each use, so nothing is to be done when it is back.
    """

    def __init__(self, address: RedisAddress, error: type[OSError], *, retries: int) -> None:
        self.address = address
        self._error = error
        self._retries = retries
        self._client: Any = None
        self._closed = False
        self._lock = threading.Lock()
        redis = import_optional("redis")
        cluster_error = import_optional("redis.exceptions").RedisClusterException
        self._away = (redis.ConnectionError, redis.TimeoutError, cluster_error, OSError)
        self._refusals = redis.RedisError

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Use the client. Errors of Redis inside become the caller's kind of error."""
        try:
            yield self._opened()
        except self._error:
            raise
        except self._away as error:
            raise self._error(
                f"Redis at {self.address} cannot be reached: {_reason(error)}; start it or correct "
                f"the address, the next use tries again"
            ) from None
        except self._refusals as error:
            raise self._error(f"Redis at {self.address} refused: {_reason(error)}") from None

    def close(self) -> None:
        """Close all connections; using them afterwards is an error."""
        with self._lock:
            self._closed = True
            if self._client is not None:
                self._client.close()
                self._client = None

    def _opened(self) -> Any:
        with self._lock:
            if self._closed:
                raise self._error(f"the connection to Redis at {self.address} is closed")
            if self._client is None:
                self._client = self.address.client(self._retries)
            return self._client


def _reason(error: Exception) -> str:
    """Its text without the command, which tells what users did."""
    return str(error).rpartition(" of pipeline caused error: ")[2]


def _node(host: str) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[::1]:port`."""
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    if not name:  # not shown: it may be a part of a password
        raise ValueError(
            "a Redis address must name HOST:PORT; "
            "in a password write / @ : ? # as %2F %40 %3A %3F %23"
        )
    return name, port or _DEFAULT_PORT


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"timeout must be a number of seconds > 0, got {text!r}")
    return seconds
