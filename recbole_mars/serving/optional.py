"""Packages that only serving needs."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["import_optional"]


def import_optional(name: str) -> ModuleType:
    """The module of that name, of a package of the extra `serving`.

    Raises ImportError with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(
            f"{package} is needed and cannot be imported ({error}); "
            f"pip install recbole_mars[serving]"
        ) from error
