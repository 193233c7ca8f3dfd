"""CTR models in plain torch: they take tensors and return logits."""

from recbole_mars.ctr.din import DIN, DINSettings
from recbole_mars.ctr.layers import Dice, FieldEmbedding, TargetAttention, mlp

__all__ = ["DIN", "DINSettings", "Dice", "FieldEmbedding", "TargetAttention", "mlp"]
