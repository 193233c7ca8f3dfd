"""Dense products of the activation units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["product_with_rows", "sigmoid_layer"]

# oneDNN's product, the one that torch.compile calls. torch.mm asks MKL instead, which on an AMD
# processor leaves half the vector width unused.
_onednn: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def product_with_rows(left: Tensor, right: Tensor) -> Tensor:
    """left right^T. left: (A, C), contiguous or slow. right: (B, C). Returns (A, B)."""
    if _onednn is not None and left.device.type == "cpu" and left.dtype == torch.float32:
        return _onednn(left, right, None, "none", [], "")
    return torch.mm(left, right.t())


def sigmoid_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """sigmoid(x weight^T + bias), without gradients. x: (A, C). weight: (B, C). bias: (B,)."""
    if _onednn is not None and x.device.type == "cpu" and x.dtype == torch.float32:
        return _onednn(x, weight, bias, "sigmoid", [], "")
    return torch.addmm(bias, x, weight.t()).sigmoid_()
