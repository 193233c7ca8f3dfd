"""Result files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file beside its place, then put it there in one step; text in UTF-8."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(unfinished, file)
