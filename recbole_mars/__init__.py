"""Multimodal click-through-rate prediction for RecBole: importing this registers the models."""

__version__ = "0.1.0"

from recbole_mars.plugin import (
    DIMO,
    DMAE,
    LRD,
    MARS,
    FRNet,
    MARSAlign,
    MultimodalDataset,
    UniSRec,
)

__all__ = [
    "DIMO",
    "DMAE",
    "LRD",
    "MARS",
    "FRNet",
    "MARSAlign",
    "MultimodalDataset",
    "UniSRec",
    "__version__",
]
