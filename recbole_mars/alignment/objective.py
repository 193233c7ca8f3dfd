"""The Stein alignment objective: bring the modalities together without collapse (MARS, 3.2).

Dimension letters: N samples, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_mars.alignment.kernels import Bandwidth, choose_bandwidth
from recbole_mars.alignment.stein import stein_score

__all__ = [
    "ENTROPY_SIGNS",
    "alignment_loss",
    "combine_terms",
    "entropy_loss",
    "stein_loss",
    "stein_terms",
]

ENTROPY_SIGNS = ("maximised", "printed")


def alignment_loss(text: Tensor, image: Tensor, bandwidth: Bandwidth = "median") -> Tensor:
    """Mean kernel value over matched pairs, L_align (MARS, eq. 6).

    L_align = mean_i exp(-||image_i - text_i||^2 / (2 gamma^2))

    In (0, 1], and 1 when every pair coincides: despite its name it is maximised, eq. 8 subtracts
    it. gamma is "median", the median of all cross-modal distances in the batch, or a number.

    text, image: (N, D), row i of both the same item. Returns a scalar. Raises ValueError if the
    shapes differ or N is 0.
    """
    if text.dim() != 2 or text.shape != image.shape or len(text) == 0:
        raise ValueError(
            "text and image must be (N, D) with N >= 1 matched rows, "
            f"got {tuple(text.shape)} and {tuple(image.shape)}"
        )
    gamma = choose_bandwidth(bandwidth, text, image)
    squares = (image - text).square().sum(-1)
    return torch.exp(-squares / (2 * gamma**2)).mean()


def entropy_loss(
    *embeddings: Tensor, bandwidth: Bandwidth = "median", regularization: float = 0.1
) -> Tensor:
    """Entropy regularizer, L_entropy, averaged over the modalities given (MARS, eq. 7).

    L_entropy = -mean_i score(e_i)^T e_i

    Only its gradient has a meaning: with the score held fixed it is that of the differential
    entropy of the embeddings, so to descend on -L_entropy is to spread them.

    embeddings: one or more (N, D). Returns a scalar. Raises ValueError as stein_score, or
    without embeddings.
    """
    if not embeddings:
        raise ValueError("entropy_loss needs the embeddings of at least one modality, got none")
    terms = [
        -(stein_score(each, bandwidth, regularization) * each).sum(-1).mean() for each in embeddings
    ]
    return torch.stack(terms).mean()


def stein_terms(
    text: Tensor, image: Tensor, bandwidth: Bandwidth = "median", regularization: float = 0.1
) -> tuple[Tensor, Tensor]:
    """L_align and L_entropy of matched pairs (MARS, eq. 6 and 7).

    text, image: (N, D), row i of both the same item. Fewer than two pairs have no distribution
    to speak of and give zeros that keep the graph.
    """
    if len(text) == len(image) < 2:
        zero = 0.0 * (text.sum() + image.sum())
        return zero, zero
    return (
        alignment_loss(text, image, bandwidth),
        entropy_loss(text, image, bandwidth=bandwidth, regularization=regularization),
    )


def combine_terms(
    align: Tensor, entropy: Tensor, entropy_weight: float, entropy_sign: str = "maximised"
) -> Tensor:
    """Weigh L_align and L_entropy into L_stein (MARS, eq. 8); see stein_loss."""
    if entropy_sign not in ENTROPY_SIGNS:
        raise ValueError(f"entropy_sign must be one of {ENTROPY_SIGNS}, got {entropy_sign!r}")
    sign = 1.0 if entropy_sign == "printed" else -1.0
    return sign * entropy_weight * entropy - align


def stein_loss(
    text: Tensor,
    image: Tensor,
    entropy_weight: float,
    entropy_sign: str = "maximised",
    bandwidth: Bandwidth = "median",
    regularization: float = 0.1,
) -> Tensor:
    """Joint loss of the alignment module, to be minimised (MARS, eq. 8).

    maximised (default): -L_align - entropy_weight * L_entropy
    printed: -L_align + entropy_weight * L_entropy

    Departure: with the score estimator of the cited works the printed sign minimises the entropy
    and pulls the embeddings together, while the paper's text asks for "sufficient dispersion"
    that prevents collapse. The default does what the text says.

    text, image: (N, D), row i of both the same item. Returns a scalar, for fewer than two pairs
    a zero that keeps the graph. Raises ValueError as alignment_loss and stein_score, or for an
    unknown sign.
    """
    align, entropy = stein_terms(text, image, bandwidth, regularization)
    return combine_terms(align, entropy, entropy_weight, entropy_sign)
