"""Pictures to arrays: what a model's own image processor does, independent of torchvision."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from recbole_mars.features.encoders.image_recipe import find_recipe
from recbole_mars.features.encoders.model_folder import ModelFolder

__all__ = ["ImageProcessor"]


class ImageProcessor:
    """A model's own image processor, for one picture after the other, from any thread.

    Processors of `transformers` come in two kinds, which differ in the last digits or more: on
    PIL and numpy, or on torchvision. The first is taken wherever there is one, so that the same
    picture gives the same vector whether torchvision is installed or not.

    options: change settings of the processor. Raises ValueError if it cannot be loaded.
    """

    def __init__(self, folder: ModelFolder, trust_remote_code: bool = False, **options: Any):
        from transformers import AutoImageProcessor, __version__

        old = int(__version__.split(".")[0]) < 5
        kinds = [{"use_fast": False}, {"use_fast": True}] if old else [{"backend": "pil"}]
        for kind in kinds:  # the second is for those few that have no other
            try:
                self._processor = AutoImageProcessor.from_pretrained(
                    str(folder.path),
                    local_files_only=True,
                    trust_remote_code=trust_remote_code,
                    **kind,
                    **options,
                )
                break
            except Exception as error:  # of whatever the processor's class needs
                failure = error
        else:
            raise ValueError(
                f"model {folder.name!r} needs an image processor that transformers {__version__} "
                f"can load from its preprocessor_config.json: {' '.join(str(failure).split())}; "
                f"choose a model for pictures, or install what is missing"
            ) from failure
        name = type(self._processor).__name__
        if "timm" in type(self._processor).__module__:
            self._arguments: dict[str, Any] = {"return_tensors": "pt"}
        elif name.endswith("Fast") or getattr(self._processor, "backend", "pil") != "pil":
            self._arguments = {"return_tensors": "pt"}
        else:
            # Of a picture 3 pixels high, older versions mistake the rows for its colours.
            self._arguments = {"return_tensors": "np"}
            if old:
                self._arguments["input_data_format"] = "channels_last"
        self._recipe = find_recipe(self._processor)

    @property
    def name(self) -> str:
        """The processor's class, by the name that does not tell its kind."""
        name = type(self._processor).__name__
        return re.sub("(Pil|Fast)$", "", name)

    @property
    def size(self) -> dict[str, int]:
        """The size that pictures are brought to, or between."""
        return {key: value for key, value in dict(self._processor.size).items() if value}

    def __call__(self, image: Image.Image) -> dict[str, np.ndarray]:
        """Process one RGB picture into arrays with a leading dimension that `join` joins along.

        Raises ValueError if the processor refuses it.
        """
        if self._recipe is not None:
            return {"pixel_values": self._recipe(image)[None]}
        processed = self._processor([image], **self._arguments)
        return {key: np.asarray(value) for key, value in processed.items()}

    @staticmethod
    def join(processed: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Put pictures together into a batch; ValueError if they are not of one size."""
        try:
            return {
                key: np.concatenate([arrays[key] for arrays in processed]) for key in processed[0]
            }
        except ValueError as error:
            shapes = sorted({arrays["pixel_values"].shape[1:] for arrays in processed})
            raise ValueError(
                f"a batch needs pictures of one size, but the image processor gives {shapes}; set "
                f"a height and width, or do_center_crop, in the model's preprocessor_config.json"
            ) from error
