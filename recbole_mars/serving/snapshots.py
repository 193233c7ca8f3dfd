"""Versions of everything that serving needs: published at once, read whole, kept and pruned."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from recbole_mars.serving.folders import (
    DamagedFolder,
    foreign_name,
    read_manifest,
    sync,
    whole_folder,
)

__all__ = ["NoSnapshot", "Snapshot", "Snapshots"]

_CURRENT = "CURRENT"
_NAME = re.compile(r"\d{8}")


class NoSnapshot(FileNotFoundError):
    """Nothing has been published yet."""


@dataclass(frozen=True)
class Snapshot:
    """One published version. notes: what its publisher told of it."""

    folder: Path
    notes: dict[str, Any]

    @property
    def name(self) -> str:
        """Its number, as eight digits."""
        return self.folder.name


class Snapshots:
    """The versions under a folder: 00000001, 00000002, ... and the name of the current one.

    A version is written beside the others, checked by its own checksums, renamed into place and
    only then named as current, by one rename: readers see the old or the new. Writers take turns.

    Raises ValueError for a file, or a folder of something else.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"{self.root} must be a folder of snapshots, is a file")
        if foreign := foreign_name(
            self.root, rf"{_CURRENT}|{_NAME.pattern}|\.(publish|runner)\.lock"
        ):
            raise ValueError(
                f"{self.root} is no folder of snapshots, {foreign} is in it; name another"
            )

    def publish(
        self, write: Callable[[Path], dict[str, Any]], keep: int = 3, current: bool = True
    ) -> Snapshot:
        """Publish what write puts into the folder that it is given; it returns the notes.

        keep: versions left when older ones are removed, the current one among them. current: False
        leaves the new version for a later call of choose.
        Whatever write raises leaves all as it was. Raises ValueError if keep < 1.
        """
        if keep < 1:
            raise ValueError(f"keep must be >= 1, got {keep}")
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".publish.lock"):
            self._sweep()
            number = max((int(name) for name in self.names()), default=0) + 1
            target = self.root / f"{number:08d}"
            notes: dict[str, Any] = {}
            with whole_folder(target, notes) as aside:
                notes.update(write(aside))
            try:
                read_manifest(target)
            except DamagedFolder:  # the disk gave back something else
                shutil.rmtree(target)
                raise
            if current:
                self._name_current(target.name)
            self._prune(keep)
        return Snapshot(target, notes)

    def choose(self, name: str) -> None:
        """Make a version current, for example an older one.

        Raises NoSnapshot if it is not there, DamagedFolder if it is damaged.
        """
        self._folder(name)  # makes no lock where there is nothing
        with FileLock(self.root / ".publish.lock"):
            self.at(name)  # while nothing can prune it
            self._name_current(name)

    def current(self, verify: bool = True) -> Snapshot:
        """The current version. verify: see read_manifest.

        Raises NoSnapshot if there is none, DamagedFolder if it is damaged.
        """
        while True:
            name = self.current_name()
            try:
                return self.at(name, verify)
            except (FileNotFoundError, DamagedFolder) as error:
                if name == self.current_name():
                    if isinstance(error, NoSnapshot):
                        raise DamagedFolder(
                            f"{self.root / _CURRENT} names {name}, which is not there; choose "
                            f"another: {', '.join(self.names()) or 'there is none'}"
                        ) from None
                    raise
                # Pruned since its name was read: a newer one is current.

    def current_name(self) -> str:
        """The name of the current version.

        Raises NoSnapshot if there is none, DamagedFolder if what should name it does not.
        """
        try:
            name = (self.root / _CURRENT).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            raise NoSnapshot(f"{self.root} has no snapshot yet; publish one first") from None
        if not _NAME.fullmatch(name):
            raise DamagedFolder(
                f"{self.root / _CURRENT} must name a version, got {name!r}; choose one: "
                f"{', '.join(self.names()) or 'there is none'}"
            )
        return name

    def newest_whole(self) -> Snapshot | None:
        """The newest version up to the current one that is not damaged; None without any.

        Of all versions where it is not known which is current. Raises NoSnapshot if nothing was
        published.
        """
        names = self.names()
        with suppress(DamagedFolder):
            current = self.current_name()
            names = [name for name in names if name <= current]
        for name in reversed(names):
            with suppress(FileNotFoundError, DamagedFolder):
                return self.at(name)
        return None

    def names(self) -> list[str]:
        """All versions, oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if _NAME.fullmatch(path.name))

    def at(self, name: str, verify: bool = True) -> Snapshot:
        """The version of a name. verify: see read_manifest.

        Raises NoSnapshot if it is not there, DamagedFolder if it is damaged.
        """
        folder = self._folder(name)
        try:
            return Snapshot(folder, read_manifest(folder, verify))
        except FileNotFoundError as error:
            self._folder(name)  # pruned meanwhile
            raise DamagedFolder(f"{error}; take another version") from None

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        if not _NAME.fullmatch(name) or not folder.is_dir():
            raise NoSnapshot(f"{folder} is not there; there are {', '.join(self.names())}")
        return folder

    def _name_current(self, name: str) -> None:
        place = self.root / f".{_CURRENT}"
        place.write_text(name + "\n", encoding="ascii")
        sync(place)
        os.replace(place, self.root / _CURRENT)
        sync(self.root)

    def _sweep(self) -> None:
        """Remove what killed writers left; whoever holds the lock is the only writer."""
        for path in self.root.glob(".[0-9]*-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _prune(self, keep: int) -> None:
        try:
            current = self.current_name()
        except NoSnapshot:
            current = None
        except DamagedFolder:  # any may be the one that was current
            return
        for name in self.names()[:-keep]:
            if name != current:
                # Out of sight at once: a kill while removing leaves no half version.
                hidden = self.root / f".{name}-removed"
                os.rename(self.root / name, hidden)
                shutil.rmtree(hidden, ignore_errors=True)
