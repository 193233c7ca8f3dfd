"""The short way of preprocessing gives what the models' own image processors give, byte by byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_vision import picture, save_model, save_processor

from recbole_mars.features.encoders import image_recipe
from recbole_mars.features.encoders.image_processor import ImageProcessor
from recbole_mars.features.encoders.image_recipe import find_recipe
from recbole_mars.features.encoders.model_folder import fetch_model

CROPPED = {
    "size": {"shortest_edge": 48},
    "do_center_crop": True,
    "crop_size": {"height": 44, "width": 40},
}
CASES = [
    ("CLIPImageProcessor", CROPPED),
    ("CLIPImageProcessor", {**CROPPED, "resample": 2}),
    ("BitImageProcessor", CROPPED),
    ("DeiTImageProcessor", {**CROPPED, "size": {"height": 50, "width": 47}}),
    ("ViTImageProcessor", {"size": {"height": 40, "width": 30}, "resample": 2}),
    ("ViTImageProcessor", {"do_normalize": False}),
    ("SiglipImageProcessor", {"resample": 0}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    save_model("vit", folder)
    return folder


def own_processor(folder: Path, kind: str, **settings: Any) -> Any:
    save_processor(folder, image_processor_type=kind, **settings)
    return ImageProcessor(fetch_model(str(folder)))._processor


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_equal_bytes(folder: Path, kind: str, settings: dict[str, Any]) -> None:
    processor = own_processor(folder, kind, **settings)
    recipe = find_recipe(processor)
    assert recipe is not None
    for seed, (width, height) in enumerate([(64, 48), (48, 64), (500, 333), (7, 90), (1, 5)]):
        image = picture(seed, width, height)
        expected = processor([image], return_tensors="np")["pixel_values"][0]
        assert recipe(image).dtype == expected.dtype
        np.testing.assert_array_equal(recipe(image), expected)
    through = ImageProcessor(fetch_model(str(folder)))(image)
    np.testing.assert_array_equal(through["pixel_values"], expected[None])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ConvNextImageProcessor", {}),
        ("CLIPImageProcessor", {**CROPPED, "crop_size": {"height": 60, "width": 40}}),  # pads
        ("CLIPImageProcessor", {"size": {"shortest_edge": 48}}),
        ("ViTImageProcessor", {"do_resize": False}),
    ],
)
def test_what_it_does_not_know_is_left_to_the_processor(
    folder: Path, kind: str, settings: dict[str, Any]
) -> None:
    processor = own_processor(folder, kind, **settings)
    assert find_recipe(processor) is None
    image = picture(0, 64, 48)
    found = ImageProcessor(fetch_model(str(folder)))(image)["pixel_values"]
    np.testing.assert_array_equal(found, processor([image], return_tensors="np")["pixel_values"])


def test_a_processor_that_does_something_else_is_found_out(folder: Path, monkeypatch) -> None:
    processor = own_processor(folder, "ViTImageProcessor")
    assert find_recipe(processor) is not None
    shifted = type(processor).__call__

    def mirrored(self, images, **keywords):
        return shifted(
            self, [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images], **keywords
        )

    monkeypatch.setattr(type(processor), "__call__", mirrored)
    assert find_recipe(processor) is None


def test_sizes_of_a_recipe() -> None:
    recipe = image_recipe.Recipe(4, 0, 0, 0, (2, 4), np.arange(768).reshape(3, 256) * 1.0)
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6, 1).repeat(3, axis=2))
    pixels = recipe(image)  # 4 x 6 stays; its middle of 2 x 4 is rows 1, 2 and columns 1 to 4
    assert pixels[0].tolist() == [[7, 8, 9, 10], [13, 14, 15, 16]]
    assert pixels[2].tolist() == [[519, 520, 521, 522], [525, 526, 527, 528]]


@pytest.mark.parametrize("kind", ["ConvNextImageProcessor", "ViTImageProcessor"])
@pytest.mark.parametrize("size", [(3, 3), (90, 3), (3, 90), (1, 1), (1, 60)])
def test_rows_of_small_pictures_are_not_taken_for_colours(
    folder: Path, kind: str, size: tuple[int, int]
) -> None:
    save_processor(folder, image_processor_type=kind)
    processor = ImageProcessor(fetch_model(str(folder)))
    small = Image.new("RGB", size, (255, 128, 0))
    large = Image.new("RGB", (64, 64), (255, 128, 0))
    np.testing.assert_allclose(
        processor(small)["pixel_values"], processor(large)["pixel_values"], atol=1e-6
    )
