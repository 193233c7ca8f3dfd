"""Tiny vision models, saved once for all tests that only read them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_vision import save_model, save_pictures

SIZES = [(40, 24), (24, 50), (32, 32), (90, 90)]


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Saves a model once; gives its folder and the model."""
    made = {}

    def get(name: str) -> tuple[Path, torch.nn.Module]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = (folder, save_model(name, folder))
        return made[name]

    return get


@pytest.fixture
def editable(saved, tmp_path):
    """A copy of a saved model's folder, to be damaged."""

    def get(name: str) -> Path:
        shutil.copytree(saved(name)[0], tmp_path / name)
        return tmp_path / name

    return get


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> list[Path]:
    return save_pictures(tmp_path_factory.mktemp("pictures"), *SIZES)
