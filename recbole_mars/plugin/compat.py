"""The versions that RecBole 1.2.1 works with, and what newer ones need."""

from __future__ import annotations

import re
import types
from importlib.metadata import PackageNotFoundError, version

import torch

__all__ = ["check_versions", "load_trusted_checkpoints"]

# package: (lowest version, first version that no longer works, what goes wrong)
_BOUNDS = {
    "recbole": ("1.2.1", "1.2.2", "recbole_mars plugs into 1.2.1's own classes"),
    "numpy": ("1.22", "2", "RecBole uses np.float_ and others that numpy 2 removed"),
    "pandas": ("1.4", "3", "RecBole's chained fillna silently leaves data unfilled with pandas 3"),
}


def check_versions() -> None:
    """Refuse package versions that would fail later or, worse, give silently wrong data.

    Raises ImportError naming the package, its version, the bounds and the command that mends it.
    """
    for package, (lowest, broken, reason) in _BOUNDS.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            raise ImportError(
                f"recbole_mars needs {package}; install it with: "
                f"pip install '{package}>={lowest},<{broken}'"
            ) from None
        if not _numbers(lowest) <= _numbers(found) < _numbers(broken):
            raise ImportError(
                f"recbole_mars needs {package}>={lowest},<{broken} but found {found}: {reason}. "
                f"Install it with: pip install '{package}>={lowest},<{broken}'"
            )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"\d+(\.\d+)*", text).group().split("."))  # type: ignore[union-attr]


class _TorchForRecBole(types.ModuleType):
    """torch as RecBole's trainer sees it: load() reads the checkpoints that RecBole itself wrote.

    They hold its Config object, which torch>=2.6 refuses unless told that the file is trusted.
    Only RecBole's own calls are affected; torch.load elsewhere keeps its safe default.
    """

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)

    @staticmethod
    def load(file: object, *args: object, **options: object) -> object:
        # Unsafe for a stranger's file: RecBole's trainer reads those that its user trained or
        # names, and they cannot be read otherwise.
        options.setdefault("weights_only", False)
        return torch.load(file, *args, **options)  # type: ignore[arg-type]


def load_trusted_checkpoints(module: types.ModuleType) -> None:
    """Let a RecBole module load RecBole's checkpoints under any torch version."""
    module.torch = _TorchForRecBole("torch")  # type: ignore[attr-defined]
