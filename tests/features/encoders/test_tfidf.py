"""TF-IDF vectors against their formula."""

from __future__ import annotations

import json
import logging
import math
import re

import numpy as np
import pytest

from recbole_mars.features import TfidfEncoder

TEXTS = [
    "A cowboy doll and a space toy",
    "The cowboy rides again, and again",
    "A space ship and a space toy",
    "Love in the rain",
    "Rain on a space ship",
]


def tfidf(texts: list[str]) -> np.ndarray:
    """(1 + log tf)(1 + log((1 + n) / (1 + df))) of words and pairs, unit rows, in float64."""
    bags = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        bags.append(words + [f"{a} {b}" for a, b in zip(words, words[1:])])
    terms = sorted({term for bag in bags for term in bag})
    matrix = np.zeros((len(texts), len(terms)))
    for row, bag in enumerate(bags):
        for column, term in enumerate(terms):
            if term in bag:
                frequency = sum(term in other for other in bags)
                idf = 1 + math.log((1 + len(texts)) / (1 + frequency))
                matrix[row, column] = (1 + math.log(bag.count(term))) * idf
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


@pytest.mark.parametrize("dimensions", [1, 2, 4])
def test_against_a_full_decomposition(dimensions: int) -> None:
    left, values, _ = np.linalg.svd(tfidf(TEXTS), full_matrices=False)
    expected = left[:, :dimensions] * values[:dimensions]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = TfidfEncoder(dimensions).encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, dimensions)
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=1e-5)


def test_a_seed_gives_one_result_with_its_signs() -> None:
    first, again = TfidfEncoder(3, seed=5).encode(TEXTS), TfidfEncoder(3, seed=5).encode(TEXTS)
    np.testing.assert_array_equal(first, again)
    other = TfidfEncoder(3, seed=6).encode(TEXTS)
    np.testing.assert_allclose(first, other, atol=1e-5)


def test_equal_texts_have_equal_vectors_and_case_does_not_count() -> None:
    vectors = TfidfEncoder(3).encode([*TEXTS, TEXTS[0].upper()])
    np.testing.assert_allclose(vectors[0], vectors[5], atol=1e-6)


def test_small_corpora_get_fewer_dimensions(caplog) -> None:
    with caplog.at_level(logging.INFO):
        assert TfidfEncoder(128).encode(TEXTS).shape == (5, 4)
    assert "admit 4 dimensions, not 128" in caplog.text
    assert TfidfEncoder(128).encode(["word", "word", "word"]).shape == (3, 1)
    np.testing.assert_allclose(TfidfEncoder(128).encode(["only one"]), [[1.0]], rtol=1e-6)


def test_one_letter_titles_are_words() -> None:
    vectors = TfidfEncoder(2).encode(["M", "Z", "M"])
    assert vectors[0] @ vectors[2] == pytest.approx(1.0, abs=1e-5)
    assert vectors[0] @ vectors[1] == pytest.approx(0.0, abs=1e-5)


def test_texts_that_nothing_is_known_of_get_zeros() -> None:
    shared = ["red green blue", "red green", "green blue"]
    vectors = TfidfEncoder(1).encode([*shared, "?!", "unlike"])
    np.testing.assert_array_equal(vectors[3:], 0.0)
    np.testing.assert_allclose(np.abs(vectors[:3]), 1.0, rtol=1e-6)


@pytest.mark.parametrize("texts", [[], [""], ["  ", "\n"], ["?!", "..."]])
def test_no_word_at_all(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"must hold a word.*check which columns"):
        TfidfEncoder().encode(texts)


def test_settings() -> None:
    settings = TfidfEncoder(7, seed=3).settings()
    assert settings == {"version": 1, "dimensions": 7, "seed": 3}
    assert json.loads(json.dumps(settings)) == settings
    with pytest.raises(ValueError, match="dimensions must be >= 1, got 0"):
        TfidfEncoder(0)
