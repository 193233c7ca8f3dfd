"""Values of a configuration that would fail only once the data is read, or in training."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from numbers import Integral, Real
from typing import Any

from recbole.config import Config

from recbole_mars.plugin.config import CTR_MODELS, FEATURE_MODELS
from recbole_mars.plugin.dataset import MultimodalDataset
from recbole_mars.plugin.epochs import check_decay
from recbole_mars.plugin.settings import (
    OWN_SETTINGS,
    agreement_settings,
    alignment_settings,
    basrec_settings,
    check_heads,
    cmr_settings,
    cmrsi_settings,
    coserec_settings,
    din_settings,
    donor_time,
    feature_settings,
    is_temporal,
    random_seq_settings,
    random_settings,
    reppad_settings,
    retrieval_settings,
    training_objective,
    training_settings,
)

__all__ = ["check_values"]

_COUNTS = ("epochs", "train_batch_size", "eval_batch_size", "embedding_size")


def _retrieval(config: Config) -> object:
    return retrieval_settings(config, is_temporal(config))


# What reads the settings of an augmentation.
_AUGMENTATIONS: dict[str, tuple[Callable[[Config], object], ...]] = {
    "mars": (alignment_settings, training_settings, _retrieval),
    "random": (random_settings,),
    "random_seq": (random_seq_settings,),
    "reppad": (reppad_settings,),
    "cmr": (cmr_settings,),
    "cmrsi": (cmrsi_settings,),
    "cl4srec": (cmr_settings,),
    "coserec": (coserec_settings,),
    "basrec": (basrec_settings,),
}


def check_values(config: Config) -> None:
    """Build every settings object that a run of this configuration uses.

    Raises ValueError, naming the key, for a value that is out of range or of another kind, and for
    a split without training, validation and test rows.
    """
    _check_training(config)
    _check_split(config["eval_args"])
    MultimodalDataset._check_options(config)
    donor_time(config, is_temporal(config))
    model, augmentation = config["model"], config["augmentation"]
    builders = [*_AUGMENTATIONS.get(augmentation, ())]
    if model in OWN_SETTINGS:
        builders.append(OWN_SETTINGS[model])
    if model == "MARSAlign":
        builders += [alignment_settings, training_settings]
    fields = (config["load_col"] or {}).get("item")
    if model == "UniSRec" and not fields:
        builders.append(lambda config: check_heads(config, config["embedding_size"]))
    if model in CTR_MODELS:
        builders += [din_settings, training_objective]
    if config["mars_agreement"]:
        builders.append(agreement_settings)
    if config["mars_use_aligned"] and model in FEATURE_MODELS:
        builders += [alignment_settings, training_settings]
    if MultimodalDataset.uses_features(config):
        builders.append(feature_settings)
    for build in builders:
        try:
            build(config)
        except TypeError as error:
            name = build.__name__.strip("_").replace("_", " ")
            raise ValueError(f"{name}: a value is of the wrong kind, {error}") from None


def _check_training(config: Config) -> None:
    for key in _COUNTS:
        value = config[key]
        if value is not None and (not _is(value, Integral) or value < 1):
            raise ValueError(f"{key} must be a whole number >= 1, got {value!r}")
    check_decay(config["learning_rate_decay"])
    rate = config["learning_rate"]
    if not _is(rate, Real) or rate <= 0 or not isfinite(rate):
        raise ValueError(f"learning_rate must be a number > 0, got {rate!r}")


def _check_split(eval_args: dict[str, Any]) -> None:
    split, order, group_by = (eval_args[key] for key in ("split", "order", "group_by"))
    kind, value = next(iter(split.items())) if isinstance(split, dict) and split else (None, None)
    shares = (
        kind in ("RS", "TS")
        and isinstance(value, list)
        and len(value) == 3
        and all(_is(share, Real) and share > 0 for share in value)
    )
    if not (shares or (kind, value) == ("LS", "valid_and_test")) or len(split) != 1:
        raise ValueError(
            "eval_args' split must be {LS: valid_and_test}, or {RS: [8, 1, 1]} or {TS: [8, 1, 1]} "
            f"with the shares of training, validation and test, got {split!r}"
        )
    if order not in ("TO", "RO"):
        raise ValueError(f"eval_args' order must be TO or RO, got {order!r}")
    if group_by is not None and str(group_by).lower() not in ("user", "none"):
        raise ValueError(f"eval_args' group_by must be user or none, got {group_by!r}")


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
