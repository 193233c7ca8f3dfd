"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tests are tiny: more threads only get into each other's way. Read when torch and faiss load.
os.environ.setdefault("OMP_NUM_THREADS", "2")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: $RECBOLE_MARS_DATA, else shared/data beside the repository."""
    named = os.environ.get("RECBOLE_MARS_DATA")
    if named and not Path(named).is_dir():
        pytest.fail(f"RECBOLE_MARS_DATA must name a folder, got {named!r}")
    folder = Path(named) if named else SHARED_DATA
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is missing; set RECBOLE_MARS_DATA to its folder")
    return folder


@pytest.fixture
def empty_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder and hide pytest's arguments.

    For tests that run RecBole: it writes log/, saved/ and log_tensorboard/ into the working
    directory, and its Config takes every `--key=value` of sys.argv for a setting.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["pytest"])
    return tmp_path
