"""Describing pictures by their pixels."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recbole_mars.features import PixelEncoder
from recbole_mars.features.encoders.pixels import (
    _colour_histogram,
    _gradient_histogram,
    _standardise,
)


def noise(seed: int, size: tuple[int, int] = (40, 24)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{k}.png" for k in range(6)]
    for seed, path in enumerate(paths):
        noise(seed).save(path)
    return paths


def test_colour_histogram_by_hand() -> None:
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    image.paste((0, 0, 0), (0, 0, 8, 2))
    expected = np.zeros(128)
    expected[15] = np.sqrt(0.75)  # hue 0, highest saturation and value
    expected[0] = np.sqrt(0.25)
    np.testing.assert_allclose(_colour_histogram(image), expected, rtol=1e-6)


@pytest.mark.parametrize(("axis", "orientation"), [(1, 0), (0, 4)])
def test_gradient_histogram_by_hand(axis: int, orientation: int) -> None:
    ramp = np.arange(8, dtype=np.uint8) * 10
    grey = np.broadcast_to(ramp if axis else ramp[:, None], (8, 8)).copy()
    histogram = _gradient_histogram(Image.fromarray(grey).convert("RGB")).reshape(16, 9)
    expected = np.zeros((16, 9))
    expected[:, orientation] = np.sqrt(4 * 10 / 255)  # a cell has 4 pixels
    np.testing.assert_allclose(histogram, expected, rtol=1e-5)


def test_standardised_parts_weigh_the_same() -> None:
    random = np.random.default_rng(0)
    columns = random.normal(3.0, 50.0, (20, 7)).astype(np.float32)
    scaled = _standardise(columns)
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(scaled.var(axis=0).sum(), 1.0, rtol=1e-5)
    columns[:, 3] = 5.0
    assert not _standardise(columns)[:, 3].any()


def test_encoder_against_a_full_decomposition(pictures) -> None:
    encoder = PixelEncoder(3)
    parts = [np.stack(part) for part in zip(*map(encoder._describe, pictures))]
    columns = np.concatenate([_standardise(part) for part in parts], axis=1)
    left, values, _ = np.linalg.svd(columns.astype(np.float64), full_matrices=False)
    expected = left[:, :3] * values[:3]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = encoder.encode(pictures)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=1e-4)
    np.testing.assert_array_equal(vectors, encoder.encode(pictures))


def test_few_pictures_get_fewer_dimensions(pictures, caplog) -> None:
    with caplog.at_level(logging.INFO):
        vectors = PixelEncoder(64).encode(pictures)
    assert vectors.shape == (6, 5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert "6 pictures admit 5 dimensions, not 64" in caplog.text


def test_a_scaled_copy_is_nearest(pictures, tmp_path) -> None:
    noise(2).resize((120, 72), Image.Resampling.BICUBIC).save(tmp_path / "copy.webp", quality=90)
    vectors = PixelEncoder().encode([*pictures, tmp_path / "copy.webp"])
    assert np.argmax(vectors[:6] @ vectors[6]) == 2


def test_pictures_must_differ(pictures) -> None:
    for same in ([], pictures[:1], [pictures[0]] * 3):
        with pytest.raises(ValueError, match=f"two different pictures, got {len(same)} that"):
            PixelEncoder().encode(same)


def test_a_broken_picture_is_named(pictures) -> None:
    pictures[3].write_bytes(b"no")
    with pytest.raises(ValueError, match=r"cannot decode .*3\.png"):
        PixelEncoder().encode(pictures)


def test_settings() -> None:
    settings = PixelEncoder(7, size=16, seed=3).settings()
    assert settings == {"version": 1, "dimensions": 7, "size": 16, "seed": 3}
    assert json.loads(json.dumps(settings)) == settings
    with pytest.raises(ValueError, match="dimensions must be >= 1, got 0"):
        PixelEncoder(0)
    for size in (0, 7, 33):
        with pytest.raises(ValueError, match=f"size must be a multiple of 8, got {size}"):
            PixelEncoder(size=size)
