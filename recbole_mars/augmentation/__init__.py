"""Histories changed before a CTR model reads them: made longer, or perturbed in training."""

from recbole_mars.augmentation.additions import (
    RandomAugmenter,
    RandomSeqAugmenter,
    RandomSettings,
    RepPadAugmenter,
    RepPadSettings,
)
from recbole_mars.augmentation.base import Augmenter, NoAugmenter, keep_latest, prepend
from recbole_mars.augmentation.correlated import SimilarRows, most_correlated_items
from recbole_mars.augmentation.draws import substream, uniforms
from recbole_mars.augmentation.item_rows import ItemRows
from recbole_mars.augmentation.operators import (
    Crop,
    Insert,
    Mask,
    OneOf,
    Operator,
    Reorder,
    Substitute,
)
from recbole_mars.augmentation.perturbed import (
    CMRSettings,
    CMRSISettings,
    PerturbedAugmenter,
    cmr_operator,
    cmrsi_operator,
)
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
from recbole_mars.augmentation.views import (
    BASRecSettings,
    ByLength,
    CoSeRecSettings,
    View,
    ViewAugmenter,
    basrec,
    cl4srec,
    coserec,
)

__all__ = [
    "STRATEGIES",
    "Augmenter",
    "BASRecSettings",
    "ByLength",
    "CMRSISettings",
    "CMRSettings",
    "CoSeRecSettings",
    "Crop",
    "Insert",
    "ItemRows",
    "Mask",
    "NoAugmenter",
    "OneOf",
    "Operator",
    "PerturbedAugmenter",
    "PrefixTable",
    "RandomAugmenter",
    "RandomSeqAugmenter",
    "RandomSettings",
    "Reorder",
    "RepPadAugmenter",
    "RepPadSettings",
    "RetrievalSettings",
    "RetrievedAugmenter",
    "SimilarRows",
    "Substitute",
    "View",
    "ViewAugmenter",
    "basrec",
    "build_prefixes",
    "cl4srec",
    "cmr_operator",
    "cmrsi_operator",
    "coserec",
    "dynamic_programming",
    "filtered",
    "keep_latest",
    "most_correlated_items",
    "most_similar",
    "prepend",
    "substream",
    "top_k",
    "uniforms",
]
