"""A checkpoint that is whole or absent, and known to belong to the run that resumes it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["fingerprint", "load_checkpoint", "save_checkpoint"]

_log = logging.getLogger(__name__)


def fingerprint(words: str, arrays: Iterable[np.ndarray]) -> str:
    """A short digest of what a run depends on: its settings in words and its data."""
    digest = hashlib.blake2b(words.encode(), digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write state (tensors and plain values) to path at once, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, run: str) -> dict[str, Any] | None:
    """The state saved at path, or None where a training has to start anew.

    None if there is no file, and, with a warning in the log, if it cannot be read or if its
    "run" is not the given fingerprint.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["run"]
    except Exception as error:  # a damaged file raises nearly anything
        _log.warning("%s is damaged (%s); training starts anew", path, error)
        return None
    if found != run:
        _log.warning("%s is of other settings or data; training starts anew", path)
        return None
    return state
