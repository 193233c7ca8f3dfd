"""RecBole's own sequential models on our data set, in the runs that ask for it."""

from __future__ import annotations

from typing import Any

import recbole.data.dataset as dataset_module
from recbole.config import Config

from recbole_mars.plugin.config import asks_for_us
from recbole_mars.plugin.dataset import DIENMultimodalDataset, MultimodalDataset

__all__ = ["serve_builtin"]


def serve_builtin(model: str) -> None:
    """Give a built-in sequential model our data set in the runs that ask for our options."""
    name = f"{model}Dataset"
    original = getattr(dataset_module, name, dataset_module.SequentialDataset)
    if getattr(original, "chooses", False):
        return
    ours = DIENMultimodalDataset if model == "DIEN" else MultimodalDataset

    def choose(config: Config) -> Any:
        return (ours if asks_for_us(config.external_config_dict) else original)(config)

    choose.__name__ = ours.__name__  # RecBole names the saved data set by it
    choose.chooses = True  # type: ignore[attr-defined]
    setattr(dataset_module, name, choose)
