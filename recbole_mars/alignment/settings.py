"""What can be chosen in the alignment network."""

from __future__ import annotations

from dataclasses import dataclass

from recbole_mars.alignment.kernels import Bandwidth, check_bandwidth
from recbole_mars.alignment.objective import ENTROPY_SIGNS

__all__ = ["AlignmentSettings"]


@dataclass(frozen=True)
class AlignmentSettings:
    """Settings of the alignment network, checked when made; the defaults are the paper's.

    id_width: width of the item id embeddings, and of emb_id.
    width: fusion width d_h, that of every multimodal embedding.
    ffn_width: hidden width of the feed-forward network of eq. 12.
    attention: "causal", a position sees content up to itself and behaviours before itself, or
        "full", every position sees all, as eq. 4 is printed (then the score of a position knows
        what came later, the position itself included).
    residual: see CollaborativeFusion.
    use_text, use_image: which modalities are fused; at least one.
    use_stein: whether L_stein is part of the loss; it needs both modalities.
    history_labels: whether the embedding of a past behaviour tells its label.
    entropy_weight: lambda of eq. 8. stein_weight: beta of eq. 14.
    entropy_sign: "maximised" or "printed", see stein_loss.
    bandwidth: of the kernels, "median" or a number. regularization: eta of stein_score.
    stein_items: most items of a batch in L_stein, whose cost grows with their cube; where a
        batch holds more, they are drawn from torch's default generator, as dropout is.
    dropout: in the feed-forward network.

    Raises ValueError for a value out of range, and for history_labels with full attention, which
    would show every label to the position that has to predict it.
    """

    id_width: int = 128
    width: int = 256
    ffn_width: int = 128
    attention: str = "causal"
    residual: bool = True
    use_text: bool = True
    use_image: bool = True
    use_stein: bool = True
    history_labels: bool = False
    entropy_weight: float = 0.01
    stein_weight: float = 0.1
    entropy_sign: str = "maximised"
    bandwidth: Bandwidth = "median"
    regularization: float = 0.1
    stein_items: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("id_width", 1), ("width", 1), ("ffn_width", 1), ("stein_items", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        for name in ("entropy_weight", "stein_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.attention not in ("causal", "full"):
            raise ValueError(f"attention must be 'causal' or 'full', got {self.attention!r}")
        if self.entropy_sign not in ENTROPY_SIGNS:
            raise ValueError(
                f"entropy_sign must be one of {ENTROPY_SIGNS}, got {self.entropy_sign!r}"
            )
        if self.bandwidth != "median":
            check_bandwidth(self.bandwidth)
        if not self.regularization > 0:
            raise ValueError(f"regularization must be > 0, got {self.regularization}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if not (self.use_text or self.use_image):
            raise ValueError("use_text and use_image are both off; at least one is needed")
        if self.history_labels and self.attention == "full":
            raise ValueError(
                "history_labels with attention='full' shows every label to the position that "
                "predicts it; use attention='causal'"
            )
