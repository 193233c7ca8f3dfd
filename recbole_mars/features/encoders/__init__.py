"""Encoders of text and pictures, from two that need no download to large pretrained models."""

from recbole_mars.features.encoders.base import BatchEncoder, Encoder, PreparedBatch
from recbole_mars.features.encoders.image_model import ImageEncoder
from recbole_mars.features.encoders.pixels import PixelEncoder
from recbole_mars.features.encoders.text_model import TextEncoder
from recbole_mars.features.encoders.tfidf import TfidfEncoder

__all__ = [
    "BatchEncoder",
    "Encoder",
    "ImageEncoder",
    "PixelEncoder",
    "PreparedBatch",
    "TextEncoder",
    "TfidfEncoder",
]
