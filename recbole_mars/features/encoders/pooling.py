"""From one vector a token to one vector a text.

B batch, L length, D width.
"""

from __future__ import annotations

import torch

__all__ = ["POOLINGS", "pool"]

POOLINGS = ("mean", "cls", "last", "max", "mean_sqrt_len", "weightedmean")


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: str = "mean") -> torch.Tensor:
    """Pool the vectors of a text's tokens into one, as sentence-transformers defines it.

    mean: sum over tokens / n, of n tokens. mean_sqrt_len: sum / sqrt(n). weightedmean:
    sum of k h_k / sum of k, for the k-th token, counted from 1. max: of every column. cls: the
    first token. last: the last one.

    hidden: (B, L, D) floats. mask: (B, L), not zero for tokens, zero for padding on either side,
    whose vectors never matter, not even if they are not finite. Returns (B, D) float32, summed in
    float32; zeros for a text without a token.

    Raises ValueError if `how` is none of these, or the shapes do not fit.
    """
    if how not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {how!r}")
    if hidden.ndim != 3 or mask.shape != hidden.shape[:2]:
        raise ValueError(
            f"pooling needs hidden (B, L, D) and mask (B, L), "
            f"got {tuple(hidden.shape)} and {tuple(mask.shape)}"
        )
    real = mask != 0
    if not hidden.shape[1]:
        return hidden.new_zeros(hidden.shape[0], hidden.shape[2], dtype=torch.float32)
    if how in ("cls", "last"):
        return _one_token(hidden, real, last=how == "last")
    if how == "max":
        top = hidden.float().masked_fill(~real[..., None], -torch.inf).amax(dim=1)
        return top.masked_fill(~real.any(dim=1, keepdim=True), 0.0)
    # Filled, not multiplied by 0: padding may hold NaN, which times 0 is NaN.
    kept = hidden.masked_fill(~real[..., None], 0.0)
    if how == "weightedmean":
        # sentence-transformers' positions count from the first token, too.
        position = torch.where(real, real.cumsum(dim=1), 0).float()
        total = (kept.float() * position[..., None]).sum(dim=1)
        return total / position.sum(dim=1, keepdim=True).clamp_min(1.0)
    total = kept.sum(dim=1, dtype=torch.float32)
    count = real.sum(dim=1, keepdim=True, dtype=torch.float32).clamp_min(1.0)
    return total / (count if how == "mean" else count.sqrt())


def _one_token(hidden: torch.Tensor, real: torch.Tensor, last: bool) -> torch.Tensor:
    """The first or last token of each text, (B, D) float32."""
    length = real.shape[1]
    # argmax finds the first of equal values, in the reversed mask the last.
    place = real.flip(1).to(torch.int32).argmax(1) if last else real.to(torch.int32).argmax(1)
    place = length - 1 - place if last else place
    chosen = hidden[torch.arange(len(hidden), device=hidden.device), place].float()
    return chosen.masked_fill(~real.any(dim=1, keepdim=True), 0.0)
