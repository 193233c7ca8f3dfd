"""Multimodal click-through-rate prediction for RecBole: importing this registers the models."""

__version__ = "0.1.0"

from recbole_mars.plugin import (
    BST,
    DIMO,
    DMAE,
    LRD,
    MARS,
    AveragePooling,
    FRNet,
    GRU4RecCTR,
    MARSAlign,
    MultimodalDataset,
    SimTier,
    UniSRec,
)

__all__ = [
    "BST",
    "DIMO",
    "DMAE",
    "LRD",
    "MARS",
    "AveragePooling",
    "FRNet",
    "GRU4RecCTR",
    "MARSAlign",
    "MultimodalDataset",
    "SimTier",
    "UniSRec",
    "__version__",
]
