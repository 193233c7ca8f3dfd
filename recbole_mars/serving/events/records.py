"""Framed records of a log segment: how they are written, read, and told from damage.

A record is magic (3 bytes), flags (1), payload length (4), crc32 of the last two and the payload
(4), payload. The payload is ASCII, in which no byte of the magic occurs but its version, so the
beginning of a record can be found again after damage. The flag on the first record of each append
tells a torn end from damage: an append begins only when all before it is on the disk, so what is
broken and has an append behind it was whole once.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

__all__ = ["append_follows", "frame", "records"]

_MAGIC = b"\xf5\xe1\x01"
_HEADER = struct.Struct(">3sBII")
_FIRST = 1
_BLOCK = 1 << 20  # longer than any record
_MAX_PAYLOAD = _BLOCK - _HEADER.size


def frame(payload: bytes, *, is_first: bool) -> bytes:
    """A record. is_first: it is the first one of an append."""
    if len(payload) > _MAX_PAYLOAD:
        raise ValueError(f"a record must have at most {_MAX_PAYLOAD} bytes, got {len(payload)}")
    flags = _FIRST if is_first else 0
    return _HEADER.pack(_MAGIC, flags, len(payload), _checksum(flags, payload)) + payload


def records(descriptor: int, position: int) -> Iterator[tuple[int, bytes]]:
    """Where each record ends and its payload, up to the first one that is not whole.

    descriptor: of a segment open for reading. position: where the first record begins.
    """
    block, start = b"", position
    while True:
        record = _parse(block, position - start)
        if record is None:  # its end may only not have been read yet
            block, start = os.pread(descriptor, _BLOCK, position), position
            record = _parse(block, 0)
            if record is None:
                return
        payload = record[1]
        position += _HEADER.size + len(payload)
        yield position, payload


def append_follows(descriptor: int, position: int) -> bool:
    """Whether anywhere behind `position` an append begins with a whole record."""
    rest = os.pread(descriptor, max(os.fstat(descriptor).st_size - position, 0), position)
    at = rest.find(_MAGIC, 1)
    while at >= 0:
        record = _parse(rest, at)
        if record is not None and record[0] & _FIRST:
            return True
        at = rest.find(_MAGIC, at + 1)
    return False


def _parse(block: bytes, at: int) -> tuple[int, bytes] | None:
    """Flags and payload of the record at `at`, None where there is no whole one."""
    if len(block) - at < _HEADER.size:
        return None
    magic, flags, length, checksum = _HEADER.unpack_from(block, at)
    payload = block[at + _HEADER.size : at + _HEADER.size + length]
    if magic != _MAGIC or len(payload) < length or checksum != _checksum(flags, payload):
        return None
    return flags, payload


def _checksum(flags: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack(">BI", flags, len(payload))))
