"""Where a result comes from: the commit and the machine."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

__all__ = ["commit", "machine"]

_PACKAGE = Path(__file__).resolve().parents[1]


def commit() -> str | None:
    """The commit of the checkout that this package lies in, with "-dirty" if the package or the
    settings differ from it; None outside a checkout."""
    root = _git("rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != _PACKAGE.parent:
        return None  # installed; a checkout around it is another project's
    found = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--", _PACKAGE.name, "properties")
    return f"{found}-dirty" if found and changed else found


def machine() -> dict[str, Any]:
    """Processor, threads and torch, and the graphics card if there is one."""
    found = {"cpu": _processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(_PACKAGE.parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
