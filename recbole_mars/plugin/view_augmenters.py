"""What makes the views of CL4SRec, CoSeRec and BASRec, for a RecBole data set."""

from __future__ import annotations

from collections.abc import Callable

from recbole.config import Config

from recbole_mars.augmentation import Augmenter, SimilarRows, basrec, cl4srec, coserec
from recbole_mars.plugin.augmenters import item_rows
from recbole_mars.plugin.dataset import MultimodalDataset
from recbole_mars.plugin.settings import basrec_settings, cmr_settings, coserec_settings

__all__ = ["VIEW_AUGMENTERS"]


def _cl4srec(dataset: MultimodalDataset, config: Config) -> Augmenter:
    return cl4srec(cmr_settings(config), config["seed"])


def _coserec(dataset: MultimodalDataset, config: Config) -> Augmenter:
    settings = coserec_settings(config)
    return coserec(settings, SimilarRows(item_rows(dataset, config)), config["seed"])


def _basrec(dataset: MultimodalDataset, config: Config) -> Augmenter:
    settings = basrec_settings(config)
    return basrec(settings, SimilarRows(item_rows(dataset, config)), config["seed"])


VIEW_AUGMENTERS: dict[str, Callable[[MultimodalDataset, Config], Augmenter]] = {
    "cl4srec": _cl4srec,
    "coserec": _coserec,
    "basrec": _basrec,
}
