"""Multimodal click-through-rate prediction for RecBole: importing this registers the models."""

__version__ = "0.1.0"

from recbole_mars.plugin import DMAE, MARS, MARSAlign, MultimodalDataset

__all__ = ["DMAE", "MARS", "MARSAlign", "MultimodalDataset", "__version__"]
