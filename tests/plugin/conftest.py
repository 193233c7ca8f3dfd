"""A small planted world as RecBole files, and settings that train on it in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recbole_mars.data.synthetic import SyntheticData, SyntheticSettings, generate, write_atomic


@pytest.fixture(scope="session")
def world_data() -> SyntheticData:
    return generate(SyntheticSettings(n_users=40, n_items=60, high_length=(12, 20), seed=3))


@pytest.fixture(scope="session")
def world(world_data: SyntheticData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the data set "world"."""
    folder = tmp_path_factory.mktemp("data")
    write_atomic(world_data, folder, "world")
    return folder


@pytest.fixture
def tiny(world: Path, empty_cwd: Path) -> dict[str, Any]:
    """Settings of a MARS run on the world, in an empty working directory."""
    return {
        "data_path": str(world),
        "text_fields": ["title"],
        "image_dir": str(world / "world" / "images"),
        "load_col": {
            "inter": ["user_id", "item_id", "rating", "timestamp"],
            "item": ["item_id", "category"],
        },
        "MAX_ITEM_LIST_LENGTH": 10,
        "epochs": 2,
        "train_batch_size": 64,
        "embedding_size": 4,
        "mars_dnn_hidden": [8],
        "mars_attention_hidden": [8],
        "mars_align_epochs": 2,
        "mars_width": 8,
        "mars_id_width": 8,
        "show_progress": False,
        "state": "WARNING",
    }
