"""SimTier (Sheng et al., CIKM 2024): how alike target and behaviours are, as a histogram.

Dimension letters: B batch, M modalities, N tiers, C kinds of behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recbole_mars.ctr.din import DIN, DINSettings, History, extended
from recbole_mars.ctr.layers import VectorTable
from recbole_mars.ctr.prediction import Prediction
from recbole_mars.ctr.similarities import SCALES, ItemSimilarities, Modality, require_modalities

__all__ = ["SimTier", "SimTierSettings"]


@dataclass(frozen=True)
class SimTierSettings:
    """tiers: N, of equal width. scale: see ItemSimilarities.

    Raises ValueError for a number out of range or an unknown scale.
    """

    tiers: int = 20
    scale: str = "cosine"

    def __post_init__(self) -> None:
        if self.tiers < 1:
            raise ValueError(f"tiers must be >= 1, got {self.tiers}")
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {self.scale!r}")


class SimTier(nn.Module):
    """A DIN whose final network also reads log(1 + number of behaviours) in each tier.

    The similarity of a behaviour and the target is cut into tiers of equal width, and the numbers
    in them are a vector of the user's interest in the target, one a modality.

    The paper has one modality, of images and texts aligned by its own pretraining, which is left
    out here, as is MAKE, its second use of the vectors. It reads the numbers themselves; their
    logarithm, as in later public code, suits histories of 1 to 200 behaviours, and so do that
    code's 20 tiers (the paper's number could not be verified). With history_labels liked and
    disliked behaviours have a histogram each, with mark_borrowed own and borrowed ones.

    modalities: one or more. settings: of the DIN, whose context_width the histograms come on top
    of. Raises ValueError without a modality.
    """

    def __init__(
        self,
        items: VectorTable,
        users: VectorTable | None,
        modalities: Sequence[Modality],
        settings: DINSettings,
        own: SimTierSettings,
    ) -> None:
        super().__init__()
        require_modalities(modalities)
        self.tiers = own.tiers
        self.labels, self.marks = settings.history_labels, settings.mark_borrowed
        self.kinds = (1 + self.labels) * (1 + self.marks)
        width = settings.context_width + len(modalities) * self.kinds * own.tiers
        self.din = DIN(items, users, replace(settings, context_width=width))
        self.similarities = nn.ModuleDict(
            {m.name: ItemSimilarities(m, own.scale) for m in modalities}
        )

    def forward(
        self,
        history: History,
        target_item: Tensor,
        user: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Prediction:
        """target_item, user: (B,) ids. context: (B, context_width), if that is not 0."""
        tiers = (1 + self.histograms(history, target_item)).log()
        context = extended(context, tiers)
        return Prediction(self.din.logits(*self.din.interest(history, target_item), user, context))

    def histograms(self, history: History, target_item: Tensor) -> Tensor:
        """Behaviours in each tier, (B, M · C · N): by modality, then kind, the lowest tier first.

        Kinds are label + 2 · (whether borrowed), of those that are told apart.
        """
        history = history._replace(
            labels=history.labels if self.labels else None,
            borrowed=history.borrowed if self.marks else None,
        )
        counts = []
        for similarities in self.similarities.values():
            found = similarities(history, target_item)
            kind = found.case if self.labels else found.case // 2
            cell = (found.sample_of * self.kinds + kind) * self.tiers + found.levels(self.tiers)
            cells = torch.bincount(cell, minlength=found.size * self.kinds * self.tiers)
            counts.append(cells.view(found.size, -1).to(found.values.dtype))
        return torch.cat(counts, dim=1)
