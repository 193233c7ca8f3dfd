"""The edge to RecBole: the only package that imports it."""

import warnings

with warnings.catch_warnings():  # RecBole imports ray, which tells users of its own pkg_resources
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    import ray  # noqa: F401

from recbole_mars.plugin.compat import check_versions

check_versions()

from recbole_mars.plugin.dataset import MultimodalDataset  # noqa: E402
from recbole_mars.plugin.metrics import UserAUC  # noqa: E402
from recbole_mars.plugin.models import (  # noqa: E402
    BST,
    DIMO,
    DMAE,
    LRD,
    MARS,
    AveragePooling,
    FRNet,
    GRU4RecCTR,
    MARSAlign,
    SimTier,
    UniSRec,
)
from recbole_mars.plugin.registry import register  # noqa: E402
from recbole_mars.plugin.trainer import MARSAlignTrainer, MARSTrainer  # noqa: E402

register()

__all__ = [
    "BST",
    "DIMO",
    "DMAE",
    "LRD",
    "MARS",
    "AveragePooling",
    "FRNet",
    "GRU4RecCTR",
    "MARSAlign",
    "MARSAlignTrainer",
    "MARSTrainer",
    "MultimodalDataset",
    "SimTier",
    "UniSRec",
    "UserAUC",
]
