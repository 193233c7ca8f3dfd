"""The vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL, without their language models.

T patches of a batch, M tokens that they are merged into, D width of the language model.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import torch
from safetensors import safe_open

from recbole_mars.features.encoders.image_processor import ImageProcessor
from recbole_mars.features.encoders.model_folder import ModelFolder
from recbole_mars.features.encoders.pretrained import load_model
from recbole_mars.features.encoders.vision_config import LoadOptions

__all__ = ["QWEN_TOWERS", "VISUAL", "QwenTower", "pool_packed"]

QWEN_TOWERS = {
    "qwen2_vl": ("qwen2_vl", "Qwen2VisionTransformerPretrainedModel"),
    "qwen2_5_vl": ("qwen2_5_vl", "Qwen2_5_VisionTransformerPretrainedModel"),
    "qwen3_vl": ("qwen3_vl", "Qwen3VLVisionModel"),
}
# Names of the tower's weights, as the models were published, and as transformers 5 has them
VISUAL = r"(model\.)?visual\."
# 768 tokens of Qwen2.5-VL (28 x 28 pixels each), a picture of 672 x 896. Covers and posters show
# no more, while the models' own limit of 16,384 tokens makes a single photo cost as much as
# twenty pictures, and more, as attention grows with the square.
MAX_PIXELS = 602_112


class QwenTower:
    """The vision tower of a Qwen-VL: a picture's vector is the mean of its tokens.

    Pictures keep their shape: each is scaled to a grid of patches between `min_pixels` and
    `max_pixels`, and a batch is the patches of all its pictures in one row, in which a patch
    attends to its own picture only. The merger makes one token, of the width of the language
    model (3584 for the 7B model), of 2 x 2 patches.

    min_pixels: None for the model's own. max_pixels: None for 602,112, 768 tokens of 28 x 28.
    Only the weight files that hold a part of the tower are read.

    Raises ValueError if pooling is not 'auto' or 'mean', or the limits are not in order.
    """

    pooling = "mean"

    def __init__(
        self,
        folder: ModelFolder,
        config: Any,
        pooling: str,
        options: LoadOptions,
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        if pooling not in ("auto", "mean"):
            raise ValueError(
                f"pooling of {folder.name!r} must be 'auto' or 'mean', the mean over a picture's "
                f"tokens, got {pooling!r}; a Qwen-VL has neither a CLS token nor a pooled output"
            )
        self._folder, self._config, self._options = folder, config, options
        least = ImageProcessor(folder, options.trust_remote_code).size["shortest_edge"]
        self._min_pixels = least if min_pixels is None else min_pixels
        self._max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
        if not 0 < self._min_pixels <= self._max_pixels:
            raise ValueError(
                f"need 0 < min_pixels <= max_pixels, got {self._min_pixels} and "
                f"{self._max_pixels}; a token stands for 28 x 28 pixels (Qwen3-VL: 32 x 32)"
            )
        self.processor = ImageProcessor(
            folder,
            options.trust_remote_code,
            size={"shortest_edge": self._min_pixels, "longest_edge": self._max_pixels},
            min_pixels=self._min_pixels,
            max_pixels=self._max_pixels,
        )
        self._model: Any = None

    def limits(self) -> dict[str, int | None]:
        """The pixels that a picture is brought between."""
        return {"min_pixels": self._min_pixels, "max_pixels": self._max_pixels}

    def load(self) -> None:
        """Load the tower's weights, all of them and no others; ValueError if they do not fit."""
        module, name = QWEN_TOWERS[self._config.model_type]
        tower = getattr(import_module(f"transformers.models.{module}.modeling_{module}"), name)
        self._model = load_model(
            tower,
            self._folder.path,
            self._folder.name,
            config=self._config.vision_config,
            weights=self._read_weights(),
            unused="(?!)",  # nothing is
            remedy="get the model's folder anew",
            **self._options.keywords(self._config),
        )

    @property
    def placement(self) -> tuple[torch.device, torch.dtype]:
        """The device and precision of inputs."""
        return next(self._model.parameters()).device, self._model.dtype

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Vectors of a batch, (B, D) float32."""
        grid = inputs["image_grid_thw"]
        output = self._model(inputs["pixel_values"], grid)
        if isinstance(output, tuple):  # Qwen3-VL before transformers 5, with features for layers
            output = output[0]
        tokens = output if torch.is_tensor(output) else output.pooler_output
        return pool_packed(tokens, grid, self._config.vision_config.spatial_merge_size)

    def _read_weights(self) -> dict[str, torch.Tensor]:
        """The tower's weights by their names within it, read from where they lie."""
        weights: dict[str, torch.Tensor] = {}
        for file in self._folder.weights:
            if not file.endswith(".safetensors"):
                raise ValueError(
                    f"the vision tower of {self._folder.name!r} is read from .safetensors files, "
                    f"found {file}; get the model in that format"
                )
            with safe_open(self._folder.path / file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                    match = re.match(VISUAL, name)
                    if match:
                        weights[name[match.end() :]] = tensors.get_tensor(name)
        if not weights:
            raise ValueError(
                f"model {self._folder.name!r} must have a vision tower, weights named "
                f"'visual.*', found none in {self._folder.path}; get the model's folder anew"
            )
        return weights


def pool_packed(tokens: torch.Tensor, grid: torch.Tensor, merge: int) -> torch.Tensor:
    """The mean of every picture's tokens, in float32.

    tokens: (M, D), those of the first picture, then of the second, and so on. grid: (B, 3), frames,
    height and width of each picture in patches, merge² of which make a token. Returns (B, D).
    """
    lengths = (grid.prod(dim=1) // merge**2).tolist()
    return torch.stack([part.float().mean(dim=0) for part in tokens.split(lengths)])
