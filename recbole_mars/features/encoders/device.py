"""On what device and with what numbers a pretrained model computes."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["DTYPES", "pick_device", "pick_dtype"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the first CUDA device if there is one, else the CPU.

    Raises ValueError if there is no device of that name here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device must be one that is here, 'auto' or {_devices()}, got {name!r}; "
            f"'auto' takes the GPU if there is one"
        ) from error
    if device.type == "meta":
        raise ValueError("device 'meta' holds no values; use 'auto' or 'cpu'")
    return device


def pick_dtype(name: str, config: Any) -> torch.dtype:
    """The type that a model computes in; "auto" is that of its checkpoint.

    So the machine does not change the vectors. config: the model's, of `transformers`; where it
    names no type, nor does that of its text or vision part, "auto" is float32.

    Raises ValueError for another name.
    """
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise ValueError(
            f"dtype must be 'auto' or one of {sorted(DTYPES)}, got {name!r}; "
            f"'auto' is the checkpoint's own"
        )
    parts = [config, *(getattr(config, part, None) for part in ("text_config", "vision_config"))]
    for part in parts:
        dtype = getattr(part, "dtype", None)
        if isinstance(dtype, str):
            dtype = getattr(torch, dtype.replace("torch.", ""), None)
        if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
            return dtype
    return torch.float32


def _devices() -> str:
    """The names of the devices that are here."""
    names = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return ", ".join(map(repr, names))
