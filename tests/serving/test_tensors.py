"""Files of tensors: a full disk and a damaged file are errors of Python's own kinds."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
import torch

from recbole_mars.serving.tensors import load_tensors, save_tensors

TENSORS = {"a": torch.arange(5000.0), "b": torch.ones(2, 3)}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_tensors(TENSORS, tmp_path / "t.safetensors")
    found = load_tensors(tmp_path / "t.safetensors")
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_what_cannot_be_written_is_an_oserror(tmp_path: Path) -> None:
    """As on a full disk, the system takes only a part of the file."""
    child = os.fork()
    if not child:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            with pytest.raises(OSError, match=r"t.safetensors: .*File too large"):
                save_tensors(TENSORS, tmp_path / "t.safetensors")
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_what_is_damaged_is_a_valueerror(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_tensors(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"t.safetensors is damaged: .*take another version"):
        load_tensors(path)
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "none")
