"""Loading parts of a pretrained model through `transformers`, with one clear error each.

Everything is read from a local folder. A model some of whose weights are missing is refused:
`transformers` fills them with random numbers, and only logs it.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = ["check_large_extra", "load_config", "load_model", "load_tokenizer"]

logger = logging.getLogger(__name__)

# An extra head of many encoders, trained on another task: no vector of a token comes from it.
POOLER = r"(.*\.)?pooler\."
FEWEST_WORDS = 20  # of a tokenizer; those of bytes know 256, all others more
REMEDY = "get the model's folder anew, or name a model of the kind that its config.json says"


def load_config(path: Path, name: str, trust_remote_code: bool = False) -> Any:
    """The settings of the model in a folder, which the user called `name`.

    Raises ValueError if they cannot be had: see the module.
    """
    from transformers import AutoConfig

    return _load(AutoConfig, path, name, trust_remote_code)


def load_tokenizer(path: Path, name: str, trust_remote_code: bool = False) -> Any:
    """The tokenizer in a folder; raises ValueError if it cannot be had, or knows no words.

    Where the tokenizer's files are missing, `transformers` may make one that knows its special
    tokens only, and every text would be the same.
    """
    from transformers import AutoTokenizer

    tokenizer = _load(AutoTokenizer, path, name, trust_remote_code)
    special = set(tokenizer.all_special_tokens)
    words = [t for t in tokenizer.get_vocab() if t not in special and not t.startswith("<extra_id")]
    if len(words) < FEWEST_WORDS:
        raise ValueError(
            f"model {name!r} needs a tokenizer with its vocabulary (tokenizer.json, vocab.txt, "
            f"tokenizer.model or the like) in {path}, found {len(words)} words; is it a text "
            f"model's folder, and whole?"
        )
    return tokenizer


def load_model(
    loader: Any,
    path: Path,
    name: str,
    *,
    dtype: torch.dtype,
    device: torch.device | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    load_in_8bit: bool = False,
    trust_remote_code: bool = False,
    unused: str = POOLER,
    keep: Callable[[Any], Any] | None = None,
    config: Any = None,
    weights: Mapping[str, torch.Tensor] | None = None,
    remedy: str = REMEDY,
) -> Any:
    """The model in a folder, with its weights, in evaluation mode.

    loader: of `transformers`, for example AutoModel. device: where to put the model, unless
    device_map spreads it or it is held in 8 bits. unused: weights that may be missing, a regular
    expression for the beginning of their names. keep: the part of the model that is needed; the
    rest does not go to the device. config: in place of the folder's. weights: in place of the
    folder's, by name; each must have its place in the model. remedy: for weights that are missing.

    Raises ValueError if the model cannot be had, weights are missing, or device_map or 8 bits
    need a package that is not there.
    """
    check_large_extra(device_map, load_in_8bit)
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
    if load_in_8bit:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
        if device_map is None and device is not None:
            device_map = {"": device}
    if device_map is not None:
        options["device_map"] = device_map
    if config is not None:
        options["config"] = config
    if weights is not None:
        options["state_dict"] = dict(weights)
    model, report = _load(loader, path, name, trust_remote_code, **options)
    missing = sorted(key for key in report["missing_keys"] if not re.match(unused, key))
    if missing:
        raise ValueError(
            f"model {name!r} in {path} must hold all weights of a {type(model).__name__}, but "
            f"{len(missing)} are missing, first {missing[0]!r}; {remedy}"
        )
    if weights is not None and report["unexpected_keys"]:
        raise ValueError(
            f"model {name!r} in {path} must hold the weights of a {type(model).__name__} only, but "
            f"it has no place for {sorted(report['unexpected_keys'])[0]!r}; {remedy}"
        )
    logger.debug("%s: weights that are not used: %s", name, sorted(report["unexpected_keys"]))
    if keep is not None:
        model = keep(model)
    if device_map is None and device is not None:
        model = model.to(device)
    return model.eval().requires_grad_(False)


def check_large_extra(device_map: object, load_in_8bit: bool) -> None:
    """Raise ValueError if the packages for a large model are not installed."""
    needs = {"accelerate": device_map is not None or load_in_8bit, "bitsandbytes": load_in_8bit}
    for package, needed in needs.items():
        if needed and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"{'load_in_8bit' if load_in_8bit else 'device_map'} needs the package "
                f"{package}, which is not installed; pip install 'recbole_mars[large]'"
            )


def _load(loader: Any, path: Path, name: str, trust_remote_code: bool, **options: Any) -> Any:
    """Call from_pretrained; its errors, of many types, become one."""
    try:
        with _quiet():
            return loader.from_pretrained(
                None if "state_dict" in options else str(path),
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                **options,
            )
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise  # the folder is not to blame
    except Exception as error:
        said = " ".join(str(error).split())
        if "trust_remote_code" in said and not trust_remote_code:
            raise ValueError(
                f"model {name!r} brings Python code of its own, which is not run unless asked "
                f"for; read the .py files of {path}, then set trust_remote_code=True"
            ) from error
        import transformers

        raise ValueError(
            f"model {name!r} does not load from {path} with transformers "
            f"{transformers.__version__}: {said[:500] or type(error).__name__}; see that the "
            f"folder is whole and what versions its config.json and README ask for"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the report on weights that are left over; missing ones are an error here."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
