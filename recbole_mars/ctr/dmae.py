"""Distribution-guided multimodal-interest auto-encoder (Zhang et al., DMAE).

Dimension letters: B batch, N behaviours of the batch, D width, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recbole_mars.ctr.din import DIN, DINSettings, History, extended
from recbole_mars.ctr.interest_decoding import DECODERS, InterestDecoder
from recbole_mars.ctr.interest_encoding import InterestEncoder
from recbole_mars.ctr.interest_fusion import CrossAttention, WindowAttention, mean_within
from recbole_mars.ctr.layers import VectorTable
from recbole_mars.ctr.prediction import Prediction
from recbole_mars.ctr.similarities import (
    SCALES,
    ItemSimilarities,
    Modality,
    Similarities,
    require_modalities,
)

__all__ = ["DMAE", "DMAESettings"]


@dataclass(frozen=True)
class DMAESettings:
    """width: D of interests. buckets: N_B of eq. 2. base: of eq. 3. ages: distinct positions.

    times, levels: l and n of the interest distribution. window: behaviours that one sees around it,
    half before and half after, `ages` at most each; None for n, as in the paper. mask: share that
    the decoder does not see. weight: lambda_dec of
    eq. 17. output: of the decoder, see InterestDecoder. scale: see ItemSimilarities.

    Ablations: blend (MIEU-se), use_time (MIEU-t: False takes time out of the distribution),
    use_fusion (MIFU), use_decoder (IDDU).

    Raises ValueError for a number out of range or an unknown choice.
    """

    width: int = 16
    buckets: int = 50
    base: float = 10.0
    ages: int = 200
    times: int = 10
    levels: int = 10
    window: int | None = None
    mask: float = 0.3
    weight: float = 0.5
    output: str = "softmax"
    scale: str = "cosine"
    blend: bool = True
    use_time: bool = True
    use_fusion: bool = True
    use_decoder: bool = True

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ValueError(f"width must be an even number >= 2, got {self.width}")
        for field, least in (("buckets", 2), ("ages", 1), ("times", 1), ("levels", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be >= {least}, got {getattr(self, field)}")
        if self.window is not None and self.window < 0:
            raise ValueError(f"window must be >= 0, got {self.window}")
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {self.scale!r}")
        if self.base <= 1:
            raise ValueError(f"base must be > 1, got {self.base}")
        if not 0 <= self.mask < 1:
            raise ValueError(f"mask must lie in [0, 1), got {self.mask}")
        if self.weight < 0:
            raise ValueError(f"weight must be >= 0, got {self.weight}")
        if self.output not in DECODERS:
            raise ValueError(f"output must be one of {', '.join(DECODERS)}, got {self.output!r}")


class _Interest(nn.Module):
    """What one modality has of its own: encoder, window, cross-attention and decoder."""

    window: WindowAttention | None
    cross: CrossAttention | None
    decoder: InterestDecoder | None

    def __init__(self, modality: Modality, s: DMAESettings) -> None:
        super().__init__()
        self.similarities = ItemSimilarities(modality, s.scale)
        self.encoder = InterestEncoder(s.width, s.buckets, s.ages, s.base, s.blend)
        self.window = self.cross = self.decoder = None
        if s.use_fusion:
            window = s.levels if s.window is None else s.window
            self.window = WindowAttention(s.width, min(window // 2, s.ages))
            self.cross = CrossAttention(s.width)
        if s.use_decoder:
            times = s.times if s.use_time else 1
            self.decoder = InterestDecoder(s.width, times, s.levels, s.mask, s.output)

    def encode(self, history: History, target_item: Tensor) -> _Encoded:
        found = self.similarities(history, target_item)
        vectors = self.encoder(found)
        if self.window is not None:
            vectors = self.window(vectors, found.sample_of)
        return _Encoded(found, vectors, mean_within(vectors, found.counts()))

    def fuse(self, encoded: _Encoded, context: Tensor) -> Tensor:
        if self.cross is None:
            return encoded.mean
        return self.cross(context, encoded.vectors, encoded.similarities.sample_of)


class _Encoded(NamedTuple):
    similarities: Similarities
    vectors: Tensor  # (N, D)
    mean: Tensor  # (B, D)


class DMAE(nn.Module):
    """A DIN whose final network also reads interests in the target, one vector a modality.

    Each is encoded from the similarities of behaviours and target, fused within its modality and
    with the others, and in training decoded to the distribution that it came from (eq. 1-17).

    With other than two modalities the context of eq. 8-9 is the mean over the others or, of a
    single one, its own. modalities: one or more. settings: of the DIN, whose context_width the
    interests come on top of. Raises ValueError without a modality.
    """

    def __init__(
        self,
        items: VectorTable,
        users: VectorTable | None,
        modalities: Sequence[Modality],
        settings: DINSettings,
        own: DMAESettings,
    ) -> None:
        super().__init__()
        require_modalities(modalities)
        self.own = own
        self.mark_borrowed = settings.mark_borrowed
        width = settings.context_width + len(modalities) * own.width
        self.din = DIN(items, users, replace(settings, context_width=width))
        self.interests = nn.ModuleDict({m.name: _Interest(m, own) for m in modalities})

    def forward(
        self,
        history: History,
        target_item: Tensor,
        user: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Prediction:
        """target_item, user: (B,) ids. context: (B, context_width), if that is not 0."""
        interests, loss = self.multimodal(history, target_item)
        context = extended(context, interests)
        logits = self.din.logits(*self.din.interest(history, target_item), user, context)
        return Prediction(logits, loss)

    def multimodal(self, history: History, target_item: Tensor) -> tuple[Tensor, Tensor | None]:
        """Interests of all modalities, (B, M · D), and in training the weighted decoding loss."""
        if not self.mark_borrowed:
            history = history._replace(borrowed=None)
        parts = [part for part in self.interests.values() if isinstance(part, _Interest)]
        encoded = [part.encode(history, target_item) for part in parts]
        means = [found.mean for found in encoded]
        fused = [
            part.fuse(found, _others(means, place))
            for place, (part, found) in enumerate(zip(parts, encoded))
        ]
        losses = [
            part.decoder(found.vectors, found.similarities)
            for part, found in zip(parts, encoded)
            if self.training and part.decoder is not None
        ]
        loss = self.own.weight * torch.stack(losses).sum() if losses else None
        return torch.cat(fused, dim=1), loss


def _others(means: list[Tensor], place: int) -> Tensor:
    others = means[:place] + means[place + 1 :] or means
    return torch.stack(others).mean(0)
