"""What is known of a vision model before its weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from recbole_mars.features.encoders.device import pick_device, pick_dtype
from recbole_mars.features.encoders.model_folder import ModelFolder
from recbole_mars.features.encoders.pretrained import load_config

__all__ = ["LoadOptions", "read_config"]


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model's weights; as the arguments of `ImageEncoder`.

    What the machine lacks shows when the model is loaded, perhaps on another. Raises ValueError
    for an unknown dtype, and for a device beside a device_map.
    """

    device: str = "auto"
    dtype: str = "auto"
    device_map: str | Mapping[str, Any] | None = None
    load_in_8bit: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        pick_dtype(self.dtype, None)
        if self.device_map is not None and self.device != "auto":
            raise ValueError(
                f"device_map spreads the model over devices, so device must be 'auto', "
                f"got {self.device!r}; give one of the two"
            )

    def keywords(self, config: Any) -> dict[str, Any]:
        """The arguments of `load_model`, for a model with this configuration.

        Raises ValueError if the device is not there.
        """
        return {
            "dtype": pick_dtype(self.dtype, config),
            "device": None if self.device_map is not None else pick_device(self.device),
            "device_map": self.device_map,
            "load_in_8bit": self.load_in_8bit,
            "trust_remote_code": self.trust_remote_code,
        }

    def dtype_name(self, config: Any) -> str:
        """What a model with this configuration computes in."""
        dtype: torch.dtype = pick_dtype(self.dtype, config)
        return str(dtype).replace("torch.", "")


def read_config(folder: ModelFolder, trust_remote_code: bool) -> Any:
    """The model's configuration, of `transformers`, where timm's models have one, too.

    Raises ValueError if it cannot be had, or if it is timm's and timm is not installed.
    """
    settings = folder.read_json("config.json")
    if not isinstance(settings, dict):
        raise ValueError(
            f"config.json of model {folder.name!r} must hold settings by name, got a "
            f"{type(settings).__name__}; get the model's folder anew"
        )
    # timm's own file names no type
    timm = settings.get("model_type", "timm_wrapper") == "timm_wrapper" and (
        "pretrained_cfg" in settings
    )
    missing = [name for name in ("timm", "torchvision") if timm and find_spec(name) is None]
    if missing:
        raise ValueError(
            f"model {folder.name!r} is one of timm, which needs timm and torchvision, found no "
            f"{' and no '.join(missing)}; pip install 'recbole_mars[timm]'"
        )
    config = load_config(folder.path, folder.name, trust_remote_code)
    if timm and config.model_args:
        # Newer versions of timm write it here, too, which `transformers` trips over.
        config.model_args = {k: v for k, v in config.model_args.items() if k != "num_classes"}
    return config
