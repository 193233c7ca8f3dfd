"""Picture vectors from a pretrained vision model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL
import torch
from PIL import Image

from recbole_mars.features.catalogue.image import load_image
from recbole_mars.features.encoders.base import PreparedBatch
from recbole_mars.features.encoders.image_pooling import POOLINGS
from recbole_mars.features.encoders.image_processor import ImageProcessor
from recbole_mars.features.encoders.model_folder import ModelFolder, fetch_model
from recbole_mars.features.encoders.qwen_vision import QWEN_TOWERS, VISUAL, QwenTower
from recbole_mars.features.encoders.vision_backbone import VisionBackbone
from recbole_mars.features.encoders.vision_config import LoadOptions, read_config

__all__ = ["ImageEncoder"]


class VisionModel(Protocol):
    """What the encoder asks of a model: see `VisionBackbone` and `QwenTower`."""

    pooling: str
    processor: ImageProcessor

    def limits(self) -> dict[str, int | None]: ...
    def load(self) -> None: ...
    @property
    def placement(self) -> tuple[torch.device, torch.dtype]: ...
    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor: ...


class ImageEncoder:
    """Picture files to vectors, by a pretrained vision model of `transformers` or timm.

    Models: ViT, DeiT, BEiT, DINOv2 and v3; CLIP and SigLIP (the features that are compared with
    a text's); ResNet, ConvNeXt, EfficientNet, Swin; models of timm, which need its package; and
    the vision tower of Qwen2-VL, Qwen2.5-VL (3584-d for the 7B model, as in MARS) and Qwen3-VL.

    model: a folder, or a name on the Hugging Face hub, at `revision`.
    pooling: 'cls', 'mean' over the patches, 'model' for the model's own pooled output, or 'auto'
    for what suits the model: see `resolve_pooling`; a Qwen-VL takes the mean over its tokens.
    device: 'auto' is the GPU if there is one. device_map: spreads a model over several, instead.
    dtype: 'float32', 'float16', 'bfloat16'; 'auto' is the checkpoint's own. load_in_8bit: halves
    the memory once more, for some loss. trust_remote_code: run code that the model brings along.
    min_pixels, max_pixels: of a picture, for models that take pictures of any size (Qwen-VL).
    normalize: scale vectors to length 1.

    Raises ValueError for options that do not go together; the methods do for a model that cannot
    be had, is no vision model, or lacks weights that are used, a device or a package.
    """

    name = "image_model"

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        pooling: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        device_map: Any = None,
        load_in_8bit: bool = False,
        trust_remote_code: bool = False,
        max_pixels: int | None = None,
        min_pixels: int | None = None,
        normalize: bool = False,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {POOLINGS}, got {pooling!r}")
        self.model = str(model)
        self.revision = revision
        self.pooling = pooling
        self.device = device
        self.dtype = dtype
        self.device_map = device_map
        self.load_in_8bit = load_in_8bit
        self.trust_remote_code = trust_remote_code
        self.max_pixels = max_pixels
        self.min_pixels = min_pixels
        self.normalize = normalize
        self._options = LoadOptions(device, dtype, device_map, load_in_8bit, trust_remote_code)
        self._lock = threading.RLock()
        self._width = 0  # of a vector; known once the model is loaded

    def settings(self) -> dict[str, Any]:
        with self._lock:
            # version: raise it when these files compute something else
            return {
                "version": 1,
                "files": self._checksums,
                "pooling": self._vision.pooling,
                "dtype": self._options.dtype_name(self._config),
                "load_in_8bit": self.load_in_8bit,
                "processor": self._vision.processor.name,
                **self._vision.limits(),
                "normalize": self.normalize,
            }

    def provenance(self) -> dict[str, Any]:
        import transformers  # which takes seconds

        with self._lock:
            found = {
                "model": self.model,
                "revision": self._folder.revision,
                "transformers": transformers.__version__,
                "torch": torch.__version__,
                "pillow": PIL.__version__,
            }
            if self._config.model_type == "timm_wrapper":
                found["timm"] = version("timm")
            return found

    def load(self) -> None:
        """Load the model and try it on a blank picture; a second call does nothing."""
        with self._lock:
            if not self._width:
                self._vision.load()
                blank = self._vision.processor(Image.new("RGB", (64, 64), "white"))
                self._width = self._run(self._tensors([blank])).shape[1]

    def lengths(self, inputs: Sequence[Path]) -> Sequence[int]:
        """All equal: no picture is padded to the size of another."""
        return [0] * len(inputs)

    def prepare(self, inputs: Sequence[Path]) -> PreparedBatch:
        """Decode and process pictures; those that cannot be are in `broken`, with the reason.

        Raises ValueError if pictures of a batch do not come to one size.
        """
        self.load()
        processed, broken = [], {}
        for position, path in enumerate(inputs):
            try:
                image = load_image(path)
                processed.append(self._vision.processor(image))
            except Exception as error:  # processors refuse a picture in their own ways
                broken[position] = str(error)
        content = self._tensors(processed) if processed else {}
        return PreparedBatch(content=content, size=len(processed), broken=broken)

    def encode_batch(self, batch: PreparedBatch) -> np.ndarray:
        """Run the model: (batch.size, D) float32.

        Raises ValueError if a vector is not finite, as float16 can have it.
        """
        self.load()
        if not batch.size:
            return np.zeros((0, self._width), dtype=np.float32)
        vectors = self._run(batch.content)
        if not np.isfinite(vectors).all():
            dtype = self._vision.placement[1]
            remedy = "set dtype to 'bfloat16' or 'float32'"
            if dtype == torch.float32:
                remedy = "the model's weights are damaged; get its folder anew"
            raise ValueError(
                f"vectors of model {self.model!r} must be finite, in {dtype} some are not; {remedy}"
            )
        return vectors

    def _tensors(self, processed: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        joined = self._vision.processor.join(processed)
        tensors = {key: torch.from_numpy(array) for key, array in joined.items()}
        if self._vision.placement[0].type == "cuda":  # so that the copy can run by the side
            tensors = {key: tensor.pin_memory() for key, tensor in tensors.items()}
        return tensors

    @torch.inference_mode()
    def _run(self, tensors: dict[str, torch.Tensor]) -> np.ndarray:
        device, dtype = self._vision.placement
        inputs = {key: tensor.to(device, non_blocking=True) for key, tensor in tensors.items()}
        inputs = {
            key: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for key, tensor in inputs.items()
        }
        vectors = self._vision.forward(inputs).float()
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors.cpu().numpy()

    def __getstate__(self) -> dict[str, Any]:
        # To another process go the arguments only; it reads and loads for itself.
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(type(self)(**state)))

    @cached_property
    def _folder(self) -> ModelFolder:
        return fetch_model(
            self.model,
            revision=self.revision,
            prefix=VISUAL,  # matters for a Qwen-VL only: no other model has such weights
            code=self.trust_remote_code,
        )

    @cached_property
    def _checksums(self) -> dict[str, str]:
        return self._folder.checksums()

    @cached_property
    def _config(self) -> Any:
        return read_config(self._folder, self.trust_remote_code)

    @cached_property
    def _vision(self) -> VisionModel:
        folder, config = self._folder, self._config
        if config.model_type in QWEN_TOWERS:
            return QwenTower(
                folder,
                config,
                self.pooling,
                self._options,
                min_pixels=self.min_pixels,
                max_pixels=self.max_pixels,
            )
        limits = {"max_pixels": self.max_pixels, "min_pixels": self.min_pixels}
        given = [name for name, value in limits.items() if value is not None]
        if given:
            raise ValueError(
                f"{' and '.join(given)} are for models that take pictures of any size, but "
                f"{self.model!r} ({config.model_type}) knows one size; leave them out"
            )
        return VisionBackbone(folder, config, self.pooling, self._options)
