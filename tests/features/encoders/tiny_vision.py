"""Tiny vision models with random weights, in folders as models come in, and pictures for them."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from recbole_mars.features import ImageEncoder

SIDE = 32  # of the pictures that the fixed-size models take
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": SIDE,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 50,
    "max_position_embeddings": 16,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
CONV = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": SIDE}
DINO = {key: value for key, value in VIT.items() if key != "intermediate_size"}
# name: configuration, model as its checkpoints are saved, settings, image processor
MODELS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "beit": ("BeitConfig", "BeitForImageClassification", VIT, "BeitImageProcessor"),
    "clip": (
        "CLIPConfig",
        "CLIPModel",
        {"vision_config": VIT, "text_config": TEXT, "projection_dim": 16},
        "CLIPImageProcessor",
    ),
    "clip_vision": (
        "CLIPVisionConfig",
        "CLIPVisionModelWithProjection",
        {**VIT, "projection_dim": 16},
        "CLIPImageProcessor",
    ),
    "convnext": (
        "ConvNextConfig",
        "ConvNextForImageClassification",
        CONV,
        "ConvNextImageProcessor",
    ),
    "deit": ("DeiTConfig", "DeiTForImageClassification", VIT, "DeiTImageProcessor"),
    "dinov2": ("Dinov2Config", "Dinov2Model", DINO, "BitImageProcessor"),
    "dinov2_with_registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        {**DINO, "num_register_tokens": 3},
        "BitImageProcessor",
    ),
    "dinov3": (
        "DINOv3ViTConfig",
        "DINOv3ViTModel",
        {**VIT, "num_register_tokens": 3},
        "ViTImageProcessor",
    ),
    "efficientnet": (
        "EfficientNetConfig",
        "EfficientNetForImageClassification",
        {
            "width_coefficient": 0.25,
            "depth_coefficient": 0.1,
            "image_size": SIDE,
            "hidden_dim": 320,
        },
        "EfficientNetImageProcessor",
    ),
    "resnet": (
        "ResNetConfig",
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "ConvNextImageProcessor",
    ),
    "siglip": (
        "SiglipConfig",
        "SiglipModel",
        {"vision_config": VIT, "text_config": {**TEXT, "projection_size": 32}},
        "SiglipImageProcessor",
    ),
    "swin": (
        "SwinConfig",
        "SwinForImageClassification",
        {
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 4,
            "image_size": SIDE,
            "patch_size": 4,
        },
        "ViTImageProcessor",
    ),
    "vit": ("ViTConfig", "ViTForImageClassification", VIT, "ViTImageProcessor"),
}
TOWER = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
}
DECODER = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 64,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
}
QWENS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qwen2_vl": ("Qwen2VL", {"embed_dim": 32, "hidden_size": 24, "mlp_ratio": 2}, {}),
    "qwen2_5_vl": (
        "Qwen2_5_VL",
        {"window_size": 56, "fullatt_block_indexes": [1], "out_hidden_size": 24},
        {},
    ),
    "qwen3_vl": (
        "Qwen3VL",
        {
            "patch_size": 16,
            "out_hidden_size": 24,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        {"head_dim": 12, "rope_scaling": {"rope_type": "default", "mrope_section": [2, 2, 2]}},
    ),
}


def save_model(name: str, folder: Path) -> torch.nn.Module:
    """Save a tiny model of this kind, with its image processor; returns it, for inference."""
    config, model_class, settings, processor = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config)(**settings)).eval()
    _liven(model)
    model.save_pretrained(folder)
    save_processor(folder, image_processor_type=processor)
    return model


def save_processor(folder: Path, **changes: Any) -> None:
    settings = {
        "do_resize": True,
        "size": {"height": SIDE, "width": SIDE},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        **changes,
    }
    if settings["image_processor_type"] == "ConvNextImageProcessor":
        settings.update(size={"shortest_edge": SIDE}, crop_pct=1.0)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def save_qwen(name: str, folder: Path, **options: Any) -> torch.nn.Module:
    """Save a tiny Qwen-VL, language model and all; returns it, for inference."""
    prefix, tower, decoder = QWENS[name]
    config = getattr(transformers, f"{prefix}Config")(
        vision_config={**TOWER, **tower}, text_config={**DECODER, **decoder}
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{prefix}ForConditionalGeneration")(config).eval()
    _liven(model)
    model.save_pretrained(folder, **options)
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": 4 * 28 * 28,
        "max_pixels": 16384 * 28 * 28,
        "patch_size": {**TOWER, **tower}["patch_size"],
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Soft random colours, which differ between pictures after any resizing."""
    colours = np.random.default_rng(seed).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def save_pictures(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    """Save a picture of each width and height."""
    paths = [folder / f"{index}.png" for index in range(len(sizes))]
    for index, (path, size) in enumerate(zip(paths, sizes)):
        picture(index, *size).save(path)
    return paths


def pixels_by_hand(path: Path) -> torch.Tensor:
    """What a fixed-size model gets for a picture: (1, 3, SIDE, SIDE)."""
    image = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    values = (np.asarray(image) / 255.0 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(values.transpose(2, 0, 1)[None].astype(np.float32))


def encode(encoder: ImageEncoder, paths: list[Path]) -> np.ndarray:
    """Vectors of picture files, checked for what all batches must be."""
    encoder.load()
    batch = encoder.prepare(paths)
    vectors = encoder.encode_batch(batch)
    assert vectors.dtype == np.float32
    assert len(vectors) == batch.size == len(paths) - len(batch.broken)
    return vectors


def block_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection fail the test."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def _liven(model: torch.nn.Module) -> None:
    """Larger random weights: those of a fresh model leave a picture hardly a trace."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
