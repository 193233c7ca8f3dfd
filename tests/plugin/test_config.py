"""Every key of ours reaches the one setting that it is for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
import yaml
from recbole.config import Config
from recbole.data import create_dataset

from recbole_mars import MARS
from recbole_mars.plugin.config import properties_folder
from recbole_mars.plugin.settings import (
    agreement_settings,
    alignment_settings,
    bst_settings,
    cmr_settings,
    cmrsi_settings,
    dimo_settings,
    din_settings,
    dmae_settings,
    frnet_settings,
    lrd_settings,
    random_seq_settings,
    random_settings,
    reppad_settings,
    retrieval_settings,
    simtier_settings,
    training_settings,
    unisrec_settings,
)

BUILDERS = {
    "alignment": alignment_settings,
    "training": training_settings,
    "retrieval": lambda config: retrieval_settings(config, temporal=False),
    "din": din_settings,
    "random": random_settings,
    "random_seq": random_seq_settings,
    "reppad": reppad_settings,
    "cmr": cmr_settings,
    "cmrsi": cmrsi_settings,
    "agreement": agreement_settings,
    "dmae": dmae_settings,
    "simtier": simtier_settings,
    "bst": bst_settings,
    "unisrec": unisrec_settings,
    "lrd": lrd_settings,
    "dimo": dimo_settings,
    "frnet": frnet_settings,
}
# key: a value that is not the default, and what it changes
KEYS: dict[str, tuple[Any, set[str]]] = {
    "mars_use_text": (False, {"alignment.use_text"}),
    "mars_use_image": (False, {"alignment.use_image"}),
    "mars_use_stein": (False, {"alignment.use_stein"}),
    "mars_id_width": (7, {"alignment.id_width"}),
    "mars_width": (9, {"alignment.width"}),
    "mars_attention": ("full", {"alignment.attention"}),
    "mars_residual": (False, {"alignment.residual"}),
    "mars_beta": (0.7, {"alignment.stein_weight"}),
    "mars_lambda": (0.7, {"alignment.entropy_weight"}),
    "mars_entropy_sign": ("printed", {"alignment.entropy_sign"}),
    "mars_bandwidth": (0.7, {"alignment.bandwidth"}),
    "mars_eta": (0.7, {"alignment.regularization"}),
    "mars_align_dropout": (0.7, {"alignment.dropout"}),
    "mars_align_epochs": (3, {"training.epochs"}),
    "mars_align_patience": (5, {"training.patience"}),
    "mars_align_batch_users": (3, {"training.batch_users"}),
    "mars_align_learning_rate": (0.7, {"training.learning_rate"}),
    "mars_align_weight_decay": (0.7, {"training.weight_decay"}),
    "mars_strategy": ("most_similar", {"retrieval.strategy"}),
    "mars_theta": (0.7, {"retrieval.theta"}),
    "mars_theta_kind": ("cosine", {"retrieval.theta_kind"}),
    "mars_center": (False, {"retrieval.center"}),
    "mars_donor_time": ("before", {"retrieval.donor_time"}),
    "mars_index": ("hnsw", {"retrieval.index"}),
    "mars_index_storage": ("int8", {"retrieval.storage"}),
    "mars_attention_hidden": ([5], {"din.attention_hidden"}),
    "mars_dnn_hidden": ([5], {"din.dnn_hidden"}),
    "mars_activation": ("relu", {"din.activation"}),
    "mars_attention_softmax": (True, {"din.attention_softmax"}),
    "mars_dropout": (0.7, {"din.dropout"}),
    "mars_precision": ("bfloat16", {"din.precision", "training.precision"}),
    "mars_mark_age": (True, {"din.mark_age"}),
    "mars_mark_borrowed": (True, {"din.mark_borrowed"}),
    "random_items": (3, {"random.items"}),
    "random_seq_items": (3, {"random_seq.items"}),
    "reppad_repeats": (3, {"reppad.repeats"}),
    "reppad_delimiter": (False, {"reppad.delimiter"}),
    "cmr_crop": (0.7, {"cmr.crop", "cmrsi.crop"}),
    "cmr_mask": (0.7, {"cmr.mask", "cmrsi.mask"}),
    "cmr_reorder": (0.7, {"cmr.reorder", "cmrsi.reorder"}),
    "cmrsi_substitute": (0.7, {"cmrsi.substitute"}),
    "cmrsi_insert": (0.7, {"cmrsi.insert"}),
    "history_labels": (True, {"alignment.history_labels", "din.history_labels"}),
    "MAX_ITEM_LIST_LENGTH": (
        7,
        {
            *("training.max_length", "retrieval.max_length", "dmae.ages"),
            *("bst.positions", "unisrec.ages"),
        },
    ),
    "seed": (7, {"training.seed", "agreement.seed"}),
    "similarity_scale": ("quantile", {"dmae.scale", "simtier.scale"}),
    "dmae_width": (6, {"dmae.width"}),
    "dmae_buckets": (7, {"dmae.buckets"}),
    "dmae_base": (7.0, {"dmae.base"}),
    "dmae_times": (7, {"dmae.times"}),
    "dmae_levels": (7, {"dmae.levels"}),
    "dmae_window": (7, {"dmae.window"}),
    "dmae_mask": (0.7, {"dmae.mask"}),
    "dmae_lambda": (0.7, {"dmae.weight"}),
    "dmae_decoder": ("sigmoid", {"dmae.output"}),
    "dmae_use_similarity_embedding": (False, {"dmae.blend"}),
    "dmae_use_time": (False, {"dmae.use_time"}),
    "dmae_use_fusion": (False, {"dmae.use_fusion"}),
    "dmae_use_decoder": (False, {"dmae.use_decoder"}),
    "simtier_tiers": (7, {"simtier.tiers"}),
    "bst_heads": (7, {"bst.heads"}),
    "bst_blocks": (7, {"bst.blocks"}),
    "bst_dropout": (0.7, {"bst.dropout"}),
    "unisrec_experts": (7, {"unisrec.experts"}),
    "unisrec_layers": (7, {"unisrec.layers"}),
    "unisrec_heads": (7, {"unisrec.heads"}),
    "unisrec_inner": (7, {"unisrec.inner"}),
    "unisrec_dropout": (0.7, {"unisrec.dropout"}),
    "lrd_relations": (7, {"lrd.relations"}),
    "lrd_width": (7, {"lrd.width"}),
    "lrd_lambda": (0.7, {"lrd.weight"}),
    "lrd_alpha": (-0.7, {"lrd.entropy"}),
    "lrd_inferred": (True, {"lrd.inferred"}),
    "dimo_companions": (7, {"dimo.companions"}),
    "dimo_window": (7, {"dimo.window"}),
    "dimo_layers": (7, {"dimo.layers"}),
    "dimo_negatives": (7, {"dimo.negatives"}),
    "dimo_lambda": (0.7, {"dimo.weight"}),
    "frnet_attention_width": (7, {"frnet.attention_width"}),
    "frnet_hidden": ([7], {"frnet.hidden"}),
    "mars_agreement_factors": (7, {"agreement.factors"}),
    "mars_agreement_length": (7, {"agreement.max_length"}),
}
# These are read where they act, and tested there.
ELSEWHERE = {
    "mars_agreement_counts",
    "mars_agreement_withheld",
    "mars_agreement",
    "mars_low_share",
    "mars_high_share",
    "mars_candidates",
    "mars_index_rerank",
    "mars_use_aligned",
    "mars_use_user_id",
}


def built(**settings: Any) -> dict[str, Any]:
    config = Config("MARS", "ml-100k", config_dict={"history_labels": False, **settings})
    return {
        f"{name}.{field}": value
        for name, build in BUILDERS.items()
        for field, value in asdict(build(config)).items()
    }


@pytest.mark.parametrize("key", KEYS)
def test_a_key_changes_its_setting_only(key, empty_cwd):
    value, expected = KEYS[key]
    before, after = built(), built(**{key: value})
    assert {name for name in before if before[name] != after[name]} == expected
    assert all(
        list(after[n]) == value if isinstance(value, list) else after[n] == value for n in expected
    )


def test_no_key_is_forgotten():
    known = yaml.safe_load((properties_folder() / "overall.yaml").read_text())
    ours = ("mars_", "random_", "reppad_", "cmr_", "cmrsi_")
    ours += ("similarity_", "dmae_", "simtier_", "bst_")
    ours += ("unisrec_", "lrd_", "dimo_", "frnet_")
    assert {key for key in known if key.startswith(ours)} == ELSEWHERE | {
        key for key in KEYS if key.startswith(ours)
    }


def test_several_candidates(empty_cwd):
    assert built(mars_strategy="top_k", mars_candidates=4)["retrieval.candidates"] == 4
    assert built(mars_index_storage="int8", mars_index_rerank=9)["retrieval.rerank"] == 9


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cmr_mask", 1.5),
        ("random_items", -1),
        ("simtier_tiers", 0),
        ("bst_heads", 0),
        ("bst_dropout", 1.0),
    ],
)
def test_errors_name_the_key(empty_cwd, key, value):
    with pytest.raises(ValueError, match=f"^{key} must"):
        built(**{key: value})


def test_donors_lend_the_past_only_when_the_split_is_by_time(empty_cwd):
    config = Config("MARS", "ml-100k")
    assert retrieval_settings(config, temporal=True).donor_time == "before"
    assert retrieval_settings(config, temporal=False).donor_time == "any"


@pytest.mark.parametrize(("supported", "warned"), [(True, False), (False, True)])
def test_bfloat16_without_instructions_is_said(tiny, monkeypatch, caplog, supported, warned):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: supported, raising=False)
    settings = {**tiny, "augmentation": "none", "mars_precision": "bfloat16", "use_gpu": False}
    config = Config("MARS", "world", config_dict=settings)
    MARS(config, create_dataset(config).build()[0])
    assert ("slower than float32" in caplog.text) is warned
