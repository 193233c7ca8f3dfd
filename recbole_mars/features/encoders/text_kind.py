"""What kind of text model a config of `transformers` describes, and how much text it takes."""

from __future__ import annotations

from typing import Any

__all__ = ["is_fixed_length", "position_limit", "text_kind"]

# Models of pictures and texts whose get_text_features gives one vector a text.
DUAL = {
    "align", "altclip", "blip", "chinese_clip", "clap", "clip", "clipseg", "groupvit",
    "metaclip_2", "siglip", "siglip2", "x_clip",
}  # fmt: skip
# Their first position comes after the padding token's, so that many positions are no token's.
AFTER_PADDING = {
    "camembert", "data2vec-text", "longformer", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


def text_kind(config: Any) -> str:
    """One of "dual", "encoder-decoder", "decoder" and "encoder".

    Raises ValueError for a model of several inputs whose text side is not known here.
    """
    from transformers.models.auto import modeling_auto as auto

    kind = config.model_type
    if kind in DUAL:
        return "dual"
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    writes = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    fills = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if writes and not fills:  # many encoders can be set to write, too
        return "decoder"
    # Large models of pictures and texts, and those that bring their own code.
    if not fills and any("ForCausalLM" in name for name in config.architectures or ()):
        return "decoder"
    if kind in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return "decoder"
    others = ("vision_config", "image_config", "audio_config")
    if any(getattr(config, other, None) is not None for other in others):
        raise ValueError(
            f"model_type must be a text model or one of {', '.join(sorted(DUAL))}, got {kind!r}; "
            f"choose another model for texts"
        )
    return "encoder"


def is_fixed_length(config: Any) -> bool:
    """Whether texts are padded to the model's full length, and padding is not masked.

    SigLIP was trained so, and takes its vector from the last place.
    """
    return str(config.model_type).startswith("siglip")


def position_limit(config: Any) -> int | None:
    """Tokens that the model has positions for; None if it has no such limit."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:  # XLNet says -1
        return None
    if text.model_type in AFTER_PADDING:
        return limit - (text.pad_token_id or 0) - 1
    return limit
