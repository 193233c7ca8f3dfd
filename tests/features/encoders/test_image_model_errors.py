"""What is refused of vision models, and how it is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_vision import SIDE, block_network, encode, pixels_by_hand, save_processor

from recbole_mars.features import ImageEncoder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    block_network(monkeypatch)


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


def test_vectors_that_are_not_finite_are_an_error(editable, pictures) -> None:
    folder = editable("vit")
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if key.endswith("vit.layernorm.weight"))
    weights[key] = torch.full((32,), 3e38)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"must be finite.*weights are damaged"):
        encode(ImageEncoder(folder), pictures)


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
    with pytest.raises(ValueError, match=r"folder with a config\.json"):
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
