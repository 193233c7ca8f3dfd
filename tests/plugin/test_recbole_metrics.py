"""Our metrics as RecBole calls them, against plain values."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.register import metrics_dict, smaller_metrics
from recbole.quick_start import run_recbole

from recbole_mars.evaluation import auc, log_loss, user_auc
from recbole_mars.plugin.metrics import MarsCollector

CONFIG = {"metric_decimal_place": 12}
USERS = np.array([1, 1, 2, 2, 3, 3, 3, 1])
LABELS = np.array([1, 0, 0, 1, 1, 1, 0, 0], dtype=np.float32)
SCORES = np.array([0.9, 0.2, 0.6, 0.4, 0.3, 0.7, 0.5, 0.95])
REQUESTS = np.array([7, 7, 7, 8, 8, 9, 9, 9])
COLD = np.array([1, 1, 0, 0, 1, 1, 0, 0])
GROUPS = np.array([-1, 0, 1, 2])  # of users 0 to 3


def calculate(name, users=USERS, labels=LABELS, scores=SCORES, groups=GROUPS):
    data = DataStruct()
    columns = {
        "rec.score": scores,
        "data.label": labels,
        "data.user_id": users,
        "data.activity": groups,
        "data.request": REQUESTS,
        "data.cold": COLD,
    }
    for key, column in columns.items():
        data.set(key, torch.from_numpy(column))
    (value,) = metrics_dict[name.lower()](CONFIG).calculate_metric(data).items()
    assert value[0] == name.lower()
    return value[1]


def test_user_auc():
    assert calculate("UserAUC") == pytest.approx(user_auc(USERS, LABELS, SCORES))


def test_request_auc_ranks_within_requests():
    # 7: 0.9 above 0.2 and 0.6. 8: both are clicks. 9: 0.7 above 0.5, below 0.95.
    assert calculate("RequestAUC") == pytest.approx((3 * 1 + 3 * 0.5) / 6)


def test_cold_items_alone():
    # Clicks at 0.9, 0.3, 0.7, the other at 0.2.
    assert calculate("AUCCold") == 1.0


@pytest.mark.parametrize(("group", "name"), [(0, "Low"), (1, "Mid"), (2, "High")])
def test_groups_take_their_own_impressions(group, name):
    mine = GROUPS[USERS] == group
    assert calculate(f"AUC{name}") == pytest.approx(auc(LABELS[mine], SCORES[mine]))
    assert calculate(f"LogLoss{name}") == pytest.approx(log_loss(LABELS[mine], SCORES[mine]))
    assert "loglosslow" in smaller_metrics


def test_what_is_undefined_is_nan():
    ones = np.ones_like(LABELS)
    assert math.isnan(calculate("UserAUC", labels=ones))
    assert math.isnan(calculate("AUCLow", labels=ones))
    nobody = np.array([-1, 1, 1, 1])
    assert math.isnan(calculate("AUCLow", groups=nobody))
    assert math.isnan(calculate("LogLossLow", groups=nobody))
    assert not math.isnan(calculate("LogLossLow", labels=ones))


@pytest.mark.parametrize("name", ["UserAUC", "AUCLow", "LogLossLow"])
def test_what_is_broken_is_an_error(name):
    with pytest.raises(ValueError, match=r"NaN|nan"):
        calculate(name, scores=np.full_like(SCORES, np.nan))


@pytest.mark.parametrize(("share", "low"), [(None, [1, 2, 3]), (0.5, [1, 2, 3, 4, 5])])
def test_models_on_recbole_data_get_the_configured_shares(share, low):
    """Ten users with 1 to 10 training behaviours."""
    users = torch.from_numpy(np.repeat(np.arange(1, 11), np.arange(1, 11)))
    dataset = SimpleNamespace(inter_feat={"user_id": users}, uid_field="user_id", user_num=11)
    collector = MarsCollector.__new__(MarsCollector)
    collector.config = {"mars_low_share": share, "mars_high_share": None}
    collector.data_struct = DataStruct()
    collector.register = SimpleNamespace(need=lambda key: key == "data.activity")
    collector.learn_activity(dataset)
    assert np.flatnonzero(collector.data_struct.get("data.activity").numpy() == 0).tolist() == low


def test_requests_and_cold_items_through_recbole(tiny):
    """Users as requests: RequestAUC is UserAUC. With a bar above all counts every item is cold."""
    settings = {
        **tiny,
        "augmentation": "none",
        "epochs": 1,
        "eval_args": {"split": {"RS": [6, 2, 2]}, "group_by": "user", "order": "TO"},
        "metrics": ["AUC", "UserAUC", "RequestAUC", "AUCCold"],
        "request_field": "user_id",
        "cold_item_interactions": 10_000,
    }
    found = run_recbole("MARS", "world", config_dict=settings)["test_result"]
    assert found["requestauc"] == found["userauc"] > 0
    assert found["auccold"] == found["auc"]
    warm = {**settings, "cold_item_interactions": 0, "request_field": "rating"}
    with pytest.raises(ValueError, match="request_field must name a token column"):
        run_recbole("MARS", "world", config_dict=warm)
    warm["metrics"] = ["AUC", "AUCCold"]
    found = run_recbole("MARS", "world", config_dict=warm)["test_result"]
    assert math.isnan(found["auccold"])
