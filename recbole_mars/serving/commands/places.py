"""A folder on a command line."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

__all__ = ["folder"]


def folder(text: str) -> Path:
    """The path of a folder that is there or may still be made; argparse tells of anything else."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise ArgumentTypeError(
            f"{path} must be a folder, is a file; name a folder, or a place where nothing is yet"
        )
    return path
