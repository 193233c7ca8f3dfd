"""CTR models in plain torch: they take tensors and return logits."""

from recbole_mars.ctr.contrastive import ContrastiveObjective, ContrastiveSettings, info_nce
from recbole_mars.ctr.din import DIN, DINSettings, History
from recbole_mars.ctr.layers import Dice, FieldEmbedding, TargetAttention, mlp
from recbole_mars.ctr.mixup import MixupObjective, MixupSettings
from recbole_mars.ctr.objectives import Objective, TrainingBatch

__all__ = [
    "DIN",
    "ContrastiveObjective",
    "ContrastiveSettings",
    "DINSettings",
    "Dice",
    "FieldEmbedding",
    "History",
    "MixupObjective",
    "MixupSettings",
    "Objective",
    "TargetAttention",
    "TrainingBatch",
    "info_nce",
    "mlp",
]
