"""Vectors of pictures from pretrained vision models of one input size."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_vision import (
    MODELS,
    SIDE,
    block_network,
    picture,
    pixels_by_hand,
    save_model,
    save_pictures,
    save_processor,
)

from recbole_mars.features import ImageEncoder
from recbole_mars.features.encoders import image_model

SIZES = [(40, 24), (24, 50), (SIDE, SIDE), (90, 90)]
SQUARE = [(40, 40), (64, 64), (SIDE, SIDE), (90, 90)]  # for processors that crop


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    block_network(monkeypatch)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saves a model once; gives its folder and the model."""
    made = {}

    def get(name: str) -> tuple[Path, torch.nn.Module]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = (folder, save_model(name, folder))
        return made[name]

    return get


@pytest.fixture
def editable(saved, tmp_path):
    """A copy of a saved model's folder, to be damaged."""

    def get(name: str) -> Path:
        shutil.copytree(saved(name)[0], tmp_path / name)
        return tmp_path / name

    return get


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    return save_pictures(tmp_path_factory.mktemp("pictures"), *SIZES)


def encode(encoder: ImageEncoder, paths: list[Path]) -> np.ndarray:
    encoder.load()
    batch = encoder.prepare(paths)
    vectors = encoder.encode_batch(batch)
    assert vectors.dtype == np.float32
    assert len(vectors) == batch.size == len(paths) - len(batch.broken)
    return vectors


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
def test_equals_a_forward_by_hand(saved, tmp_path, name: str, pooling: str) -> None:
    folder, model = saved(name)
    paths = save_pictures(tmp_path, *(SQUARE if name in ("convnext", "resnet") else SIZES))
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


def test_pooler_that_is_random_is_an_error_when_asked_for(saved, pictures) -> None:
    encoder = ImageEncoder(saved("vit")[0], pooling="model")
    with pytest.raises(ValueError, match=r"first 'pooler\.dense\.bias'; use pooling 'cls' or"):
        encoder.load()


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("vit", "vit.layernorm.weight"),
        ("clip", "visual_projection.weight"),
        ("resnet", "resnet.embedder.embedder.normalization.running_mean"),
    ],
)
def test_missing_weights_are_an_error(editable, name: str, lost: str) -> None:
    folder = editable(name)
    weights = load_file(folder / "model.safetensors")
    matching = [key for key in weights if key.endswith(lost.split(".", 1)[1])] or [lost]
    for key in matching:
        del weights[key]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"must hold all weights .* missing, first .* get the"):
        ImageEncoder(folder).load()


def test_weights_of_the_text_half_may_be_missing(editable, saved, pictures) -> None:
    folder = editable("clip")
    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if not key.startswith("text_")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(
        encode(ImageEncoder(folder), pictures), encode(ImageEncoder(saved("clip")[0]), pictures)
    )


def test_weights_of_another_size_are_an_error(editable) -> None:
    folder = editable("vit")
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if key.endswith("vit.layernorm.weight"))
    weights[key] = torch.ones(7)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"does not load from .*vit with transformers"):
        ImageEncoder(folder).load()


def test_a_cut_weight_file_is_an_error(editable) -> None:
    folder = editable("vit")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="does not load from"):
        ImageEncoder(folder).load()


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


def test_vectors_that_are_not_finite_are_an_error(editable, pictures) -> None:
    folder = editable("vit")
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if key.endswith("vit.layernorm.weight"))
    weights[key] = torch.full((32,), 3e38)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"must give finite vectors.*use dtype 'bfloat16' or"):
        encode(ImageEncoder(folder), pictures)


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


def test_options_that_cannot_be(saved, tmp_path) -> None:
    folder, _ = saved("vit")
    with pytest.raises(ValueError, match=r"pooling must be one of .* got 'max'"):
        ImageEncoder(folder, pooling="max")
    with pytest.raises(ValueError, match=r"dtype must be 'auto' or one of .* got 'int8'"):
        ImageEncoder(folder, dtype="int8")
    with pytest.raises(ValueError, match="got 'gpu'"):
        ImageEncoder(folder, device="gpu").load()
    with pytest.raises(ValueError, match="device must be 'auto', got 'cpu'; give one of the two"):
        ImageEncoder(folder, device="cpu", device_map="auto")
    with pytest.raises(ValueError, match=r"max_pixels are for models .*vit.* leave them out"):
        ImageEncoder(folder, max_pixels=1000).settings()
    with pytest.raises(ValueError, match="must be a folder with a config"):
        ImageEncoder(tmp_path / "none").settings()


def test_eight_bits_need_their_packages(saved, monkeypatch) -> None:
    monkeypatch.setattr(
        "recbole_mars.features.encoders.pretrained.importlib.util.find_spec",
        lambda name: None if name == "bitsandbytes" else True,
    )
    with pytest.raises(ValueError, match=r"needs the package bitsandbytes.*'recbole_mars\[large"):
        ImageEncoder(saved("vit")[0], load_in_8bit=True).load()


def test_models_that_are_not_for_pictures(editable, tmp_path) -> None:
    folder = editable("vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"needs an image processor .*preprocessor_config"):
        ImageEncoder(folder).settings()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "vit_mae"}))
    with pytest.raises(ValueError, match="hides patches at random"):
        ImageEncoder(folder).settings()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"\(bert\) must be a vision model.*found BertModel"):
        ImageEncoder(folder).settings()
    (folder / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    with pytest.raises(ValueError, match="does not load from"):
        ImageEncoder(folder).settings()
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold settings by name, got a list"):
        ImageEncoder(folder).settings()


@pytest.mark.parametrize(
    ("name", "pooling"),
    [("resnet", "cls"), ("swin", "cls"), ("siglip", "cls"), ("efficientnet", "cls")],
)
def test_pooling_that_a_model_cannot_do(saved, name: str, pooling: str) -> None:
    with pytest.raises(ValueError, match=r"needs a CLS token, but .* use 'auto' or 'model'"):
        ImageEncoder(saved(name)[0], pooling=pooling).load()


def test_pictures_of_more_than_one_size(editable, pictures) -> None:
    folder = editable("dinov2")
    save_processor(folder, image_processor_type="BitImageProcessor", size={"shortest_edge": SIDE})
    encoder = ImageEncoder(folder)
    with pytest.raises(ValueError, match=r"needs pictures of one size, .*do_center_crop"):
        encoder.prepare(pictures)


CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class OwnConfig(PretrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    main_input_name = "pixel_values"
    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.post_init()
    def forward(self, pixel_values):
        from transformers.modeling_outputs import BaseModelOutputWithPooling
        mean = pixel_values.mean((2, 3)) * self.scale
        return BaseModelOutputWithPooling(last_hidden_state=mean[:, None], pooler_output=mean)
"""


def test_code_of_the_model_runs_only_if_the_user_says_so(
    tmp_path, pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own_model"
    folder.mkdir()
    (folder / "own.py").write_text(CODE)
    config = {
        "model_type": "own",
        "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_processor(folder, image_processor_type="ViTImageProcessor")
    save_file({"scale": torch.full((3,), 2.0)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"brings Python code of its own.*set trust_remote_code"):
        ImageEncoder(folder).settings()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    monkeypatch.syspath_prepend(str(tmp_path / "m"))
    vectors = encode(ImageEncoder(folder, trust_remote_code=True), pictures)
    expected = [2 * pixels_by_hand(path).mean((2, 3)) for path in pictures]
    np.testing.assert_allclose(vectors, torch.cat(expected).numpy(), atol=1e-4)
