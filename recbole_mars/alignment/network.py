"""The alignment network: content and behaviour to multimodal embeddings and a score.

Dimension letters: B batch, L length, N distinct items of a batch, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_mars.alignment.attention import CrossAttention, check_padding, place
from recbole_mars.alignment.encoders import ItemModality
from recbole_mars.alignment.fusion import CollaborativeFusion, CrossModalFusion
from recbole_mars.alignment.objective import combine_terms, stein_terms
from recbole_mars.alignment.pooling import running_user_embedding
from recbole_mars.alignment.settings import AlignmentSettings

__all__ = ["AlignmentNetwork", "AlignmentOutput"]


class AlignmentOutput(NamedTuple):
    """What the network says of every position of a batch; padded positions mean nothing.

    logits: (B, L), the score S of eq. 12 before the sigmoid.
    item_embeddings: (B, L, D), emb_item^mm of eq. 11.
    user_embeddings: (B, L, D), emb_user^mm of eq. 13 over the positions before.
    """

    logits: Tensor
    item_embeddings: Tensor
    user_embeddings: Tensor


class _Content(NamedTuple):
    """The distinct items of a batch, each projected once, and where they stand."""

    items: Tensor  # (N,)
    positions: Tensor  # (B, L) rows of items
    modalities: list[Tensor]  # each (N, D), the image before the text


class AlignmentNetwork(nn.Module):
    """Stage 1 of MARS: modalities aligned, fused, and led by collaborative signals (eq. 3 to 14).

    With causal attention position t knows the content of the items up to t and the behaviours
    (ids, and with history_labels their labels) strictly before t. So no future leaks, all
    targets of a user are trained in one pass, and the state before a behaviour does not depend
    on that behaviour: forward on a prefix gives what forward on the whole gives there.

    With one modality switched off the other has nothing to attend to, and eq. 9 and 10 reduce to
    emb_fused = LayerNorm(emb).

    settings: AlignmentSettings. n_items: item ids, padding included. text, image: (n_items, Dt)
    and (n_items, Di) frozen features by item id, with (n_items,) bool telling who has any; see
    ItemModality. Those of a modality that is switched off are not used and may be None. Raises
    ValueError if features are missing or malformed.
    """

    paired: Tensor  # (I,) bool, items that have both modalities; none with one switched off

    def __init__(
        self,
        settings: AlignmentSettings,
        n_items: int,
        text: np.ndarray | Tensor | None,
        text_present: np.ndarray | Tensor | None,
        image: np.ndarray | Tensor | None,
        image_present: np.ndarray | Tensor | None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.n_items = n_items
        width, id_width = settings.width, settings.id_width

        self.modalities = nn.ModuleDict()
        paired = torch.ones(n_items, dtype=torch.bool)
        for name, used, features, present in (
            ("image", settings.use_image, image, image_present),
            ("text", settings.use_text, text, text_present),
        ):
            if not used:
                continue
            if features is None or present is None:
                raise ValueError(
                    f"use_{name} needs {name} and {name}_present; give both or switch it off"
                )
            modality = ItemModality(name, features, present, n_items, width)
            self.modalities[name] = modality
            paired &= modality.present
        both = len(self.modalities) == 2
        self.register_buffer("paired", paired & both, persistent=False)
        self.content_fusion = CrossModalFusion(width) if both else nn.LayerNorm(width)
        self.id_embedding = _unit_rows(nn.Embedding(n_items, id_width, padding_idx=0))
        labels = _unit_rows(nn.Embedding(2, id_width)) if settings.history_labels else None
        self.label_embedding = labels
        self.id_attention = CrossAttention(id_width, id_width, id_width)
        self.fusion = CollaborativeFusion(width, id_width, settings.residual)
        self.ffn = nn.Sequential(
            nn.Linear(width, settings.ffn_width),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.ffn_width, 1),
        )

    def forward(
        self, items: Tensor, mask: Tensor, labels: Tensor | None, hidden: Tensor | None = None
    ) -> AlignmentOutput:
        """Embed and score every position of a batch of behaviour sequences.

        items: (B, L) int64 ids, oldest first. mask: (B, L) bool, True = real, padded on the
        right. labels: (B, L), read only with history_labels, and then needed; that of a position
        reaches later positions only, so any value will do where it is not known yet. hidden:
        (B, L) bool, sampled negatives: targets that are in nobody's history. Raises ValueError
        if a mask has padding elsewhere.
        """
        embeddings = self.embed(items, mask, labels, hidden)
        users = running_user_embedding(embeddings, mask if hidden is None else mask & ~hidden)
        return AlignmentOutput(self._score(embeddings), embeddings, users)

    def embed(
        self, items: Tensor, mask: Tensor, labels: Tensor | None, hidden: Tensor | None = None
    ) -> Tensor:
        """emb_item^mm of every position (MARS, eq. 11), (B, L, D); arguments as forward."""
        return self._embed(self._content(items), items, mask, labels, hidden)

    def stein(self, items: Tensor) -> Tensor:
        """L_stein over the distinct items that have both modalities (MARS, eq. 8).

        items: ids of any shape; padding is left out. Returns a scalar, zero if use_stein or a
        modality is off and where fewer than two items remain.
        """
        align, entropy = self._stein_terms(self._content(items))
        return self._combine(align, entropy)

    def loss(
        self,
        items: Tensor,
        mask: Tensor,
        labels: Tensor,
        targets: Tensor,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss over the counted targets (MARS, eq. 14).

        L_total = L_CTR + stein_weight * L_stein, L_CTR the mean binary cross-entropy

        items, mask, labels, hidden: (B, L). targets: (B, L) bool, the positions that count, at
        least one. Returns L_total and its detached parts "ctr", "align" (eq. 6), "entropy" (eq. 7).
        Under torch.autocast only the network is in half precision, not the losses.
        """
        content = self._content(items.masked_fill(~mask, 0))
        logits = self._score(self._embed(content, items, mask, labels, hidden)[targets])
        logits = logits.to(self.id_embedding.weight.dtype)
        ctr = F.binary_cross_entropy_with_logits(logits, labels[targets].to(logits.dtype))
        align, entropy = self._stein_terms(content)
        total = ctr + self.settings.stein_weight * self._combine(align, entropy)
        parts = {"ctr": ctr, "align": align, "entropy": entropy}
        return total, {name: part.detach() for name, part in parts.items()}

    def _content(self, items: Tensor) -> _Content:
        distinct, positions = torch.unique(items, return_inverse=True)
        return _Content(distinct, positions, [each(distinct) for each in self.modalities.values()])

    def _score(self, embeddings: Tensor) -> Tensor:
        """The logits of some embeddings (MARS, eq. 12). (..., D) to (...)."""
        return self.ffn(embeddings).squeeze(-1)

    def _embed(
        self,
        content: _Content,
        items: Tensor,
        mask: Tensor,
        labels: Tensor | None,
        hidden: Tensor | None,
    ) -> Tensor:
        check_padding(mask)
        causal = self.settings.attention == "causal"
        up_to, before = ("inclusive", "exclusive") if causal else ("full", "full")
        behaviours, positions = self._behaviours(content, items, labels)
        ids = self.id_attention(behaviours, behaviours, mask, up_to, positions, hidden)
        return self.fusion(self._fuse(content, mask, up_to, hidden), ids, mask, before, hidden)

    def _fuse(self, content: _Content, mask: Tensor, rule: str, hidden: Tensor | None) -> Tensor:
        """emb_fused of every position (eq. 9 and 10), (B, L, D)."""
        if len(content.modalities) == 2:
            image, text = content.modalities
            return self.content_fusion(image, text, mask, rule, content.positions, hidden)
        return place(self.content_fusion(*content.modalities), content.positions)

    def _behaviours(
        self, content: _Content, items: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The distinct behaviours, an item or an item with its label, and where they stand."""
        if self.label_embedding is None:
            return self.id_embedding(content.items), content.positions
        if labels is None:
            raise ValueError("history_labels needs labels (B, L), got None")
        distinct, positions = torch.unique(2 * items + (labels > 0), return_inverse=True)
        embedded = self.id_embedding(torch.div(distinct, 2, rounding_mode="floor"))
        return embedded + self.label_embedding(distinct % 2), positions

    def _stein_terms(self, content: _Content) -> tuple[Tensor, Tensor]:
        """L_align and L_entropy (eq. 6 and 7) over a batch's items; zeros where they are off."""
        settings = self.settings
        if not settings.use_stein or len(content.modalities) < 2:
            none = self.id_embedding.weight.new_zeros(())
            return none, none
        paired = self.paired[content.items].nonzero().squeeze(-1)
        if len(paired) > settings.stein_items:
            drawn = torch.randperm(len(paired))[: settings.stein_items]
            paired = paired[drawn.to(paired.device)]
        # Half precision is too coarse to tell near items apart, or to solve for a score.
        exact = self.id_embedding.weight.dtype
        image, text = (each[paired].to(exact) for each in content.modalities)
        with torch.autocast(paired.device.type, enabled=False):
            return stein_terms(text, image, settings.bandwidth, settings.regularization)

    def _combine(self, align: Tensor, entropy: Tensor) -> Tensor:
        return combine_terms(
            align, entropy, self.settings.entropy_weight, self.settings.entropy_sign
        )


def _unit_rows(embedding: nn.Embedding) -> nn.Embedding:
    """Start with rows of length near 1: the usual sqrt(width) drowns the content."""
    with torch.no_grad():
        embedding.weight.div_(embedding.embedding_dim**0.5)
    return embedding
