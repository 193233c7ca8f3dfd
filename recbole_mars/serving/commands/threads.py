"""A number of threads on a command line."""

from __future__ import annotations

__all__ = ["threads"]


def threads(text: str) -> int:
    """Raises ValueError, which argparse tells, below one."""
    if int(text) < 1:
        raise ValueError
    return int(text)
