"""From what a vision model says of a picture's patches to one vector.

B batch, L tokens, D width, H and W height and width of the map of patches.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["POOLINGS", "pool_states", "prefix_tokens", "resolve_pooling"]

POOLINGS = ("auto", "cls", "mean", "model")

# Tokens that precede the patches: CLS, then what was added to it (DeiT's distillation token).
PREFIX_TOKENS = {
    "beit": 1,
    "clip_vision_model": 1,
    "data2vec-vision": 1,
    "deit": 2,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "dinov3_convnext": 1,
    "dinov3_vit": 1,
    "ijepa": 0,
    "siglip_vision_model": 0,
    "swin": 0,
    "swinv2": 0,
    "vit": 1,
    "vit_msn": 1,
}
# Whose CLS token was trained to stand for the picture, while their pooler, a layer that
# `transformers` puts on top of it, often was not: it is random in most checkpoints.
CLS_MODELS = {
    "beit",
    "data2vec-vision",
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "vit",
    "vit_msn",
}


def resolve_pooling(pooling: str, config: Any) -> str:
    """What 'auto' means for a vision model: 'cls', 'mean' or 'model'; other values stay.

    'cls' for models of the ViT kind, whose poolers are often untrained; 'mean' for I-JEPA, which
    has neither; 'model', the model's own pooled output, for all others: there it is a trained
    part (SigLIP's attention, CLIP's projection), or an average (ResNet, ConvNeXt, Swin).
    """
    if pooling != "auto":
        return pooling
    # A BEiT of this kind was tuned on the mean of its patches; its CLS token was left behind.
    if getattr(config, "use_mean_pooling", False):
        return "model"
    if config.model_type == "ijepa":
        return "mean"
    return "cls" if config.model_type in CLS_MODELS else "model"


def prefix_tokens(config: Any) -> int | None:
    """How many tokens precede the patches, register tokens included; None where unknown."""
    known = PREFIX_TOKENS.get(config.model_type)
    if known:
        return known + (getattr(config, "num_register_tokens", 0) or 0)
    return known


def pool_states(states: torch.Tensor, pooling: str, prefix: int | None) -> torch.Tensor:
    """Pool the last hidden states: their CLS token, or the mean over the patches in float32.

    states: (B, L, D) tokens, `prefix` of them before the patches, or (B, D, H, W) a map.
    pooling: 'cls' or 'mean'. Returns (B, D).

    Raises ValueError if there is no CLS token, or it is not known which tokens are patches.
    """
    if states.ndim == 4 and pooling == "mean":
        return states.float().mean(dim=(2, 3))
    if states.ndim != 3 or (pooling == "cls" and prefix == 0):
        raise ValueError(
            f"pooling {pooling!r} needs {'a CLS token' if pooling == 'cls' else 'patches'}, but "
            f"the model gives states of shape {tuple(states.shape)} without; "
            f"use 'auto' or 'model'"
        )
    if prefix is None:
        raise ValueError(
            f"pooling {pooling!r} needs a model whose order of tokens is known, one of "
            f"{sorted(PREFIX_TOKENS)}; use 'auto' or 'model'"
        )
    if pooling == "cls":
        return states[:, 0]
    return states[:, prefix:].float().mean(dim=1)
