"""How well predicted clicks rank and calibrate, for whom, and how sure one can be of it."""

from recbole_mars.evaluation.activity import GROUP_NAMES, HIGH, LOW, MID, activity_groups
from recbole_mars.evaluation.impressions import Impressions
from recbole_mars.evaluation.metrics import (
    UndefinedMetricError,
    UserAUCReport,
    auc,
    log_loss,
    rela_impr,
    user_auc,
    user_auc_report,
)
from recbole_mars.evaluation.significance import (
    PairedResult,
    Summary,
    bootstrap_interval,
    holm,
    paired_bootstrap,
    paired_t_test,
    summarise,
)

__all__ = [
    "GROUP_NAMES",
    "HIGH",
    "LOW",
    "MID",
    "Impressions",
    "PairedResult",
    "Summary",
    "UndefinedMetricError",
    "UserAUCReport",
    "activity_groups",
    "auc",
    "bootstrap_interval",
    "holm",
    "log_loss",
    "paired_bootstrap",
    "paired_t_test",
    "rela_impr",
    "summarise",
    "user_auc",
    "user_auc_report",
]
