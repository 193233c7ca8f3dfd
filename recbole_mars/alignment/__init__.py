"""Stage 1 of MARS: Stein alignment and fusion into item and user multimodal embeddings."""

from recbole_mars.alignment.encoders import ModalityProjection
from recbole_mars.alignment.export import AlignmentExport, export_embeddings
from recbole_mars.alignment.fusion import CollaborativeFusion, CrossModalFusion
from recbole_mars.alignment.kernels import median_bandwidth, rbf_kernel
from recbole_mars.alignment.network import AlignmentNetwork, AlignmentOutput
from recbole_mars.alignment.objective import alignment_loss, entropy_loss, stein_loss
from recbole_mars.alignment.pooling import pooled_user_embedding, running_user_embedding
from recbole_mars.alignment.settings import AlignmentSettings
from recbole_mars.alignment.stein import stein_score
from recbole_mars.alignment.training import TrainingHistory, TrainingSettings, train_alignment

__all__ = [
    "AlignmentExport",
    "AlignmentNetwork",
    "AlignmentOutput",
    "AlignmentSettings",
    "CollaborativeFusion",
    "CrossModalFusion",
    "ModalityProjection",
    "TrainingHistory",
    "TrainingSettings",
    "alignment_loss",
    "entropy_loss",
    "export_embeddings",
    "median_bandwidth",
    "pooled_user_embedding",
    "rbf_kernel",
    "running_user_embedding",
    "stein_loss",
    "stein_score",
    "train_alignment",
]
