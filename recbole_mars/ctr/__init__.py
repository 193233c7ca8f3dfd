"""CTR models in plain torch: they take tensors and return logits."""

from recbole_mars.ctr.bst import BSTSettings, TransformerInterest
from recbole_mars.ctr.companions import Companions, find_companions
from recbole_mars.ctr.contrastive import ContrastiveObjective, ContrastiveSettings, info_nce
from recbole_mars.ctr.dimo import DIMO, DIMOSettings
from recbole_mars.ctr.din import DIN, DINSettings, History
from recbole_mars.ctr.dmae import DMAE, DMAESettings
from recbole_mars.ctr.frnet import FRNet, FRNetSettings
from recbole_mars.ctr.frozen_rows import STORAGES
from recbole_mars.ctr.interest_units import GRUInterest, InterestNetwork, MeanInterest
from recbole_mars.ctr.layers import Dice, FieldEmbedding, TargetAttention, mlp
from recbole_mars.ctr.lrd import LRD, LRDSettings
from recbole_mars.ctr.mixup import MixupObjective, MixupSettings
from recbole_mars.ctr.networks import NETWORKS, build_network, score_candidates, score_targets
from recbole_mars.ctr.objectives import Objective, TrainingBatch
from recbole_mars.ctr.prediction import Prediction
from recbole_mars.ctr.similarities import Modality
from recbole_mars.ctr.simtier import SimTier, SimTierSettings
from recbole_mars.ctr.unisrec import UniSRec, UniSRecSettings

__all__ = [
    "DIMO",
    "DIN",
    "DMAE",
    "LRD",
    "NETWORKS",
    "STORAGES",
    "BSTSettings",
    "Companions",
    "ContrastiveObjective",
    "ContrastiveSettings",
    "DIMOSettings",
    "DINSettings",
    "DMAESettings",
    "Dice",
    "FRNet",
    "FRNetSettings",
    "FieldEmbedding",
    "GRUInterest",
    "History",
    "InterestNetwork",
    "LRDSettings",
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
    "UniSRec",
    "UniSRecSettings",
    "build_network",
    "find_companions",
    "info_nce",
    "mlp",
    "score_candidates",
    "score_targets",
]
