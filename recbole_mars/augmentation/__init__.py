"""Longer histories: behaviours added to a user's own before a CTR model reads them."""

from recbole_mars.augmentation.base import Augmenter, NoAugmenter, keep_latest, prepend
from recbole_mars.augmentation.prefixes import PrefixTable
from recbole_mars.augmentation.retrieved import (
    RetrievalSettings,
    RetrievedAugmenter,
    build_prefixes,
)
from recbole_mars.augmentation.strategies import (
    STRATEGIES,
    dynamic_programming,
    filtered,
    most_similar,
    top_k,
)

__all__ = [
    "STRATEGIES",
    "Augmenter",
    "NoAugmenter",
    "PrefixTable",
    "RetrievalSettings",
    "RetrievedAugmenter",
    "build_prefixes",
    "dynamic_programming",
    "filtered",
    "keep_latest",
    "most_similar",
    "prepend",
    "top_k",
]
