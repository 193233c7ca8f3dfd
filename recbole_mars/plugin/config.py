"""Our keys in RecBole's configuration: their defaults, and checks of what a user wrote.

Our keys are those of properties/overall.yaml; `settings` builds our parts' settings from them.
"""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import recbole
import yaml
from recbole.config import Config
from recbole.utils import InputType, ModelType

__all__ = [
    "CTR_MODELS",
    "FEATURE_MODELS",
    "OBJECTIVES",
    "OUR_MODELS",
    "asks_for_us",
    "check_keys",
    "data_folder",
    "explain_unknown_model",
    "internal_defaults",
    "known_models",
    "needs_stage_one",
    "option_keys",
    "properties_folder",
]

# Built on MultimodalDataset and, all but FRNet, one DIN.
CTR_MODELS = (
    *("MARS", "DMAE", "SimTier", "AveragePooling", "GRU4RecCTR", "BST"),
    *("UniSRec", "LRD", "DIMO", "FRNet"),
)
OUR_MODELS = (*CTR_MODELS, "MARSAlign")
# That read item features whatever the augmentation.
FEATURE_MODELS = ("DMAE", "SimTier", "UniSRec", "LRD", "DIMO", "MARSAlign")
OBJECTIVES = ("cl4srec", "coserec", "basrec")  # augmentations that add a loss to MARS's


def properties_folder() -> Path:
    """The folder of YAML defaults: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"properties/overall.yaml is in neither {package} nor {package.parent}; "
        "reinstall recbole_mars"
    )


@cache
def _read(name: str) -> dict[str, Any]:
    file = properties_folder() / name
    if not file.is_file():
        return {}
    with open(file, encoding="utf-8") as stream:
        return yaml.safe_load(stream) or {}


def option_keys() -> list[str]:
    """Every configuration key that recbole_mars adds to RecBole's."""
    return list(_read("overall.yaml"))


def asks_for_us(external: Mapping[str, Any]) -> bool:
    """Whether the user's own configuration holds any of our keys."""
    return any(key in external for key in option_keys())


def needs_stage_one(augmentation: str) -> bool:
    """Whether an augmentation needs item features, and labels for stage 1 to learn from."""
    return augmentation == "mars"


def internal_defaults(
    model: str, model_class: type, dataset: str, external: Mapping[str, Any]
) -> dict[str, Any]:
    """Defaults to lay over RecBole's for this run; empty if the run has nothing to do with us.

    A built-in model that asks for our options gets the defaults of our keys; with augmentation:
    mars also the observed labels that stage 1 learns from, and a CTR model is then trained and
    evaluated on them, as it is on fixed_negatives; so are context models, to be compared with ours.
    """
    ours, keys = model in OUR_MODELS, _read("overall.yaml")
    if not ours and not asks_for_us(external):
        return {}
    defaults = {**keys}
    # A model's own file says what differs from MARS's.
    base = ["model/MARS.yaml"] if model in CTR_MODELS else []
    for name in (*base, f"model/{model}.yaml", f"dataset/{dataset}.yaml"):
        defaults.update({k: v for k, v in _read(name).items() if ours or k in keys})
    drawn = bool(external.get("fixed_negatives"))
    targets_only = getattr(model_class, "type", None) == ModelType.CONTEXT
    if not ours and (
        drawn or targets_only or needs_stage_one(external.get("augmentation", "none"))
    ):
        labelled = _read("model/MARS.yaml")
        defaults["threshold"] = labelled["threshold"]
        if getattr(model_class, "input_type", None) == InputType.POINTWISE:
            defaults["train_neg_sample_args"] = labelled["train_neg_sample_args"]
            defaults["eval_args"] = labelled["eval_args"]
    if drawn:
        defaults["threshold"] = None
    return copy.deepcopy(defaults)  # RecBole writes into some of its values


def check_keys(external: Mapping[str, Any], known_to_recbole: Iterable[str]) -> None:
    """Refuse keys that are misspelt ones of ours, and values of the wrong type.

    An unknown mars_* key is an error, and so is any other key that RecBole does not know and that
    differs from one of ours by a letter or two. Raises ValueError with the remedy.
    """
    defaults, kinds = _read("overall.yaml"), _kinds()
    ours = [key for key in defaults if key.startswith("mars_")]
    for key, value in external.items():
        if key in defaults:
            _check_type(key, value, defaults[key], kinds.get(key))
        elif key.startswith("mars_"):
            close = difflib.get_close_matches(key, ours, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(f"unknown key {key}.{hint} Known keys: {', '.join(sorted(ours))}")
        elif key not in known_to_recbole:
            close = difflib.get_close_matches(key, list(defaults), n=1, cutoff=0.85)
            if close:
                raise ValueError(f"unknown key {key}. Did you mean {close[0]}?")


_KINDS: list[tuple[type, tuple[type, ...], str]] = [
    (bool, (bool,), "True or False"),
    (int, (Integral,), "a whole number"),  # numpy's too, which a search may draw
    (float, (Real,), "a number"),
    (list, (list, tuple), "a list"),
    (str, (str,), "a word"),
]


@cache
def _kinds() -> dict[str, type]:
    """Of which kind a key is, as the comment behind its default says; words are left out. "any" is
    for a key of several kinds, which its settings check."""
    lines = (properties_folder() / "overall.yaml").read_text("utf-8")
    named = {kind.__name__: kind for kind, *_ in _KINDS if kind is not str} | {"any": object}
    found = re.findall(r"^(\w+):.*# \((\w+)\)", lines, flags=re.MULTILINE)
    return {key: named[kind] for key, kind in found if kind in named}


def _check_type(key: str, value: Any, default: Any, kind: type | None) -> None:
    """What the default is, the value has to be; where it is None, None or of the kind."""
    if kind is object or (default is None and value is None):
        return
    for each, allowed, name in _KINDS:
        if isinstance(default, each) or (default is None and kind is each):
            wrong = not isinstance(value, allowed) or (each is not bool and isinstance(value, bool))
            if wrong or (each is float and not isfinite(value)):
                raise ValueError(f"{key} must be {name}, got {value!r}; its default is {default}")
            return


def data_folder(config: Config) -> str:
    """The folder with the data set's atomic files.

    RecBole reads ml-100k from its own package whatever data_path says; where one is given, it is
    meant.
    """
    asked = config.external_config_dict.get("data_path")
    if asked and config["dataset"] == "ml-100k":
        return os.path.join(str(asked), "ml-100k")
    return str(config["data_path"])


def known_models() -> set[str]:
    """Names of RecBole's models and ours."""
    folder = Path(recbole.__file__).parent / "properties" / "model"
    return {*OUR_MODELS, *(file.stem for file in folder.glob("*.yaml"))}


def explain_unknown_model(name: str) -> str:
    """What to tell a user whose model name RecBole could not find."""
    by_lower = {model.lower(): model for model in known_models()}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=3)
    hint = f" Did you mean {' or '.join(by_lower[model] for model in close)}?" if close else ""
    return (
        f"model {name!r} is not known.{hint} recbole_mars adds {', '.join(OUR_MODELS)} to "
        "RecBole's models; names are case-sensitive"
    )
