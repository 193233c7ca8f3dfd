"""Multimodal click-through-rate prediction for RecBole: importing this registers the models."""

__version__ = "0.1.0"

from recbole_mars.plugin import (
    BST,
    DMAE,
    MARS,
    AveragePooling,
    GRU4RecCTR,
    MARSAlign,
    MultimodalDataset,
    SimTier,
)

__all__ = [
    "BST",
    "DMAE",
    "MARS",
    "AveragePooling",
    "GRU4RecCTR",
    "MARSAlign",
    "MultimodalDataset",
    "SimTier",
    "__version__",
]
