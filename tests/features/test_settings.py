"""The settings of item features: one vocabulary for flags, YAML files and RecBole runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from recbole_mars.features import (
    FeatureSettings,
    ImageEncoder,
    PixelEncoder,
    TextEncoder,
    TfidfEncoder,
)

OVERALL = Path(__file__).resolve().parents[2] / "properties" / "overall.yaml"


def test_the_defaults_are_those_of_the_yaml_file() -> None:
    in_file = yaml.safe_load(OVERALL.read_text(encoding="utf-8"))
    for option in FeatureSettings.options():
        assert option.name in in_file
        assert in_file[option.name] == option.default, option.name
        assert option.metadata["help"]


def test_from_keys_takes_what_it_knows() -> None:
    keys = {"text_fields": ["a", "b", "a"], "epochs": 3, "text_width": None, "image_width": 8}
    settings = FeatureSettings.from_keys(keys)
    assert settings.text_columns() == ["a", "b"]
    assert (settings.text_width, settings.image_width) == (None, 8)
    assert FeatureSettings.from_keys({"text_fields": "title"}).text_columns() == ["title"]
    assert FeatureSettings.from_keys({"text_prompt": "{x}. {y}, {x}"}).text_columns() == ["x", "y"]
    assert FeatureSettings().text_columns() == []


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"text_poling": "cls"}, "unknown key text_poling. Did you mean text_pooling"),
        ({"text_width": "64"}, "text_width must be a whole number, got '64'"),
        ({"text_width": True}, "text_width must be a whole number, got True"),
        ({"encoder_8bit": 1}, "encoder_8bit must be True or False, got 1"),
        ({"text_encoder": 7}, "text_encoder must be a word, got 7"),
        ({"text_fields": {"a": 1}}, "text_fields must be a list of columns"),
        ({"max_broken_images": "few"}, "max_broken_images must be a number"),
        ({"max_broken_images": 2}, r"max_broken_images must lie in 0\.\.1, got 2"),
        ({"text_width": 0}, "text_width must be >= 1, got 0"),
        ({"image_batch_size": 0}, "image_batch_size must be >= 1, got 0"),
        ({"feature_dtype": "int4"}, "feature_dtype must be one of float16, float32, int8"),
        ({"feature_whiten": True}, "feature_whiten needs text_width or image_width"),
        ({"text_prompt": "{title.x}"}, "plain name of a column"),
    ],
)
def test_refused(keys: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        FeatureSettings.from_keys(keys)


def test_encoders_get_what_was_asked_for() -> None:
    assert isinstance(FeatureSettings().make_text_encoder(), TfidfEncoder)
    assert isinstance(FeatureSettings().make_image_encoder(), PixelEncoder)
    keys = {
        "text_encoder": "owner/text",
        "text_revision": "v1",
        "text_pooling": "last",
        "text_max_length": 99,
        "text_normalize": True,
        "text_dtype": "bfloat16",
        "image_encoder": "owner/image",
        "image_revision": "v2",
        "image_pooling": "mean",
        "image_min_pixels": 10,
        "image_max_pixels": 20,
        "image_normalize": True,
        "image_dtype": "float16",
        "encoder_device": "cpu",
        "encoder_8bit": True,
        "encoder_remote_code": True,
    }
    settings = FeatureSettings.from_keys(keys)
    text, image = settings.make_text_encoder(), settings.make_image_encoder()
    assert isinstance(text, TextEncoder)
    assert isinstance(image, ImageEncoder)
    shared = ("cpu", None, True, True)
    for encoder, expected in (
        (text, ("owner/text", "v1", "last", 99, True, "bfloat16")),
        (image, ("owner/image", "v2", "mean", 10, 20, True, "float16")),
    ):
        names = ("model", "revision", "pooling", "dtype", "normalize")
        own = ("max_length",) if encoder is text else ("min_pixels", "max_pixels")
        assert {str(getattr(encoder, name)) for name in (*names, *own)} == set(map(str, expected))
        found = (encoder.device, encoder.device_map, encoder.load_in_8bit)
        assert (*found, encoder.trust_remote_code) == shared


def test_labels() -> None:
    def label(kind: str, **keys) -> str:
        return FeatureSettings(**keys).label(kind)

    bert = label("text", text_encoder="some/where/Bert Base")
    assert re.fullmatch(r"Bert-Base-[0-9a-f]{8}", bert)
    same = {"text_batch_size": 3, "text_width": 4, "image_dir": "x", "encoder_device": "cpu"}
    assert label("text", text_encoder="some/where/Bert Base", **same) == bert
    others = [{"text_pooling": "cls"}, {"text_prompt": "{a}"}, {"encoder_8bit": True}]
    found = {label("text", text_encoder="some/where/Bert Base", **other) for other in others}
    assert len({bert, *found}) == 4
    assert label("image").startswith("pixels-")
    assert label("image", image_dir="a") == label("image", image_dir="b")


def test_execution() -> None:
    settings = FeatureSettings(encoder_workers=3, ray_address="auto", ray_workers=2)
    execution = settings.execution(7)
    assert (execution.batch_size, execution.workers, execution.shard) == (7, 3, None)
    assert (execution.ray_address, execution.ray_workers) == ("auto", 2)
    assert FeatureSettings().execution(7, (1, 2)).shard == (1, 2)


@pytest.mark.parametrize(
    ("keys", "idle"),
    [
        ({"text_fields": ["a"], "text_pooling": "cls", "text_width": 3}, ["text_pooling"]),
        ({"text_fields": ["a"], "text_prompt": "{a}"}, ["text_fields"]),
        (
            {"text_fields": ["a"], "image_encoder": "x", "image_list": "y"},
            ["image_encoder", "image_list"],
        ),
        ({"image_dir": "d", "image_encoder": "x", "image_dtype": "float16"}, []),
        (
            {"image_dir": "d", "encoder_device": "cpu", "ray_workers": 2},
            ["encoder_device", "ray_workers"],
        ),
        ({"image_dir": "d", "image_encoder": "x", "encoder_device": "cpu"}, []),
        ({"image_dir": "d", "image_batch_size": 8, "feature_dtype": "int8"}, ["image_batch_size"]),
    ],
)
def test_settings_without_effect(keys: dict, idle: list[str]) -> None:
    assert FeatureSettings.from_keys(keys).without_effect(keys) == idle
