"""The most memory that a piece of work needed."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

__all__ = ["peak_memory_mb", "reset_peak_memory"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Measure from here on; outside Linux the peak stays that of the whole process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # not Linux, or not allowed
        _RESET.write_text("5")


def peak_memory_mb() -> dict[str, float]:
    """Peak since the reset in MB: "process", what it held before included, and "gpu" if any."""
    found = {"process": _peak_of_process()}
    if torch.cuda.is_available():
        found["gpu"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return found


def _peak_of_process() -> float:
    try:
        lines = _STATUS.read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kilobytes = peak // 1024 if sys.platform == "darwin" else peak
    return round(kilobytes / 1024, 1)
