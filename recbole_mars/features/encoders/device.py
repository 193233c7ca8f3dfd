"""Where a pretrained model runs, and in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["DTYPES", "pick_device", "pick_dtype"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """The device of this name; 'auto' is the GPU if there is one, else the CPU.

    Raises ValueError if torch knows no such device, or if it is a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device must be 'auto' or a device of torch such as 'cpu' or 'cuda:0', got {name!r}"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} needs a GPU that torch can use, found {torch.cuda.device_count()}; "
            f"use 'auto' or 'cpu', or check the driver and torch's build"
        )
    return device


def pick_dtype(name: str, config: Any) -> torch.dtype:
    """The precision of this name; 'auto' is the checkpoint's own, float32 if it says nothing.

    config: of `transformers`, or the content of a config.json. Raises ValueError for other names.
    """
    if name == "auto":
        read = config.get if isinstance(config, Mapping) else lambda key: getattr(config, key, None)
        own = read("dtype") or read("torch_dtype") or torch.float32
        name = str(own).replace("torch.", "")
    if name not in DTYPES:
        raise ValueError(f"dtype must be 'auto' or one of {sorted(DTYPES)}, got {name!r}")
    return DTYPES[name]
