"""CTR models in plain torch: they take tensors and return logits."""

from recbole_mars.ctr.bst import BSTSettings, TransformerInterest
from recbole_mars.ctr.contrastive import ContrastiveObjective, ContrastiveSettings, info_nce
from recbole_mars.ctr.din import DIN, DINSettings, History
from recbole_mars.ctr.dmae import DMAE, DMAESettings
from recbole_mars.ctr.interest_units import GRUInterest, InterestNetwork, MeanInterest
from recbole_mars.ctr.layers import Dice, FieldEmbedding, TargetAttention, mlp
from recbole_mars.ctr.mixup import MixupObjective, MixupSettings
from recbole_mars.ctr.objectives import Objective, TrainingBatch
from recbole_mars.ctr.prediction import Prediction
from recbole_mars.ctr.similarities import Modality
from recbole_mars.ctr.simtier import SimTier, SimTierSettings

__all__ = [
    "DIN",
    "DMAE",
    "BSTSettings",
    "ContrastiveObjective",
    "ContrastiveSettings",
    "DINSettings",
    "DMAESettings",
    "Dice",
    "FieldEmbedding",
    "GRUInterest",
    "History",
    "InterestNetwork",
    "MeanInterest",
    "MixupObjective",
    "MixupSettings",
    "Modality",
    "Objective",
    "Prediction",
    "SimTier",
    "SimTierSettings",
    "TargetAttention",
    "TrainingBatch",
    "TransformerInterest",
    "info_nce",
    "mlp",
]
