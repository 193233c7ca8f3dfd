"""Addresses of stores and queues: `scheme:rest`, or the plain path of a folder."""

from __future__ import annotations

import re

__all__ = ["REDIS_SCHEMES", "split_address"]

REDIS_SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")

# Two letters at least, so that C:\folder is a path.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(.*)", re.DOTALL)


def split_address(address: str, embedded: str) -> tuple[str, str]:
    """The scheme of an address and what follows it; for Redis, the whole address.

    embedded: the scheme of a folder, which a plain path has too. A path that looks like a scheme
    can be written `./a:b`.

    Raises ValueError for another scheme and for an address that names nothing.
    """
    match = _SCHEME.fullmatch(address)
    scheme, rest = match.groups() if match else (embedded, address)
    if scheme in REDIS_SCHEMES and rest.startswith("//"):
        return scheme, address
    if scheme == embedded and rest and "\0" not in rest:
        return scheme, rest
    raise ValueError(
        f"address must be {embedded}:FOLDER, the path of a folder, or redis://HOST:PORT/DATABASE "
        f"(or {', '.join(REDIS_SCHEMES[1:])}), got scheme {scheme!r} of {len(address)} characters"
    )
