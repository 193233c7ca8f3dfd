"""Vectors of pictures from pretrained vision models of one input size."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_vision import (
    MODELS,
    SIDE,
    block_network,
    encode,
    picture,
    pixels_by_hand,
    save_pictures,
    save_processor,
)

from recbole_mars.features import ImageEncoder
from recbole_mars.features.encoders import image_model

SQUARE = [(40, 40), (64, 64), (SIDE, SIDE), (90, 90)]  # for processors that crop


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    block_network(monkeypatch)


# What each model should give, from the parts of the model that was saved
BY_HAND = {
    ("beit", "auto"): lambda m, x: m.beit(x).pooler_output,
    ("beit", "mean"): lambda m, x: m.beit(x).last_hidden_state[:, 1:].mean(1),
    ("clip", "auto"): lambda m, x: m.visual_projection(m.vision_model(x).pooler_output),
    ("clip", "model"): lambda m, x: m.visual_projection(m.vision_model(x).pooler_output),
    ("clip", "cls"): lambda m, x: m.vision_model(x).last_hidden_state[:, 0],
    ("clip", "mean"): lambda m, x: m.vision_model(x).last_hidden_state[:, 1:].mean(1),
    ("clip_vision", "auto"): lambda m, x: m(x).image_embeds,
    ("convnext", "auto"): lambda m, x: m.convnext(x).pooler_output,
    ("convnext", "mean"): lambda m, x: m.convnext(x).last_hidden_state.mean((2, 3)),
    ("deit", "auto"): lambda m, x: m.deit(x).last_hidden_state[:, 0],
    ("deit", "mean"): lambda m, x: m.deit(x).last_hidden_state[:, 2:].mean(1),
    ("dinov2", "auto"): lambda m, x: m(x).last_hidden_state[:, 0],
    ("dinov2", "mean"): lambda m, x: m(x).last_hidden_state[:, 1:].mean(1),
    ("dinov2_with_registers", "mean"): lambda m, x: m(x).last_hidden_state[:, 4:].mean(1),
    ("dinov3", "auto"): lambda m, x: m(x).last_hidden_state[:, 0],
    ("dinov3", "mean"): lambda m, x: m(x).last_hidden_state[:, 4:].mean(1),
    ("resnet", "auto"): lambda m, x: m.resnet(x).last_hidden_state.mean((2, 3)),
    ("siglip", "auto"): lambda m, x: m.vision_model(x).pooler_output,
    ("siglip", "mean"): lambda m, x: m.vision_model(x).last_hidden_state.mean(1),
    ("swin", "auto"): lambda m, x: m.swin(x).last_hidden_state.mean(1),
    ("swin", "mean"): lambda m, x: m.swin(x).last_hidden_state.mean(1),
    ("vit", "auto"): lambda m, x: m.vit(x).last_hidden_state[:, 0],
    ("vit", "mean"): lambda m, x: m.vit(x).last_hidden_state[:, 1:].mean(1),
}


@pytest.mark.parametrize(("name", "pooling"), BY_HAND)
def test_equals_a_forward_by_hand(saved, pictures, tmp_path, name: str, pooling: str) -> None:
    folder, model = saved(name)
    crops = name in ("convnext", "resnet")
    paths = save_pictures(tmp_path, *SQUARE) if crops else pictures
    with torch.no_grad():
        expected = torch.cat([BY_HAND[name, pooling](model, pixels_by_hand(p)) for p in paths])
    vectors = encode(ImageEncoder(folder, pooling=pooling), paths)
    np.testing.assert_allclose(vectors, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert np.std(vectors, axis=0).max() > 0.01  # the pictures do differ


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_equals_single_pictures_in_any_company(saved, pictures, name: str) -> None:
    folder, _ = saved(name)
    if name in ("convnext", "resnet"):
        pictures = [pictures[2], pictures[3]]
    encoder = ImageEncoder(folder)
    together = encode(encoder, pictures)
    single = np.concatenate([encode(encoder, [path]) for path in pictures])
    np.testing.assert_allclose(together, single, rtol=1e-5, atol=1e-5)
    backwards = encode(encoder, pictures[::-1])[::-1]
    np.testing.assert_allclose(together, backwards, rtol=1e-5, atol=1e-5)
    assert list(encoder.lengths(pictures)) == [0] * len(pictures)


def test_pooler_that_was_trained_is_used_when_asked_for(editable, pictures) -> None:
    folder = editable("vit")
    weights = load_file(folder / "model.safetensors")
    weights["vit.pooler.dense.weight"] = torch.eye(32)
    weights["vit.pooler.dense.bias"] = torch.zeros(32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    cls = encode(ImageEncoder(folder), pictures)
    pooled = encode(ImageEncoder(folder, pooling="model"), pictures)
    np.testing.assert_allclose(pooled, np.tanh(cls), atol=1e-5)


def test_weights_of_the_text_half_may_be_missing(editable, saved, pictures) -> None:
    folder = editable("clip")
    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if not key.startswith("text_")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(
        encode(ImageEncoder(folder), pictures), encode(ImageEncoder(saved("clip")[0]), pictures)
    )


def test_any_kind_of_picture_file(saved, tmp_path) -> None:
    encoder = ImageEncoder(saved("vit")[0])
    plain = picture(0, 40, 24)
    plain.save(tmp_path / "plain.png")
    turned = Image.Exif()
    turned[0x0112] = 8  # stored turned clockwise, to be shown turned back
    plain.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "turned.png", exif=turned)
    see_through = Image.new("RGBA", (40, 24), (9, 9, 9, 0))
    see_through.save(tmp_path / "alpha.png")
    Image.new("RGB", (40, 24), "white").save(tmp_path / "white.png")
    Image.new("CMYK", (40, 24), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    Image.new("RGB", (40, 24), "red").save(tmp_path / "red.png")
    palette = plain.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.png")
    palette.convert("RGB").save(tmp_path / "full.png")
    names = ["plain.png", "turned.png", "alpha.png", "white.png", "cmyk.jpg", "red.png"]
    names += ["palette.png", "full.png"]
    vectors = encode(encoder, [tmp_path / name for name in names])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    np.testing.assert_allclose(vectors[2], vectors[3], atol=1e-5)
    np.testing.assert_allclose(vectors[4], vectors[5], atol=0.05)
    np.testing.assert_allclose(vectors[6], vectors[7], atol=1e-5)
    assert abs(vectors[0] - vectors[3]).max() > 0.3


def test_broken_pictures_are_named_and_others_go_on(saved, pictures, tmp_path) -> None:
    encoder = ImageEncoder(saved("vit")[0])
    encoder.load()
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures[0].read_bytes()[:60])
    mixed = [tmp_path / "page.jpg", pictures[0], tmp_path / "none.jpg", pictures[1], cut]
    batch = encoder.prepare(mixed)
    assert sorted(batch.broken) == [0, 2, 4]
    assert "page.jpg" in batch.broken[0]
    assert batch.size == 2
    np.testing.assert_allclose(
        encoder.encode_batch(batch), encode(encoder, pictures[:2]), atol=1e-5
    )
    nothing = encoder.prepare([mixed[0], cut])
    assert (nothing.size, sorted(nothing.broken)) == (0, [0, 1])
    assert encoder.encode_batch(nothing).shape == (0, 32)


@pytest.mark.parametrize("name", ["vit", "clip", "convnext"])
def test_threads_prepare_the_same(saved, tmp_path, name: str) -> None:
    encoder = ImageEncoder(saved(name)[0])
    encoder.load()
    paths = save_pictures(tmp_path, *[(40 + 2 * index, 40 + 2 * index) for index in range(24)])
    expected = [encoder.prepare([path]).content["pixel_values"] for path in paths]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda path: encoder.prepare([path]), paths * 4))
    for batch, pixels in zip(found, expected * 4):
        assert torch.equal(batch.content["pixel_values"], pixels)


def test_threads_load_once(saved, monkeypatch) -> None:
    loads = []
    original = image_model.VisionBackbone.load

    def counted(self) -> None:
        loads.append(self)
        original(self)

    monkeypatch.setattr(image_model.VisionBackbone, "load", counted)
    encoder = ImageEncoder(saved("vit")[0])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: encoder.load(), range(8)))
    assert len(loads) == 1


def test_half_precision_and_unit_length(saved, pictures) -> None:
    folder, _ = saved("vit")
    exact = encode(ImageEncoder(folder), pictures)
    half = ImageEncoder(folder, dtype="bfloat16", normalize=True)
    vectors = encode(half, pictures)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    unit = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    assert (vectors * unit).sum(axis=1).min() > 0.999
    assert not np.allclose(vectors, unit, atol=1e-6)
    assert half.settings()["dtype"] == "bfloat16"


def test_auto_precision_is_the_checkpoints_own(editable, pictures) -> None:
    folder = editable("vit")
    config = json.loads((folder / "config.json").read_text())
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    assert ImageEncoder(folder).settings()["dtype"] == "bfloat16"
    np.testing.assert_array_equal(
        encode(ImageEncoder(folder), pictures),
        encode(ImageEncoder(folder, dtype="bfloat16"), pictures),
    )


def test_settings_without_the_weights(editable, saved) -> None:
    folder = editable("clip")
    found = ImageEncoder(folder, normalize=True).settings()
    files = found.pop("files")
    assert set(files) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert found == {
        "version": 1,
        "pooling": "model",
        "dtype": "float32",
        "load_in_8bit": False,
        "processor": "CLIPImageProcessor",
        "min_pixels": None,
        "max_pixels": None,
        "normalize": True,
    }
    json.dumps(found)
    same = ImageEncoder(saved("clip")[0], device="cpu").settings()
    assert same["files"] == files
    save_processor(folder, image_processor_type="CLIPImageProcessor", resample=2)
    assert ImageEncoder(folder).settings()["files"] != files


def test_goes_to_another_process_as_its_arguments(saved, pictures) -> None:
    encoder = ImageEncoder(saved("vit")[0], pooling="mean", normalize=True)
    vectors = encode(encoder, pictures)
    copy = pickle.loads(pickle.dumps(encoder))
    assert len(pickle.dumps(encoder)) < 1000
    assert copy.settings() == encoder.settings()
    np.testing.assert_array_equal(encode(copy, pictures), vectors)


def test_provenance(saved) -> None:
    folder, _ = saved("vit")
    found = ImageEncoder(folder).provenance()
    assert found["model"] == str(folder)
    assert found["revision"] is None
    assert found["torch"] == torch.__version__
    json.dumps(found)
