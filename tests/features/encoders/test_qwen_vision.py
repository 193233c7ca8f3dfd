"""The vision tower of Qwen-VL models, loaded without the rest of the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_vision import MEAN, QWENS, STD, block_network, encode, save_pictures, save_qwen

from recbole_mars.features import ImageEncoder
from recbole_mars.features.encoders import qwen_vision
from recbole_mars.features.encoders.qwen_vision import pool_packed

SIZES = [(130, 90), (56, 200), (70, 70), (300, 240)]
LIMITS = {"min_pixels": 4 * 28 * 28, "max_pixels": 40 * 28 * 28}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    block_network(monkeypatch)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    made = {}

    def get(name: str = "qwen2_5_vl") -> tuple[Path, torch.nn.Module]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = (folder, save_qwen(name, folder))
        return made[name]

    return get


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    return save_pictures(tmp_path_factory.mktemp("pictures"), *SIZES)


def patches_by_hand(path: Path, side: int, limits: dict[str, int]) -> tuple[torch.Tensor, tuple]:
    """The patches of a picture in the order of the model: 2 x 2 that are merged come together."""
    image = Image.open(path).convert("RGB")
    unit = 2 * side
    height, width = (max(unit, round(length / unit) * unit) for length in image.size[::-1])
    most, least = limits["max_pixels"], limits["min_pixels"]
    if height * width > most:
        shrink = (image.height * image.width / most) ** 0.5
        height, width = (int(length / shrink / unit) * unit for length in image.size[::-1])
    elif height * width < least:
        grow = (least / (image.height * image.width)) ** 0.5
        height, width = (int(np.ceil(length * grow / unit)) * unit for length in image.size[::-1])
    resized = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    values = ((resized / 255.0 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    patches = []
    for top in range(0, height, unit):
        for left in range(0, width, unit):
            for down in (0, side):
                for right in (0, side):
                    y, x = top + down, left + right
                    patch = values[y : y + side, x : x + side].transpose(2, 0, 1)
                    # A still picture stands for two frames.
                    patches.append(np.stack([patch, patch], axis=1).ravel())
    return torch.from_numpy(np.stack(patches)), (1, height // side, width // side)


@pytest.mark.parametrize("name", QWENS)
def test_equals_a_forward_by_hand(saved, pictures, name: str) -> None:
    folder, model = saved(name)
    side = 16 if name == "qwen3_vl" else 14
    expected = []
    for path in pictures:
        patches, grid = patches_by_hand(path, side, LIMITS)
        with torch.no_grad():
            output = model.model.visual(patches, torch.tensor([grid]))
        output = output[0] if isinstance(output, tuple) else output
        tokens = output if torch.is_tensor(output) else output.pooler_output
        assert tokens.shape == (grid[1] * grid[2] // 4, 24)
        expected.append(tokens.mean(0).numpy())
    vectors = encode(ImageEncoder(folder, **LIMITS), pictures)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, np.stack(expected), rtol=1e-4, atol=1e-5)
    assert np.std(vectors, axis=0).max() > 0.01  # the pictures do differ


@pytest.mark.parametrize("name", QWENS)
def test_a_batch_equals_single_pictures_in_any_company(saved, pictures, name: str) -> None:
    encoder = ImageEncoder(saved(name)[0], **LIMITS)
    together = encode(encoder, pictures)
    single = np.concatenate([encode(encoder, [path]) for path in pictures])
    np.testing.assert_allclose(together, single, atol=1e-5)
    backwards = encode(encoder, pictures[::-1])[::-1]
    np.testing.assert_allclose(together, backwards, atol=1e-5)
    assert list(encoder.lengths(pictures)) == [0] * len(pictures)


def test_mean_over_the_tokens_of_each_picture() -> None:
    grid = torch.tensor([[1, 2, 4], [1, 2, 2], [1, 4, 2]])  # 2, 1 and 2 tokens
    tokens = torch.tensor([[1.0, 10.0], [3.0, 30.0], [7.0, 70.0], [0.0, 0.0], [5.0, -4.0]])
    expected = [[2.0, 20.0], [7.0, 70.0], [2.5, -2.0]]
    assert pool_packed(tokens, grid, 2).tolist() == expected


def test_mean_is_taken_in_single_precision() -> None:
    tokens = torch.ones(4096, 1, dtype=torch.bfloat16)
    tokens[::2] = 1.0078125
    mean = pool_packed(tokens, torch.tensor([[1, 128, 128]]), 2)
    assert mean.item() == pytest.approx(1.00390625, abs=1e-6)


def shard(folder: Path, source: Path, rename: str = "visual.") -> tuple[list[str], list[str]]:
    """Write the model anew in three files; returns those with and without the tower."""
    shutil.copytree(source, folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    weights = load_file(source / "model.safetensors")
    visual = {key: value for key, value in weights.items() if "visual." in key}
    visual = {rename + key.split("visual.", 1)[1]: value for key, value in visual.items()}
    others = {key: value for key, value in weights.items() if "visual." not in key}
    middle = sorted(visual)[len(visual) // 2]
    shards = {
        "model-00001-of-00003.safetensors": {k: v for k, v in visual.items() if k < middle},
        "model-00002-of-00003.safetensors": {
            **{k: v for k, v in visual.items() if k >= middle},
            "lm_head.weight": others["lm_head.weight"],
        },
        "model-00003-of-00003.safetensors": {
            key: value for key, value in others.items() if key != "lm_head.weight"
        },
    }
    for name, part in shards.items():
        save_file(part, folder / name, metadata={"format": "pt"})
    places = {key: name for name, part in shards.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    names = sorted(shards)
    return names[:2], names[2:]


@pytest.mark.parametrize("rename", ["visual.", "model.visual."])
def test_only_files_that_hold_the_tower_are_opened(
    saved, pictures, tmp_path, monkeypatch: pytest.MonkeyPatch, rename: str
) -> None:
    folder = tmp_path / "sharded"
    with_tower, without = shard(folder, saved()[0], rename)
    for name in without:  # a model of which only the tower's files were fetched
        (folder / name).unlink()
    opened = []
    original = qwen_vision.safe_open

    def recorded(path, *args, **keywords):
        opened.append(Path(path).name)
        return original(path, *args, **keywords)

    monkeypatch.setattr(qwen_vision, "safe_open", recorded)
    encoder = ImageEncoder(folder, **LIMITS)
    files = encoder.settings()["files"]
    assert [name for name in files if name.endswith(".safetensors")] == with_tower
    assert opened == []
    vectors = encode(encoder, pictures)
    assert opened == with_tower
    np.testing.assert_allclose(
        vectors, encode(ImageEncoder(saved()[0], **LIMITS), pictures), atol=1e-6
    )


def test_weights_must_be_those_of_the_tower(saved, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved()[0], folder)
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if key.endswith("visual.merger.ln_q.weight"))
    prefix = key[: -len("merger.ln_q.weight")]

    def load_with(changed: dict[str, torch.Tensor]) -> None:
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        ImageEncoder(folder).load()

    with pytest.raises(ValueError, match=r"1 are missing, first 'merger\.ln_q\.weight'"):
        load_with({name: value for name, value in weights.items() if name != key})
    with pytest.raises(ValueError, match=r"it has no place for 'extra\.weight'"):
        load_with({**weights, prefix + "extra.weight": torch.ones(2)})
    with pytest.raises(ValueError, match="does not load from"):
        load_with({**weights, key: torch.ones(5)})
    with pytest.raises(ValueError, match=r"must have a vision tower, weights named 'visual\.\*'"):
        load_with({name: value for name, value in weights.items() if "visual." not in name})
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"read from \.safetensors files, found pytorch_model"):
        ImageEncoder(folder).load()


def test_pixels_between_limits(saved, pictures) -> None:
    def grids(**limits: int) -> list[list[int]]:
        encoder = ImageEncoder(saved()[0], **limits)
        encoder.load()
        return encoder.prepare(pictures).content["image_grid_thw"].tolist()

    assert grids()[3] == [1, 18, 22]  # 300 x 240, to the nearest multiples of 28
    assert all(height * width <= 4 * 9 for _, height, width in grids(max_pixels=9 * 784))
    assert all(height * width >= 4 * 100 for _, height, width in grids(min_pixels=100 * 784))


def test_settings_and_limits(saved) -> None:
    folder, _ = saved()
    found = ImageEncoder(folder).settings()
    assert found["min_pixels"] == 4 * 28 * 28  # of the model's own processor
    assert found["max_pixels"] == 768 * 28 * 28
    assert found["pooling"] == "mean"
    assert found["processor"] == "Qwen2VLImageProcessor"
    assert ImageEncoder(folder, pooling="mean").settings() == found
    assert ImageEncoder(folder, max_pixels=50_000).settings() != found
    with pytest.raises(ValueError, match="need 0 < min_pixels <= max_pixels, got 3136 and 100"):
        ImageEncoder(folder, max_pixels=100).settings()
    with pytest.raises(ValueError, match=r"must be 'auto' or 'mean'.* got 'cls'"):
        ImageEncoder(folder, pooling="cls").settings()


def test_pictures_too_narrow_for_the_model_are_broken(saved, pictures, tmp_path) -> None:
    Image.new("RGB", (900, 4)).save(tmp_path / "line.png")
    encoder = ImageEncoder(saved()[0], **LIMITS)
    encoder.load()
    batch = encoder.prepare([pictures[0], tmp_path / "line.png", pictures[1]])
    assert list(batch.broken) == [1]
    assert "aspect ratio must be smaller than 200" in batch.broken[1]
    np.testing.assert_allclose(
        encoder.encode_batch(batch), encode(encoder, pictures[:2]), atol=1e-5
    )
    nothing = encoder.prepare([tmp_path / "line.png"])
    assert nothing.size == 0
    assert encoder.encode_batch(nothing).shape == (0, 24)


def test_half_precision(saved, pictures) -> None:
    exact = encode(ImageEncoder(saved()[0], **LIMITS), pictures)
    half = encode(ImageEncoder(saved()[0], dtype="bfloat16", **LIMITS), pictures)
    assert half.dtype == np.float32
    cosines = (exact * half).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(half, axis=1)
    assert cosines.min() > 0.999
    assert not np.array_equal(exact, half)


def test_precision_of_the_checkpoint(saved, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved()[0], folder)
    config = json.loads((folder / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
        config["vision_config"].pop(key, None)
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    encoder = ImageEncoder(folder)
    assert encoder.settings()["dtype"] == "bfloat16"
    encoder.load()
    assert encoder._vision.placement[1] == torch.bfloat16


def test_model_of_the_paper(saved, pictures, tmp_path) -> None:
    """Qwen2.5-VL-7B, its config.json as published, but for the tower's depth and inner widths."""
    tower = {
        "depth": 2,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "in_chans": 3,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    }
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": tower,
    }
    weights = {
        "visual." + name.split("visual.", 1)[1]: tensor
        for name, tensor in load_file(saved()[0] / "model.safetensors").items()
        if "visual." in name and "blocks.2." not in name and "merger.mlp.2" not in name
    }
    generator = torch.Generator().manual_seed(0)
    weights["visual.merger.mlp.2.weight"] = torch.randn(3584, 128, generator=generator)
    weights["visual.merger.mlp.2.bias"] = torch.randn(3584, generator=generator)
    weights = {name: tensor.bfloat16() for name, tensor in weights.items()}
    save_file(weights, tmp_path / "model-00001-of-00005.safetensors", {"format": "pt"})
    places = dict.fromkeys(weights, "model-00001-of-00005.safetensors")
    places["model.layers.0.mlp.down_proj.weight"] = "model-00002-of-00005.safetensors"
    index = {"metadata": {"total_size": 16584333312}, "weight_map": places}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps(config))
    processor = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    encoder = ImageEncoder(tmp_path)
    vectors = encode(encoder, pictures)
    assert vectors.shape == (len(pictures), 3584)
    found = encoder.settings()
    assert (found["dtype"], found["min_pixels"], found["max_pixels"]) == ("bfloat16", 3136, 602_112)
