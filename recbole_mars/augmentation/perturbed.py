"""Histories perturbed in training by one operator each: CMR and CMRSI.

Dimension letters: B targets, L longest history in the batch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from recbole_mars.augmentation.base import Augmenter, keep_latest
from recbole_mars.augmentation.correlated import SimilarRows
from recbole_mars.augmentation.draws import substream
from recbole_mars.augmentation.operators import (
    Crop,
    Insert,
    Mask,
    OneOf,
    Operator,
    Reorder,
    Substitute,
    check_share,
)

__all__ = ["CMRSISettings", "CMRSettings", "PerturbedAugmenter", "cmr_operator", "cmrsi_operator"]

_STREAM = substream(0, 3)  # 0 to 2 are those of additions.py


@dataclass(frozen=True)
class CMRSettings:
    """Share of a history that crop keeps, mask hides and reorder shuffles (CL4SRec's eta, gamma and
    beta; the defaults are those of RecBole's implementation of it, the paper tunes them).

    Raises ValueError if crop is not in (0, 1], or another is not in [0, 1].
    """

    crop: float = 0.6
    mask: float = 0.3
    reorder: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must lie in (0, 1], got {self.crop}; 1 keeps everything")
        for name in ("mask", "reorder"):
            check_share(name, getattr(self, name))


@dataclass(frozen=True)
class CMRSISettings(CMRSettings):
    """With the share that is substituted, and before which something is inserted (CoSeRec's code).

    Raises ValueError for a share that is not in [0, 1].
    """

    substitute: float = 0.1
    insert: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("substitute", "insert"):
            check_share(name, getattr(self, name))


def cmr_operator(settings: CMRSettings) -> OneOf:
    """Crop, mask or reorder (CL4SRec, Xie et al., ICDE 2022)."""
    return OneOf([Crop(settings.crop), Mask(settings.mask), Reorder(settings.reorder)])


def cmrsi_operator(settings: CMRSISettings, similar: SimilarRows) -> OneOf:
    """Crop, mask, reorder, substitute or insert (CoSeRec, Liu et al., 2021)."""
    return OneOf(
        [
            Crop(settings.crop),
            Mask(settings.mask),
            Reorder(settings.reorder),
            Substitute(similar, settings.substitute),
            Insert(similar, settings.insert),
        ]
    )


class PerturbedAugmenter(Augmenter):
    """Histories in training as an operator changes them, drawn anew in each epoch.

    What the operator does to own behaviours is what happens to them: they may be left out, masked,
    in another order, replaced, or have others between them.
    """

    def __init__(self, operator: Operator, seed: int) -> None:
        self.operator, self.seed = operator, seed

    def augment(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        phase: str,
        epoch: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        if phase != "train":
            return keep_latest(histories, lengths, max_length)
        return self.operator.apply(rows, histories, lengths, max_length, self.seed, epoch, _STREAM)

    def fingerprint(self) -> str:
        words = f"perturbed {self.seed} {self.operator.fingerprint()}"
        return hashlib.sha256(words.encode()).hexdigest()
