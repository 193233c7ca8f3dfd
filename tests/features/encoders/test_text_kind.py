"""What a config says of a text model."""

from __future__ import annotations

import pytest
import transformers

from recbole_mars.features.encoders.text_kind import is_fixed_length, position_limit, text_kind


@pytest.mark.parametrize(
    ("name", "kind", "limit"),
    [
        ("Bert", "encoder", 512),
        ("Roberta", "encoder", 510),  # 512 in this config, 514 in all published ones
        ("XLMRoberta", "encoder", 510),
        ("MPNet", "encoder", 510),
        ("ModernBert", "encoder", 8192),
        ("DistilBert", "encoder", 512),
        ("Llama", "decoder", 2048),
        ("Qwen2", "decoder", 32768),
        ("GPT2", "decoder", 1024),
        ("Qwen2_5_VL", "decoder", 32768),
        ("XLNet", "decoder", None),
        ("T5", "encoder-decoder", None),
        ("Bart", "encoder-decoder", 1024),
        ("CLIP", "dual", 77),
        ("Siglip", "dual", 64),
    ],
)
def test_kinds_and_limits(name: str, kind: str, limit: int | None) -> None:
    config = getattr(transformers, f"{name}Config")()
    assert text_kind(config) == kind
    assert position_limit(config) == limit
    assert is_fixed_length(config) == (name == "Siglip")


def test_code_of_its_own() -> None:
    config = transformers.PretrainedConfig(architectures=["OwnForCausalLM"])
    config.model_type = "own"
    assert text_kind(config) == "decoder"
    config.architectures = ["OwnModel"]
    assert text_kind(config) == "encoder"


@pytest.mark.parametrize("name", ["Flava", "OwlViT", "VisionTextDualEncoder"])
def test_a_side_that_is_not_known(name: str) -> None:
    sides = {"vision_config": {"model_type": "vit"}, "text_config": {"model_type": "bert"}}
    given = sides if name == "VisionTextDualEncoder" else {}
    config = getattr(transformers, f"{name}Config")(**given)
    with pytest.raises(ValueError, match=r"must be a text model or one of align, .*another model"):
        text_kind(config)
