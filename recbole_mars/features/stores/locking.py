"""Writers of one folder wait for each other."""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path

from filelock import FileLock

__all__ = ["writing_lock"]


def writing_lock(folder: Path) -> FileLock:
    """The lock that a writer of `folder` holds; it ends with its process, however that ends.

    Taking it again within a thread that holds it is allowed. Raises ValueError if the folder would
    lie in a file.
    """
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{folder} cannot be made, {error.filename} is a file") from error
    path = folder.with_name(f".{folder.name}.lock")
    return _lock_of_holder(path, os.getpid(), threading.get_ident())


@cache  # one lock object can be taken twice, two of one file cannot
def _lock_of_holder(path: Path, process: int, thread: int) -> FileLock:
    return FileLock(path)
