"""Files that are whole or absent, and their checksums."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["sha256_of_file", "write_whole"]


def write_whole(
    file: Path, content: str | bytes | memoryview, *, errors: str = "strict", durable: bool = False
) -> None:
    """Write a file beside its place, then put it there in one step; text in UTF-8.

    errors: what becomes of halves of characters, as `str.encode` takes it. durable: wait until the
    disk has it, so that it survives a power cut. A write that fails leaves nothing behind.
    """
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as stream:
            stream.write(content.encode("utf-8", errors) if isinstance(content, str) else content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def sha256_of_file(file: Path) -> str:
    """The SHA-256 of what a file holds, in hexadecimal; it may be larger than the memory."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
