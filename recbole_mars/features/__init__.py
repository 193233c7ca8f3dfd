"""From item texts and pictures to feature vectors that are checked, stored and reused."""

from recbole_mars.features.build import Built, build_image_features, build_text_features
from recbole_mars.features.catalogue.catalogue_file import read_catalogue
from recbole_mars.features.catalogue.image import find_images, load_image
from recbole_mars.features.catalogue.joining import join_text
from recbole_mars.features.catalogue.prompts import PromptTemplate
from recbole_mars.features.covers.drawing import draw_cover, draw_covers
from recbole_mars.features.encoders import (
    BatchEncoder,
    Encoder,
    ImageEncoder,
    PixelEncoder,
    PreparedBatch,
    TextEncoder,
    TfidfEncoder,
)
from recbole_mars.features.extraction.execution import Execution
from recbole_mars.features.extraction.extract import Extraction, extract_images, extract_text
from recbole_mars.features.ready.imported import check_against_catalogue, import_features
from recbole_mars.features.settings import FeatureSettings
from recbole_mars.features.stores.quantise import cosine_errors, dequantise, quantise
from recbole_mars.features.stores.reduced import reduce_store
from recbole_mars.features.stores.reduction import Projection
from recbole_mars.features.stores.store import CorruptStoreError, FeatureStore
from recbole_mars.features.stores.table import FeatureTable
from recbole_mars.features.stores.writer import write_store

__all__ = [
    "BatchEncoder",
    "Built",
    "CorruptStoreError",
    "Encoder",
    "Execution",
    "Extraction",
    "FeatureSettings",
    "FeatureStore",
    "FeatureTable",
    "ImageEncoder",
    "PixelEncoder",
    "PreparedBatch",
    "Projection",
    "PromptTemplate",
    "TextEncoder",
    "TfidfEncoder",
    "build_image_features",
    "build_text_features",
    "check_against_catalogue",
    "cosine_errors",
    "dequantise",
    "draw_cover",
    "draw_covers",
    "extract_images",
    "extract_text",
    "find_images",
    "import_features",
    "join_text",
    "load_image",
    "quantise",
    "read_catalogue",
    "reduce_store",
    "write_store",
]
