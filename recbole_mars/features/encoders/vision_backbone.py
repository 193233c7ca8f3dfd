"""Vision models that take pictures of one size: ViT, DINOv2, CLIP, SigLIP, ResNet, and so on."""

from __future__ import annotations

from typing import Any

import torch

from recbole_mars.features.encoders.image_pooling import (
    pool_states,
    prefix_tokens,
    resolve_pooling,
)
from recbole_mars.features.encoders.image_processor import ImageProcessor
from recbole_mars.features.encoders.model_folder import ModelFolder
from recbole_mars.features.encoders.pretrained import POOLER, REMEDY, load_model
from recbole_mars.features.encoders.vision_config import LoadOptions

__all__ = ["VisionBackbone"]

# Weights of a model that pictures never meet: the text half of a dual encoder, and the token that
# stands for a patch hidden in pretraining.
UNUSED = r"text_|logit_|(.*\.)?(mask_token|num_batches_tracked)$"


class VisionBackbone:
    """A vision model of `transformers`, or of timm, with its pooling.

    Dual encoders (CLIP, SigLIP) give the features that they compare with a text's.

    pooling: as `ImageEncoder` takes it; the attribute is what 'auto' came to. Raises ValueError
    if the model takes no pictures, or would give a picture different vectors each time.
    """

    def __init__(
        self, folder: ModelFolder, config: Any, pooling: str, options: LoadOptions
    ) -> None:
        if config.model_type == "vit_mae":
            raise ValueError(
                f"model {folder.name!r} (vit_mae) hides patches at random, so a picture has no "
                f"vector of its own; choose a ViT, DINOv2 or CLIP model"
            )
        self._folder, self._config, self._options = folder, config, options
        self._class = _model_class(config)
        if not _takes_pictures(self._class):
            raise ValueError(
                f"model {folder.name!r} ({config.model_type}) must be a vision model, a dual "
                f"encoder such as CLIP, or a Qwen-VL, found {self._class.__name__}; choose another"
            )
        self.pooling = resolve_pooling(pooling, config)
        self.processor = ImageProcessor(folder, options.trust_remote_code)
        self._model: Any = None

    def limits(self) -> dict[str, int | None]:
        """The pixels that a picture is brought between: this model knows one size."""
        return {"min_pixels": None, "max_pixels": None}

    def load(self) -> None:
        """Load the weights; ValueError if one that is used is not among them."""
        pooled = self.pooling == "model"
        remedy = REMEDY
        if pooled and prefix_tokens(self._config):  # its pooler may be what is missing
            remedy = f"use pooling 'cls' or 'mean', or {REMEDY}"
        self._model = load_model(
            self._class,
            self._folder.path,
            self._folder.name,
            config=self._config,
            unused=UNUSED if pooled else f"{UNUSED}|{POOLER}",
            keep=_drop_text,
            remedy=remedy,
            **self._options.keywords(self._config),
        )

    @property
    def placement(self) -> tuple[torch.device, torch.dtype]:
        """The device and precision of inputs."""
        first = next(self._model.parameters())
        return first.device, self._model.dtype

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Vectors of a batch, (B, D)."""
        model = self._model
        dual = hasattr(model, "get_image_features")
        if self.pooling == "model":
            if dual:
                output = model.get_image_features(**inputs)
                if torch.is_tensor(output):  # before transformers 5
                    return output
            else:
                output = model(**inputs)
            pooled = getattr(output, "image_embeds", None)
            pooled = getattr(output, "pooler_output", None) if pooled is None else pooled
            if pooled is None:
                raise ValueError(
                    f"pooling 'model' needs a model that pools, but {self._folder.name!r} does "
                    f"not; use 'mean' or 'cls'"
                )
            return pooled.flatten(1)
        vision = getattr(model, "vision_model", model) if dual else model
        states = vision(**inputs).last_hidden_state
        prefix = prefix_tokens(getattr(self._config, "vision_config", self._config))
        if self._config.model_type == "timm_wrapper":
            prefix = getattr(model.timm_model, "num_prefix_tokens", None)
            if str(getattr(model.timm_model, "output_fmt", "")) == "NHWC":  # Swin, for one
                states = states.movedim(-1, 1)
        return pool_states(states, self.pooling, prefix)


def _model_class(config: Any) -> Any:
    """The class that loads this model; AutoModel where it is not one of `transformers`."""
    import transformers

    if "CLIPVisionModelWithProjection" in (getattr(config, "architectures", None) or ()):
        return transformers.CLIPVisionModelWithProjection
    try:
        found = transformers.MODEL_MAPPING[type(config)]
    except KeyError:
        return transformers.AutoModel
    return found[0] if isinstance(found, tuple) else found


def _takes_pictures(model_class: Any) -> bool:
    """Whether a model takes pictures alone; one that comes with code of its own is given a try."""
    if hasattr(model_class, "_model_mapping"):
        return True
    dual = hasattr(model_class, "get_image_features")
    if dual:  # other than models that write about a picture
        return hasattr(model_class, "get_text_features")
    return getattr(model_class, "main_input_name", "") == "pixel_values"


def _drop_text(model: Any) -> Any:
    """A dual encoder without its text half, which need not take room on the device."""
    if hasattr(model, "get_image_features"):
        for name in ("text_model", "text_projection"):
            if isinstance(getattr(model, name, None), torch.nn.Module):
                setattr(model, name, None)
    return model
