"""Pictures to arrays: what a model's own image processor does, independent of torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from recbole_mars.features.encoders.image_recipe import find_recipe
from recbole_mars.features.encoders.model_folder import ModelFolder
from recbole_mars.features.encoders.vision_loading import one_line, transformers_version

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

        kind = {"backend": "pil"} if transformers_version()[0] >= 5 else {"use_fast": False}
        try:
            self._processor = AutoImageProcessor.from_pretrained(
                folder.path,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                **kind,
                **options,
            )
        except Exception as error:  # of whatever the processor's class needs
            raise ValueError(
                f"model {folder.name!r} needs an image processor that transformers "
                f"{__version__} can load from its preprocessor_config.json: "
                f"{one_line(error)}; "
                f"choose a model for pictures, or install what is missing"
            ) from error
        self._recipe = find_recipe(self._processor)
        module = type(self._processor).__module__
        self._gives_torch = "timm" in module or not self._on_pil()

    @property
    def name(self) -> str:
        """The processor's class, by the name that does not tell its kind."""
        name = type(self._processor).__name__
        return name[:-3] if name.endswith("Pil") else name

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
        kind = "pt" if self._gives_torch else "np"
        return {
            key: np.asarray(value)
            for key, value in self._processor([image], return_tensors=kind).items()
        }

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

    def _on_pil(self) -> bool:
        if transformers_version()[0] >= 5:
            return getattr(self._processor, "backend", "pil") == "pil"
        return not type(self._processor).__name__.endswith("Fast")
