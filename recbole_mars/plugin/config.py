"""Reading RecBole's configuration: our keys, their defaults, and the settings built from them.

The only place that reads RecBole's mapping. Our keys are those of properties/overall.yaml.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import recbole
import yaml
from recbole.config import Config

from recbole_mars.alignment import AlignmentSettings, TrainingSettings
from recbole_mars.augmentation import RetrievalSettings
from recbole_mars.ctr import DINSettings

__all__ = [
    "OUR_MODELS",
    "alignment_settings",
    "asks_for_us",
    "check_keys",
    "din_settings",
    "explain_unknown_model",
    "internal_defaults",
    "known_models",
    "option_keys",
    "properties_folder",
    "retrieval_settings",
    "training_settings",
]

OUR_MODELS = ("MARS", "MARSAlign")


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


def internal_defaults(model: str, dataset: str, external: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults to lay over RecBole's for this run; empty if the run has nothing to do with us.

    A built-in model that asks for our options gets the defaults of our keys only.
    """
    ours = model in OUR_MODELS
    if not ours and not asks_for_us(external):
        return {}
    defaults = {**_read("overall.yaml")}
    for name in (f"model/{model}.yaml", f"dataset/{dataset}.yaml"):
        defaults.update(
            {k: v for k, v in _read(name).items() if ours or k in _read("overall.yaml")}
        )
    return defaults


def check_keys(external: Mapping[str, Any]) -> None:
    """Refuse an unknown mars_* key. Raises ValueError listing the known ones."""
    known = [key for key in option_keys() if key.startswith("mars_")]
    for key in external:
        if key.startswith("mars_") and key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(f"unknown key {key}.{hint} Known keys: {', '.join(sorted(known))}")


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


def alignment_settings(config: Config) -> AlignmentSettings:
    """Stage 1's network (MARS, eq. 3-14) as the configuration asks for it."""
    return AlignmentSettings(
        id_width=config["mars_id_width"],
        width=config["mars_width"],
        attention=config["mars_attention"],
        residual=config["mars_residual"],
        use_text=config["mars_use_text"],
        use_image=config["mars_use_image"],
        use_stein=config["mars_use_stein"],
        history_labels=config["history_labels"],
        stein_weight=config["mars_beta"],
        entropy_weight=config["mars_lambda"],
        entropy_sign=config["mars_entropy_sign"],
        regularization=config["mars_eta"],
        dropout=config["mars_align_dropout"],
    )


def training_settings(config: Config) -> TrainingSettings:
    """How stage 1 is trained."""
    return TrainingSettings(
        epochs=config["mars_align_epochs"],
        batch_users=config["mars_align_batch_users"],
        learning_rate=config["mars_align_learning_rate"],
        weight_decay=config["mars_align_weight_decay"],
        patience=config["mars_align_patience"],
        max_length=config["MAX_ITEM_LIST_LENGTH"],
        seed=config["seed"],
    )


def retrieval_settings(config: Config, temporal: bool) -> RetrievalSettings:
    """Retrieval and filtering (MARS, eq. 15-18). temporal: whether the split is one in time."""
    donor_time = config["mars_donor_time"]
    if donor_time == "auto":
        donor_time = "before" if temporal else "any"
    return RetrievalSettings(
        strategy=config["mars_strategy"],
        candidates=config["mars_candidates"],
        theta=config["mars_theta"],
        theta_kind=config["mars_theta_kind"],
        index=config["mars_index"],
        center=config["mars_center"],
        donor_time=donor_time,
        max_length=config["MAX_ITEM_LIST_LENGTH"],
    )


def din_settings(config: Config) -> DINSettings:
    """Stage 2's CTR model."""
    return DINSettings(
        attention_hidden=tuple(config["mars_attention_hidden"]),
        dnn_hidden=tuple(config["mars_dnn_hidden"]),
        activation=config["mars_activation"],
        attention_softmax=config["mars_attention_softmax"],
        dropout=config["mars_dropout"],
        history_labels=config["history_labels"],
        mark_borrowed=config["mars_mark_borrowed"] and config["augmentation"] != "none",
    )
