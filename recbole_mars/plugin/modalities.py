"""What a CTR model knows of its items beside their ids: one set of frozen vectors a modality."""

from __future__ import annotations

from recbole.config import Config

from recbole_mars.ctr import Modality
from recbole_mars.plugin.dataset import MultimodalDataset
from recbole_mars.plugin.stage_one import aligned_items

__all__ = ["item_modalities"]


def item_modalities(config: Config, dataset: MultimodalDataset) -> list[Modality]:
    """Text and image features and, if asked for, stage 1's embeddings, by internal item id.

    Raises ValueError if the features cannot be had, as ItemCatalogue does.
    """
    features, storage = dataset.item_features(), config["feature_storage"]
    found = []
    if features.text is not None and features.text_present is not None:
        found.append(Modality("text", features.text, features.text_present, storage))
    if features.image is not None and features.image_present is not None:
        found.append(Modality("image", features.image, features.image_present, storage))
    if config["mars_use_aligned"]:
        found.append(Modality("aligned", *aligned_items(dataset, config, features), storage))
    return found
