"""Which errors are told in one line: what users got wrong, and not what may be a bug."""

from __future__ import annotations

import traceback
from pathlib import Path

import recbole

__all__ = ["is_a_mistake"]

_FOLDERS = (Path(str(recbole.__file__)).parent, Path(__file__).parents[1])


def is_a_mistake(error: Exception) -> bool:
    """Whether RecBole or recbole_mars raised it: both check what they are given so. One that torch,
    numpy or pandas raised may be a bug, for which the traceback is needed."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(Path(frames[-1].filename).is_relative_to(at) for at in _FOLDERS)
