"""Text vectors without any download: TF-IDF, reduced by a singular value decomposition."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.extmath import randomized_svd

__all__ = ["TfidfEncoder"]

logger = logging.getLogger(__name__)


class TfidfEncoder:
    """Latent semantic analysis: unit rows of U S from the TF-IDF matrix X ≈ U S Vᵀ.

    X holds words and pairs of words, (1 + log tf) · idf, with unit rows; no stop words, no
    minimum frequency. A word is a run of letters and digits, one of them is enough.

    dimensions: columns at most; a corpus has no more than its texts or its words, less one.
    seed: of the randomised decomposition; signs are fixed too, so a seed gives one result.
    """

    name = "tfidf"

    def __init__(self, dimensions: int = 128, seed: int = 0) -> None:
        if dimensions < 1:
            raise ValueError(f"dimensions must be >= 1, got {dimensions}")
        self.dimensions = dimensions
        self.seed = seed

    def settings(self) -> dict[str, Any]:
        # version: raise it when this file computes something else
        return {"version": 1, "dimensions": self.dimensions, "seed": self.seed}

    def encode(self, inputs: Sequence[str], progress: bool = False) -> np.ndarray:
        """Encode texts, (n, D) float32; a text without a word, or sharing none, gets zeros.

        D is less than `dimensions` if the corpus is too small, and the log says so. One step, so
        `progress` shows nothing. Raises ValueError if no text holds a word.
        """
        if not any(character.isalnum() for text in inputs for character in text):
            raise ValueError(
                f"at least one text must hold a word, got {len(inputs)} texts without; "
                f"check which columns hold the items' text"
            )
        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
        )
        weights = vectorizer.fit_transform(inputs)
        dimensions = max(1, min(self.dimensions, weights.shape[0] - 1, weights.shape[1] - 1))
        if dimensions < self.dimensions:
            logger.info(
                "%d texts with %d different words and pairs admit %d dimensions, not %d",
                *weights.shape,
                dimensions,
                self.dimensions,
            )
        left, values, _ = randomized_svd(weights, dimensions, random_state=self.seed)
        vectors = left * values
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        # Rows of X have norm 1: what is left of one below this is rounding, not content.
        vectors = np.where(norms > 1e-6, vectors / np.maximum(norms, 1e-6), 0.0)
        return vectors.astype(np.float32)
