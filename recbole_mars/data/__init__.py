"""Interactions in true time order and the flat histories read from them."""

from recbole_mars.data.columns import load_columns, save_columns
from recbole_mars.data.history import HistoryIndex, look_back, pad_ragged, windows
from recbole_mars.data.negatives import NEGATIVES_BY, draw_negatives
from recbole_mars.data.schema import TEST, TRAIN, VALID, InteractionLog

__all__ = [
    "NEGATIVES_BY",
    "TEST",
    "TRAIN",
    "VALID",
    "HistoryIndex",
    "InteractionLog",
    "draw_negatives",
    "load_columns",
    "look_back",
    "pad_ragged",
    "save_columns",
    "windows",
]
