"""Models of timm, in folders as timm writes them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vision import block_network, save_pictures

from recbole_mars.features import ImageEncoder

WITHOUT = [name for name in ("timm", "torchvision") if find_spec(name) is None]
needs_timm = pytest.mark.skipif(
    bool(WITHOUT), reason=f"no {' and no '.join(WITHOUT)}: pip install 'recbole_mars[timm]'"
)
ARCHITECTURES = {
    "vit_tiny_patch16_224": {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "window_size": 4,
    },
    "resnet10t": {},
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    block_network(monkeypatch)


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    return save_pictures(tmp_path, (40, 40), (64, 48), (48, 90))


def save_timm(name: str, folder: Path) -> torch.nn.Module:
    import timm

    torch.manual_seed(0)
    arguments = dict(ARCHITECTURES[name])
    if arguments:
        arguments["img_size"] = 32
    model = timm.create_model(name, pretrained=False, num_classes=5, **arguments).eval()
    model.pretrained_cfg = {
        **model.pretrained_cfg,
        "input_size": (3, 32, 32),
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.25, 0.3),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
    }
    timm.models.save_for_hf(model, folder, model_args=arguments, safe_serialization=True)
    return model


@needs_timm
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equals_timm_itself(tmp_path, pictures, name: str) -> None:
    import timm

    folder = tmp_path / "model"
    model = save_timm(name, folder)
    transform = timm.data.create_transform(
        input_size=(3, 32, 32),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
        crop_pct=1.0,
        interpolation="bicubic",
    )
    pixels = torch.stack([transform(Image.open(path)) for path in pictures])
    with torch.no_grad():
        states = model.forward_features(pixels)
        expected = model.forward_head(states, pre_logits=True).numpy()
    encoder = ImageEncoder(folder)
    encoder.load()
    together = encoder.encode_batch(encoder.prepare(pictures))
    np.testing.assert_allclose(together, expected, rtol=1e-4, atol=1e-5)
    single = [encoder.encode_batch(encoder.prepare([path]))[0] for path in pictures]
    np.testing.assert_allclose(together, np.stack(single), atol=1e-5)
    assert encoder.settings()["pooling"] == "model"
    assert encoder.provenance()["timm"] == timm.__version__
    # Tokens after CLS, a map with the width last, a map with the width first
    means = {
        "vit": lambda: states[:, 1:].mean(1),
        "swi": lambda: states.mean((1, 2)),
        "res": lambda: states.mean((2, 3)),
    }
    mean = ImageEncoder(folder, pooling="mean")
    np.testing.assert_allclose(
        mean.encode_batch(mean.prepare(pictures)), means[name[:3]](), rtol=1e-4, atol=1e-5
    )


def test_without_timm_the_remedy_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_mars.features.encoders.vision_config.find_spec", lambda name: None)
    config = {"architecture": "resnet18", "num_classes": 0, "pretrained_cfg": {"tag": "x"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"found no timm and no torchvision; pip install 'recbole"):
        ImageEncoder(tmp_path).settings()
