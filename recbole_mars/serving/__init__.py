"""MARS in production: offline runner, online service and streaming training, without RecBole."""

from recbole_mars.serving.donors import Borrowed, Donors, Neighbour
from recbole_mars.serving.folders import DamagedFolder, read_manifest, whole_folder
from recbole_mars.serving.model_folder import (
    ModelSettings,
    RequestSettings,
    TrainedModel,
    describe_table,
    table_columns,
)
from recbole_mars.serving.scoring import Prepared, Request, Scorer
from recbole_mars.serving.snapshots import NoSnapshot, Snapshot, Snapshots
from recbole_mars.serving.tokens import TokenTable
from recbole_mars.serving.users import UserRecord
from recbole_mars.serving.world import KnownWorld

__all__ = [
    "Borrowed",
    "DamagedFolder",
    "Donors",
    "KnownWorld",
    "ModelSettings",
    "Neighbour",
    "NoSnapshot",
    "Prepared",
    "Request",
    "RequestSettings",
    "Scorer",
    "Snapshot",
    "Snapshots",
    "TokenTable",
    "TrainedModel",
    "UserRecord",
    "describe_table",
    "read_manifest",
    "table_columns",
    "whole_folder",
]
