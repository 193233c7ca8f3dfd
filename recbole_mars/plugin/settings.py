"""Settings of our parts, built from RecBole's configuration, whose keys errors then name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from recbole.config import Config

from recbole_mars.agreement import (
    AGREEMENT_COLUMNS,
    CLICK_COLUMNS,
    AgreementSettings,
    ClickAgreementSettings,
)
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
    BSTSettings,
    ContrastiveObjective,
    ContrastiveSettings,
    DIMOSettings,
    DINSettings,
    DMAESettings,
    FRNetSettings,
    LRDSettings,
    MixupObjective,
    MixupSettings,
    Objective,
    SimTierSettings,
    UniSRecSettings,
)
from recbole_mars.features import FeatureSettings
from recbole_mars.plugin.config import OBJECTIVES

__all__ = [
    "OWN_SETTINGS",
    "agreement_columns",
    "agreement_settings",
    "alignment_settings",
    "basrec_settings",
    "bst_settings",
    "check_heads",
    "cmr_settings",
    "cmrsi_settings",
    "coserec_settings",
    "dimo_settings",
    "din_settings",
    "dmae_settings",
    "donor_time",
    "feature_settings",
    "frnet_settings",
    "is_temporal",
    "lrd_settings",
    "random_seq_settings",
    "random_settings",
    "reppad_settings",
    "retrieval_settings",
    "simtier_settings",
    "training_objective",
    "training_settings",
    "unisrec_settings",
]

_T = TypeVar("_T")

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
    "bandwidth": "mars_bandwidth",
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
_CLICK_AGREEMENT = {
    **_AGREEMENT,
    "counts": "mars_agreement_counts",
    "withheld": "mars_agreement_withheld",
}
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
    "mark_age": "mars_mark_age",
}

_DMAE = {
    "width": "dmae_width",
    "buckets": "dmae_buckets",
    "base": "dmae_base",
    "ages": "MAX_ITEM_LIST_LENGTH",
    "times": "dmae_times",
    "levels": "dmae_levels",
    "window": "dmae_window",
    "mask": "dmae_mask",
    "weight": "dmae_lambda",
    "output": "dmae_decoder",
    "scale": "similarity_scale",
    "blend": "dmae_use_similarity_embedding",
    "use_time": "dmae_use_time",
    "use_fusion": "dmae_use_fusion",
    "use_decoder": "dmae_use_decoder",
}
_SIMTIER = {"tiers": "simtier_tiers", "scale": "similarity_scale"}
_BST = {
    "heads": "bst_heads",
    "blocks": "bst_blocks",
    "dropout": "bst_dropout",
    "positions": "MAX_ITEM_LIST_LENGTH",
}

_UNISREC = {
    "experts": "unisrec_experts",
    "layers": "unisrec_layers",
    "heads": "unisrec_heads",
    "inner": "unisrec_inner",
    "dropout": "unisrec_dropout",
    "ages": "MAX_ITEM_LIST_LENGTH",
}
_LRD = {
    "relations": "lrd_relations",
    "width": "lrd_width",
    "weight": "lrd_lambda",
    "entropy": "lrd_alpha",
    "inferred": "lrd_inferred",
}
_DIMO = {
    "companions": "dimo_companions",
    "window": "dimo_window",
    "layers": "dimo_layers",
    "negatives": "dimo_negatives",
    "weight": "dimo_lambda",
}
_FRNET = {"attention_width": "frnet_attention_width", "hidden": "frnet_hidden"}

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


def agreement_columns(config: Config) -> tuple[str, ...]:
    """What agreement tells of a target: of opinions, or of clicks where there is nothing else."""
    return CLICK_COLUMNS if config["fixed_negatives"] else AGREEMENT_COLUMNS


def agreement_settings(config: Config) -> AgreementSettings | ClickAgreementSettings:
    """How agreement is computed."""
    if config["fixed_negatives"]:
        return _build(ClickAgreementSettings, _CLICK_AGREEMENT, config, seed=config["seed"])
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
    width = len(agreement_columns(config)) if config["mars_agreement"] else 0
    return _build(DINSettings, _DIN, config, mark_borrowed=marked, context_width=width)


def dmae_settings(config: Config) -> DMAESettings:
    """What DMAE adds to a DIN."""
    return _build(DMAESettings, _DMAE, config)


def simtier_settings(config: Config) -> SimTierSettings:
    """What SimTier adds to a DIN."""
    return _build(SimTierSettings, _SIMTIER, config)


def bst_settings(config: Config) -> BSTSettings:
    """The transformer in place of DIN's attention."""
    return _build(BSTSettings, _BST, config)


def unisrec_settings(config: Config) -> UniSRecSettings:
    """UniSRec's adaptor and transformer."""
    return _build(UniSRecSettings, _UNISREC, config)


def check_heads(config: Config, width: int) -> None:
    """Raise ValueError if UniSRec's heads do not share the width of an item's vector."""
    if width % config["unisrec_heads"]:
        raise ValueError(
            f"unisrec_heads must divide the width of an item's vector, {width} (embedding_size "
            f"{config['embedding_size']} for the id and each field), got {config['unisrec_heads']}"
        )


def lrd_settings(config: Config) -> LRDSettings:
    """What LRD adds to a DIN."""
    return _build(LRDSettings, _LRD, config)


def dimo_settings(config: Config) -> DIMOSettings:
    """What DIMO adds to two DINs."""
    return _build(DIMOSettings, _DIMO, config)


def frnet_settings(config: Config) -> FRNetSettings:
    """FRNet's units."""
    return _build(FRNetSettings, _FRNET, config)


# What a model's network has beside a DIN's settings.
OWN_SETTINGS: dict[str, Callable[[Config], Any]] = {
    "DMAE": dmae_settings,
    "SimTier": simtier_settings,
    "BST": bst_settings,
    "UniSRec": unisrec_settings,
    "LRD": lrd_settings,
    "DIMO": dimo_settings,
    "FRNet": frnet_settings,
}


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
