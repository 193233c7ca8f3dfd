"""Reading RecBole's configuration: our keys, their defaults, and the settings built from them.

The only place that reads RecBole's mapping. Our keys are those of properties/overall.yaml.
"""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import recbole
import yaml
from recbole.config import Config
from recbole.utils import InputType

from recbole_mars.agreement import AGREEMENT_COLUMNS, AgreementSettings
from recbole_mars.alignment import AlignmentSettings, TrainingSettings
from recbole_mars.augmentation import (
    BASRecSettings,
    CMRSettings,
    CMRSISettings,
    CoSeRecSettings,
    RandomSettings,
    RepPadSettings,
    RetrievalSettings,
)
from recbole_mars.ctr import (
    ContrastiveObjective,
    ContrastiveSettings,
    DINSettings,
    MixupObjective,
    MixupSettings,
    Objective,
)
from recbole_mars.features import FeatureSettings

__all__ = [
    "OBJECTIVES",
    "OUR_MODELS",
    "agreement_settings",
    "alignment_settings",
    "asks_for_us",
    "basrec_settings",
    "check_keys",
    "cmr_settings",
    "cmrsi_settings",
    "coserec_settings",
    "data_folder",
    "din_settings",
    "donor_time",
    "explain_unknown_model",
    "feature_settings",
    "internal_defaults",
    "is_temporal",
    "known_models",
    "needs_stage_one",
    "option_keys",
    "properties_folder",
    "random_seq_settings",
    "random_settings",
    "reppad_settings",
    "retrieval_settings",
    "training_objective",
    "training_settings",
]

OUR_MODELS = ("MARS", "MARSAlign")
OBJECTIVES = ("cl4srec", "coserec", "basrec")  # augmentations that add a loss to MARS's

_T = TypeVar("_T")


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
    evaluated on them.
    """
    ours, keys = model in OUR_MODELS, _read("overall.yaml")
    if not ours and not asks_for_us(external):
        return {}
    defaults = {**keys}
    for name in (f"model/{model}.yaml", f"dataset/{dataset}.yaml"):
        defaults.update({k: v for k, v in _read(name).items() if ours or k in keys})
    if not ours and needs_stage_one(external.get("augmentation", "none")):
        labelled = _read("model/MARS.yaml")
        defaults["threshold"] = labelled["threshold"]
        if getattr(model_class, "input_type", None) == InputType.POINTWISE:
            defaults["train_neg_sample_args"] = labelled["train_neg_sample_args"]
            defaults["eval_args"] = labelled["eval_args"]
    return copy.deepcopy(defaults)  # RecBole writes into some of its values


def check_keys(external: Mapping[str, Any], known_to_recbole: Iterable[str]) -> None:
    """Refuse keys that are misspelt ones of ours, and values of the wrong type.

    An unknown mars_* key is an error, and so is any other key that RecBole does not know and that
    differs from one of ours by a letter or two. Raises ValueError with the remedy.
    """
    defaults = _read("overall.yaml")
    ours = [key for key in defaults if key.startswith("mars_")]
    for key, value in external.items():
        if key in defaults:
            _check_type(key, value, defaults[key])
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


def _check_type(key: str, value: Any, default: Any) -> None:
    """What the default is, the value has to be; a default of None says nothing."""
    for kind, allowed, name in _KINDS:
        if isinstance(default, kind):
            if not isinstance(value, allowed) or (kind is not bool and isinstance(value, bool)):
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


# What our settings are called in the configuration.
_ALIGNMENT = {
    "id_width": "mars_id_width",
    "width": "mars_width",
    "attention": "mars_attention",
    "residual": "mars_residual",
    "use_text": "mars_use_text",
    "use_image": "mars_use_image",
    "use_stein": "mars_use_stein",
    "history_labels": "history_labels",
    "stein_weight": "mars_beta",
    "entropy_weight": "mars_lambda",
    "entropy_sign": "mars_entropy_sign",
    "regularization": "mars_eta",
    "dropout": "mars_align_dropout",
}
_TRAINING = {
    "epochs": "mars_align_epochs",
    "batch_users": "mars_align_batch_users",
    "learning_rate": "mars_align_learning_rate",
    "weight_decay": "mars_align_weight_decay",
    "patience": "mars_align_patience",
    "max_length": "MAX_ITEM_LIST_LENGTH",
    "precision": "mars_precision",
    "seed": "seed",
}
_RETRIEVAL = {
    "strategy": "mars_strategy",
    "candidates": "mars_candidates",
    "theta": "mars_theta",
    "theta_kind": "mars_theta_kind",
    "index": "mars_index",
    "storage": "mars_index_storage",
    "rerank": "mars_index_rerank",
    "center": "mars_center",
    "max_length": "MAX_ITEM_LIST_LENGTH",
}
_AGREEMENT = {"factors": "mars_agreement_factors", "max_length": "mars_agreement_length"}
_RANDOM = {"items": "random_items"}
_RANDOM_SEQ = {"items": "random_seq_items"}
_REPPAD = {"repeats": "reppad_repeats", "delimiter": "reppad_delimiter"}
_CMR = {"crop": "cmr_crop", "mask": "cmr_mask", "reorder": "cmr_reorder"}
_CMRSI = {**_CMR, "substitute": "cmrsi_substitute", "insert": "cmrsi_insert"}
_COSEREC = {**_CMRSI, "short": "coserec_short"}
_BASREC = {"rates": "basrec_rates", "start": "basrec_start"}
_DIN = {
    "attention_hidden": "mars_attention_hidden",
    "dnn_hidden": "mars_dnn_hidden",
    "activation": "mars_activation",
    "attention_softmax": "mars_attention_softmax",
    "dropout": "mars_dropout",
    "precision": "mars_precision",
    "history_labels": "history_labels",
}

_CONTRASTIVE = {
    "weight": "contrast_weight",
    "temperature": "contrast_temperature",
    "representation": "contrast_representation",
}
_MIXUP = {
    "single_weight": "basrec_single_weight",
    "cross_weight": "basrec_cross_weight",
    "alpha": "basrec_alpha",
    "reweight": "basrec_reweight",
}


def _build(kind: Callable[..., _T], keys: Mapping[str, str], config: Config, **others: Any) -> _T:
    """Make settings from the configuration; an error names the configuration's key."""
    try:
        return kind(**{field: config[key] for field, key in keys.items()}, **others)
    except ValueError as error:
        message = str(error)
        for field, key in keys.items():
            message = re.sub(rf"^{field}\b", key, message)
        raise ValueError(message) from None


def feature_settings(config: Config) -> FeatureSettings:
    """How text and pictures become features, as the configuration asks for it."""
    names = [option.name for option in FeatureSettings.options()]
    return FeatureSettings.from_keys({name: config[name] for name in names})


def alignment_settings(config: Config) -> AlignmentSettings:
    """Stage 1's network (MARS, eq. 3-14) as the configuration asks for it."""
    return _build(AlignmentSettings, _ALIGNMENT, config)


def agreement_settings(config: Config) -> AgreementSettings:
    """How agreement is computed."""
    return _build(AgreementSettings, _AGREEMENT, config, seed=config["seed"])


def training_settings(config: Config) -> TrainingSettings:
    """How stage 1 is trained."""
    return _build(TrainingSettings, _TRAINING, config)


def is_temporal(config: Config) -> bool:
    """Whether the split is one in time: all that is tested is later than all that is trained on."""
    arguments = config["eval_args"]
    kind = next(iter(arguments["split"]))
    whole = arguments["group_by"] is None or str(arguments["group_by"]).lower() == "none"
    return kind == "TS" or (kind == "RS" and arguments["order"] == "TO" and whole)


def donor_time(config: Config, temporal: bool) -> str:
    """Which of others' behaviours may enter a history: "any", or those "before" the target."""
    chosen = config["mars_donor_time"]
    if chosen not in ("auto", "any", "before"):
        raise ValueError(f"mars_donor_time must be auto, any or before, got {chosen!r}")
    if chosen == "auto":
        return "before" if temporal else "any"
    return str(chosen)


def retrieval_settings(config: Config, temporal: bool) -> RetrievalSettings:
    """Retrieval and filtering (MARS, eq. 15-18). temporal: whether the split is one in time."""
    return _build(RetrievalSettings, _RETRIEVAL, config, donor_time=donor_time(config, temporal))


def random_settings(config: Config) -> RandomSettings:
    """Random items before each history."""
    return _build(RandomSettings, _RANDOM, config)


def random_seq_settings(config: Config) -> RandomSettings:
    """Random behaviours of the own history before it."""
    return _build(RandomSettings, _RANDOM_SEQ, config)


def reppad_settings(config: Config) -> RepPadSettings:
    """Repetitions of the history before it."""
    return _build(RepPadSettings, _REPPAD, config)


def cmr_settings(config: Config) -> CMRSettings:
    """Crop, mask and reorder."""
    return _build(CMRSettings, _CMR, config)


def cmrsi_settings(config: Config) -> CMRSISettings:
    """Crop, mask, reorder, substitute and insert."""
    return _build(CMRSISettings, _CMRSI, config)


def coserec_settings(config: Config) -> CoSeRecSettings:
    """CoSeRec's views."""
    return _build(CoSeRecSettings, _COSEREC, config)


def basrec_settings(config: Config) -> BASRecSettings:
    """BASRec's views."""
    return _build(BASRecSettings, _BASREC, config)


def din_settings(config: Config) -> DINSettings:
    """Stage 2's CTR model."""
    marked = config["mars_mark_borrowed"] and config["augmentation"] != "none"
    width = len(AGREEMENT_COLUMNS) if config["mars_agreement"] else 0
    return _build(DINSettings, _DIN, config, mark_borrowed=marked, context_width=width)


def training_objective(config: Config) -> Objective | None:
    """The loss that the augmentation adds to the CTR model's; None for those that add none.

    Raises ValueError for settings out of range, and in a distributed run.
    """
    name = config["augmentation"]
    if name not in OBJECTIVES:
        return None
    if not config["single_spec"]:
        raise ValueError(
            f"augmentation {name} compares the rows of a whole batch, which several processes "
            "share out; take nproc 1"
        )
    if name == "basrec":
        return MixupObjective(_build(MixupSettings, _MIXUP, config))
    return ContrastiveObjective(_build(ContrastiveSettings, _CONTRASTIVE, config))
