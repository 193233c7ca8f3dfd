"""Files of tensors, whose errors are Python's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["load_tensors", "save_tensors"]


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; raises OSError if that fails, for example on a full disk."""
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:  # neither an OSError nor a ValueError
        raise OSError(f"{path.name}: {error}") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises FileNotFoundError if it is not there, ValueError if it is damaged.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}; take another version") from error
