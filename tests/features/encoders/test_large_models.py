"""Models spread over devices or held in 8 bits, as far as a machine without GPU can tell."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tiny_text
import tiny_vision

from recbole_mars.features import ImageEncoder, TextEncoder

TEXTS = ["a film about a dog", "war in space", "love"]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def vectors(encoder, inputs) -> np.ndarray:
    encoder.load()
    return encoder.encode_batch(encoder.prepare(inputs))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    return str(tiny_text.tiny_llama(tmp_path_factory.mktemp("models") / "llama"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "vit"
    tiny_vision.save_model("vit", folder)
    return str(folder)


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_device_map(llama, vit, tmp_path, device_map) -> None:
    pytest.importorskip("accelerate")
    pictures = tiny_vision.save_pictures(tmp_path, (30, 40), (50, 20))
    for kind, model, inputs in ((TextEncoder, llama, TEXTS), (ImageEncoder, vit, pictures)):
        plain = vectors(kind(model), inputs)
        np.testing.assert_allclose(
            vectors(kind(model, device_map=device_map), inputs), plain, atol=1e-5
        )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_8_bits(llama, caplog) -> None:
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    caplog.set_level(logging.ERROR)
    plain, small = TextEncoder(llama), TextEncoder(llama, load_in_8bit=True)
    similar = cosines(vectors(plain, TEXTS), vectors(small, TEXTS))
    assert (similar > 0.97).all()
    assert (similar < 0.9999999).all()  # it is not the same model, either
    assert small.settings() != plain.settings()
    weights = [p.dtype.itemsize for p in small._network._model.parameters() if p.ndim == 2]
    assert weights.count(1) >= 7
