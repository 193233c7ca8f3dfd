"""Tiny models with random weights, for tests of what is around them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_text
import tiny_vision


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    return tiny_text.tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "vit"
    tiny_vision.save_model("vit", folder)
    return folder
