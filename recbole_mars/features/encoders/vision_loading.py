"""Loading picture models of `transformers` from a folder, and what can go wrong there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from recbole_mars.features.encoders.device import pick_device, pick_dtype
from recbole_mars.features.encoders.model_folder import ModelFolder

# `transformers` takes seconds to import: these files do so once it is needed.

__all__ = ["LoadOptions", "load_pretrained", "one_line", "read_config", "transformers_version"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model's weights; as the arguments of `ImageEncoder`."""

    device: str = "auto"
    dtype: str = "auto"
    device_map: Any = None
    load_in_8bit: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.device_map is not None and self.device != "auto":
            raise ValueError(
                f"device_map spreads the model over devices, so device must be 'auto', "
                f"got {self.device!r}; give one of the two"
            )
        needed = []
        if self.device_map is not None or self.load_in_8bit:
            needed.append("accelerate")
        if self.load_in_8bit:
            needed.append("bitsandbytes")
        missing = [name for name in needed if find_spec(name) is None]
        if missing:
            raise ValueError(
                f"device_map and load_in_8bit need {' and '.join(needed)}, found no "
                f"{' and no '.join(missing)}; pip install 'recbole_mars[large]'"
            )


def one_line(error: BaseException) -> str:
    """What an error says, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def transformers_version() -> tuple[int, int]:
    """Major and minor version."""
    import transformers

    major, minor = transformers.__version__.split(".")[:2]
    return int(major), int(minor)


def read_config(folder: ModelFolder, trust_remote_code: bool) -> Any:
    """The model's configuration.

    Raises ValueError if it cannot be read, if it needs code of its own that the user does not
    trust, or if it is timm's and timm is not installed.
    """
    import transformers

    settings = folder.read_json("config.json")
    if not isinstance(settings, dict):
        raise ValueError(
            f"config.json of model {folder.name!r} must be a mapping, got {type(settings).__name__}"
        )
    timm = _is_timm(settings)
    if timm:
        _require_timm(folder)
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder.path, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # each configuration class checks in its own way
        if "auto_map" in settings and not trust_remote_code:
            raise ValueError(
                f"model {folder.name!r} needs code of its own, {settings['auto_map']}, which "
                f"would run on this machine; read it, then set trust_remote_code, "
                f"or choose another model"
            ) from error
        raise ValueError(
            f"config.json of model {folder.name!r} must name a model of transformers "
            f"{transformers.__version__}: {one_line(error)}; choose another model, or update "
            f"transformers"
        ) from error
    if timm and config.model_args:
        # Newer versions of timm write it here, too, which `transformers` trips over.
        config.model_args = {k: v for k, v in config.model_args.items() if k != "num_classes"}
    return config


def load_pretrained(
    model_class: Any, folder: ModelFolder, config: Any, options: LoadOptions, **keywords: Any
) -> tuple[torch.nn.Module, dict[str, list[str]]]:
    """Load a model for inference, on its device and in its precision.

    keywords: for `from_pretrained`, such as a state_dict to take the place of the folder's files.
    Returns the model, and names of weights: "missing" in the files, so random in the model, and
    "unexpected", which the model has no place for. Raises ValueError if it cannot be loaded.
    """
    import transformers

    dtype = pick_dtype(options.dtype, config)
    device = pick_device(options.device)
    keywords["dtype" if transformers_version() >= (4, 56) else "torch_dtype"] = dtype
    if options.device_map is not None:
        keywords["device_map"] = options.device_map
    if options.load_in_8bit:
        keywords["quantization_config"] = transformers.BitsAndBytesConfig(load_in_8bit=True)
        keywords.setdefault("device_map", {"": str(device)})
    if hasattr(model_class, "_model_mapping"):  # AutoModel, which may need code of the model
        keywords["trust_remote_code"] = options.trust_remote_code
    path = None if "state_dict" in keywords else folder.path
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                path, config=config, local_files_only=True, output_loading_info=True, **keywords
            )
        if "device_map" not in keywords:
            model = model.to(device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of transformers, safetensors, accelerate, bitsandbytes
        raise ValueError(
            f"cannot load model {folder.name!r} from {folder.path}: {one_line(error)}; "
            f"get the model's folder anew, or update transformers {transformers.__version__}"
        ) from error
    names = {kind: sorted(report[f"{kind}_keys"]) for kind in ("missing", "unexpected")}
    logger.info("loaded %s from %s on %s in %s", folder.name, folder.path, device, dtype)
    return model.eval(), names


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and reports: what they tell is checked, or does not matter here."""
    from transformers.utils import logging as theirs

    level, bar = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bar:
            theirs.enable_progress_bar()


def _is_timm(settings: dict[str, Any]) -> bool:
    """Whether this config.json was written by timm, or by `transformers` for a model of timm."""
    return settings.get("model_type") == "timm_wrapper" or (
        "model_type" not in settings and "pretrained_cfg" in settings
    )


def _require_timm(folder: ModelFolder) -> None:
    missing = [name for name in ("timm", "torchvision") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"model {folder.name!r} is one of timm, which needs timm and torchvision, found no "
            f"{' and no '.join(missing)}; pip install 'recbole_mars[timm]'"
        )
