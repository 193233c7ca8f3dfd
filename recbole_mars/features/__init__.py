"""From item texts and pictures to feature vectors that are checked, stored and reused."""

from recbole_mars.features.covers import draw_cover, draw_covers
from recbole_mars.features.encoders import (
    BatchEncoder,
    Encoder,
    ImageEncoder,
    PixelEncoder,
    PreparedBatch,
    TextEncoder,
    TfidfEncoder,
)
from recbole_mars.features.extract import extract_images, extract_text, join_text
from recbole_mars.features.image import find_images, load_image
from recbole_mars.features.imported import check_against_catalogue, import_features
from recbole_mars.features.store import CorruptStoreError, FeatureStore
from recbole_mars.features.table import FeatureTable

__all__ = [
    "BatchEncoder",
    "CorruptStoreError",
    "Encoder",
    "FeatureStore",
    "FeatureTable",
    "ImageEncoder",
    "PixelEncoder",
    "PreparedBatch",
    "TextEncoder",
    "TfidfEncoder",
    "check_against_catalogue",
    "draw_cover",
    "draw_covers",
    "extract_images",
    "extract_text",
    "find_images",
    "import_features",
    "join_text",
    "load_image",
]
