"""The usual way from a picture to a model's input: resize, crop, normalise, without detours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["Recipe", "find_recipe"]

PROCESSORS = tuple(f"{model}ImageProcessor" for model in ("Bit", "CLIP", "DeiT", "Siglip", "ViT"))
# Width and height of the pictures that a recipe is tried on: wide, high, odd, small, large.
PROBES = ((300, 200), (201, 320), (257, 257), (40, 31), (23, 90), (700, 611))


@dataclass(frozen=True)
class Recipe:
    """Resize a picture, cut out its middle, and look up the normalised value of every pixel.

    Processors of `transformers` go from picture to array to picture to array, in double
    precision; this takes about half their time, and gives the very same bytes.

    shortest: bring the shorter edge to this length; 0 to bring the picture to `height`, `width`.
    resample: Pillow's filter. crop: height and width of the middle, None for all of it.
    values: (3, 256) float32, what a channel's values 0 to 255 become.
    """

    shortest: int
    height: int
    width: int
    resample: int
    crop: tuple[int, int] | None
    values: np.ndarray

    def __call__(self, image: Image.Image) -> np.ndarray:
        """RGB picture to (3, height, width) float32."""
        image = image.resize(self._size(image), self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image)
        result = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
        for channel, values in enumerate(self.values):
            np.take(values, pixels[..., channel], out=result[channel])
        return result

    def _size(self, image: Image.Image) -> tuple[int, int]:
        if not self.shortest:
            return self.width, self.height
        width, height = image.size
        if width <= height:
            return self.shortest, int(self.shortest * height / width)
        return int(self.shortest * width / height), self.shortest


def find_recipe(processor: Any) -> Recipe | None:
    """The recipe that does what an image processor does; None if it does something else.

    A recipe that is found was tried on pictures of many shapes, and gave equal bytes.
    """
    kind = type(processor)
    if not kind.__module__.startswith("transformers.") or not kind.__name__.startswith(PROCESSORS):
        return None
    try:
        recipe = _read_recipe(processor)
        return recipe if recipe is not None and _agree(recipe, processor) else None
    except (AttributeError, KeyError, TypeError, ValueError):  # not settings as they used to be
        return None


def _read_recipe(processor: Any) -> Recipe | None:
    size = {key: value for key, value in dict(processor.size).items() if value}
    if not processor.do_resize or set(size) not in ({"shortest_edge"}, {"height", "width"}):
        return None
    crop = None
    if getattr(processor, "do_center_crop", False):
        cut = dict(processor.crop_size)
        crop = int(cut["height"]), int(cut["width"])
        if max(crop) > min(size.values()):
            return None  # pictures would have to be padded
    elif "shortest_edge" in size:
        return None  # pictures would not come to one size
    # All values of a channel, normalised by the processor itself
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (16, 1, 3))
    options = {"do_resize": False}
    if crop is not None:
        options["do_center_crop"] = False
    values = processor([Image.fromarray(ramp)], return_tensors="np", **options)["pixel_values"]
    return Recipe(
        shortest=int(size.get("shortest_edge", 0)),
        height=int(size.get("height", 0)),
        width=int(size.get("width", 0)),
        resample=int(processor.resample),
        crop=crop,
        values=np.ascontiguousarray(values[0, :, 0], dtype=np.float32),
    )


def _agree(recipe: Recipe, processor: Any) -> bool:
    random = np.random.default_rng(0)
    for width, height in PROBES:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3)).astype(np.uint8))
        expected = processor([image], return_tensors="np")["pixel_values"][0]
        found = recipe(image)
        if found.dtype != expected.dtype or not np.array_equal(found, expected):
            return False
    return True
