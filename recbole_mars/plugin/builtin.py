"""RecBole's own models on our data set, in the runs that ask for it."""

from __future__ import annotations

from typing import Any

import recbole.data.dataset as dataset_module
from recbole.config import Config

from recbole_mars.plugin.config import asks_for_us
from recbole_mars.plugin.dataset import (
    DIENMultimodalDataset,
    MultimodalDataset,
    TargetDataset,
)

__all__ = ["serve_builtin"]


def serve_builtin(model: str, reads_histories: bool = True) -> None:
    """Give a built-in model our data set in the runs that ask for our options."""
    name = f"{model}Dataset"
    usual = dataset_module.SequentialDataset if reads_histories else dataset_module.Dataset
    original = getattr(dataset_module, name, usual)
    if getattr(original, "chooses", False):
        return
    ours = DIENMultimodalDataset if model == "DIEN" else MultimodalDataset
    ours = ours if reads_histories else TargetDataset

    def choose(config: Config) -> Any:
        return (ours if asks_for_us(config.external_config_dict) else original)(config)

    choose.__name__ = ours.__name__  # RecBole names the saved data set by it
    choose.chooses = True  # type: ignore[attr-defined]
    setattr(dataset_module, name, choose)
