"""What a trainer keeps on the disk, changed from one sound state to the next in one step."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from recbole_mars.serving.folders import (
    DamagedFolder,
    link_folder,
    read_manifest,
    sync,
    whole_folder,
)
from recbole_mars.serving.snapshots import Snapshot
from recbole_mars.serving.stores import LMDBStore
from recbole_mars.serving.tensors import load_tensors, save_tensors

__all__ = ["Progress", "StateFolder"]

_STATE = b"m/trainer"
_RECORDS, _BASES, _LOCK = "records", "bases", ".lock"
_LINKED = ("model", "donors")


@dataclass(frozen=True)
class Progress:
    """How far training has come.

    run: a name of this training. base: the snapshot that the published weights, the donors and all
    that is frozen are taken from. based_at: the step at which that was. step: steps done. offset:
    of the last event that has taken effect, None for none. samples: events trained on. skipped:
    events that were not, by kind. file: with weights and optimizer after `step`, "" before any.
    known_to: offset up to which the weights had learnt from events when this training took over.
    """

    run: str
    base: str
    based_at: int = 0
    step: int = 0
    offset: str | None = None
    samples: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    file: str = ""
    known_to: str | None = None


class StateFolder:
    """Weights, optimizer, users' records and progress in a folder, for one trainer at a time.

    store: the users' records. progress: as it was saved last, None in a new folder.
    Raises ValueError if another trainer uses the folder, or it holds what is no trainer's.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._refuse_foreign()
        self._lock = FileLock(self.folder / _LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"another trainer uses {self.folder}; end it, or name another folder"
            ) from None
        with ExitStack() as opened:
            opened.callback(self._lock.release)
            self.store = opened.enter_context(LMDBStore(self.folder / _RECORDS))
            self.progress = self._read_progress()
            self._sweep()
            opened.pop_all()  # both stay open until close

    def base(self, name: str) -> Path:
        """Where the parts of a snapshot are linked to."""
        return self.folder / _BASES / name

    def has_base(self, name: str) -> bool:
        """Whether they are there, and as they were written."""
        try:
            read_manifest(self.base(name))
        except (FileNotFoundError, DamagedFolder):
            return False
        return True

    def base_notes(self, name: str) -> dict[str, Any]:
        """The notes of a snapshot that was linked; whether it has changed, has_base looks."""
        return read_manifest(self.base(name), verify=False)

    def link(self, snapshot: Snapshot) -> None:
        """Keep what training needs of a snapshot, whatever becomes of it: links cost no space.

        Raises FileNotFoundError if it is removed meanwhile.
        """
        if self.has_base(snapshot.name):
            return
        shutil.rmtree(self.base(snapshot.name), ignore_errors=True)
        with whole_folder(self.base(snapshot.name), snapshot.notes) as aside:
            for part in _LINKED:
                if (snapshot.folder / part).is_dir():
                    link_folder(snapshot.folder / part, aside / part)
            read_manifest(snapshot.folder, verify=False)  # it was there all the time

    def load(self) -> dict[str, Tensor]:
        """The tensors of the last commit, none before any; ValueError if they are damaged."""
        if self.progress is None or not self.progress.file:
            return {}
        return load_tensors(self.folder / self.progress.file)

    def commit(
        self,
        progress: Progress,
        tensors: Mapping[str, Tensor] | None = None,
        records: Mapping[bytes, bytes] | None = None,
    ) -> Progress:
        """Save progress, tensors (None: as before) and changed records: all or nothing.

        Returns the progress with the tensors' file.
        """
        self.store.ping()  # once closed, the folder may be another trainer's
        if tensors is not None:
            file = self._write(tensors, f"step-{progress.step:012d}.safetensors")
            progress = Progress(**{**asdict(progress), "file": file})
        state = json.dumps(asdict(progress)).encode()
        self.store.put_many({**(records or {}), _STATE: state})
        self.progress = progress
        self._sweep()
        return progress

    def close(self) -> None:
        self.store.close()
        self._lock.release()

    def _refuse_foreign(self) -> None:
        """What no state names is removed here, so the folder must be a trainer's own."""
        for path in sorted(self.folder.iterdir()):
            own = path.name in (_RECORDS, _BASES, _LOCK)
            if not own and not re.match(r"\.?step-", path.name):
                raise ValueError(
                    f"{self.folder} is no folder of a training, {path.name} is in it; name a new "
                    "or empty one"
                )

    def _read_progress(self) -> Progress | None:
        data = self.store.get(_STATE)
        try:
            return None if data is None else Progress(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.folder} holds the state of another version of training ({error}); name an "
                "empty folder"
            ) from None

    def _write(self, tensors: Mapping[str, Tensor], name: str) -> str:
        aside = self.folder / f".{name}"
        try:
            # A folder, for safetensors has files of its own beside the one it writes.
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            save_tensors(tensors, aside / name)
            sync(aside / name)
            os.replace(aside / name, self.folder / name)
        except OSError as error:
            raise OSError(f"{self.folder / name} cannot be written: {error}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        sync(self.folder)
        return name

    def _sweep(self) -> None:
        """Remove what no state names: of earlier ones, and of commits that were cut short."""
        file = self.progress.file if self.progress else ""
        base = self.progress.base if self.progress else ""
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("step-*"):
            if path.name != file:
                path.unlink(missing_ok=True)
        for path in (self.folder / _BASES).glob("*"):
            if path.name != base:
                shutil.rmtree(path, ignore_errors=True)
