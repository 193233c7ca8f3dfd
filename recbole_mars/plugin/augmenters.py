"""Augmenters that need neither features nor stage 1, for a RecBole data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from recbole.config import Config

from recbole_mars.augmentation import (
    Augmenter,
    ItemRows,
    PerturbedAugmenter,
    RandomAugmenter,
    RandomSeqAugmenter,
    RepPadAugmenter,
    SimilarRows,
    cmr_operator,
    cmrsi_operator,
)
from recbole_mars.plugin.dataset import MultimodalDataset
from recbole_mars.plugin.settings import (
    cmr_settings,
    cmrsi_settings,
    donor_time,
    is_temporal,
    random_seq_settings,
    random_settings,
    reppad_settings,
)

__all__ = ["HEURISTICS", "item_rows"]


def item_rows(dataset: MultimodalDataset, config: Config) -> ItemRows:
    """The training behaviours that may enter a history: of one kind with those in it, and not later
    than mars_donor_time allows."""
    lent = np.flatnonzero(dataset.held_in_training())
    return ItemRows(dataset.log, lent, donor_time(config, is_temporal(config)))


def _random(dataset: MultimodalDataset, config: Config) -> Augmenter:
    return RandomAugmenter(item_rows(dataset, config), random_settings(config), config["seed"])


def _random_seq(dataset: MultimodalDataset, config: Config) -> Augmenter:
    return RandomSeqAugmenter(dataset.log.users, random_seq_settings(config), config["seed"])


def _reppad(dataset: MultimodalDataset, config: Config) -> Augmenter:
    return RepPadAugmenter(reppad_settings(config), config["seed"])


def _cmr(dataset: MultimodalDataset, config: Config) -> Augmenter:
    return PerturbedAugmenter(cmr_operator(cmr_settings(config)), config["seed"])


def _cmrsi(dataset: MultimodalDataset, config: Config) -> Augmenter:
    similar = SimilarRows(item_rows(dataset, config))
    return PerturbedAugmenter(cmrsi_operator(cmrsi_settings(config), similar), config["seed"])


HEURISTICS: dict[str, Callable[[MultimodalDataset, Config], Augmenter]] = {
    "random": _random,
    "random_seq": _random_seq,
    "reppad": _reppad,
    "cmr": _cmr,
    "cmrsi": _cmrsi,
}
