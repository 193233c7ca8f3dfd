"""Our metrics as RecBole's: AUC within users or requests, by activity group and of cold items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from logging import getLogger
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector, register
from recbole.evaluator.base_metric import LossMetric
from recbole.utils import FeatureType

from recbole_mars.data import InteractionLog
from recbole_mars.evaluation import (
    UndefinedMetricError,
    activity_groups,
    auc,
    log_loss,
    user_auc_report,
)
from recbole_mars.plugin.distributed import gather_rows

__all__ = [
    "MarsCollector",
    "RequestAUC",
    "UserAUC",
    "cold_items",
    "register_metrics",
    "request_field",
    "user_groups",
]

_USER, _ACTIVITY = "data.user_id", "data.activity"
_REQUEST, _COLD = "data.request", "data.cold"
# What a collector holds a row of for each one evaluated.
_COLD_BELOW = 5  # interactions; where a built-in model's run does not name it
_ROWS = ("rec.score", "data.label", _USER, _REQUEST, _COLD, "rec.items", "rec.topk", "rec.meanrank")


def user_groups(log: InteractionLog, config: Config) -> np.ndarray:
    """Activity group of every internal user id, (n_users,) int8; -1 for ids without behaviours."""
    users = np.unique(log.users)
    groups = np.full(log.n_users, -1, dtype=np.int8)
    groups[users] = activity_groups(log.training_counts(), users, **_shares(config))
    return groups


def _shares(config: Config) -> dict[str, float]:
    """The configured shares, absent where a built-in model's run does not name them."""
    names = {"low_share": "mars_low_share", "high_share": "mars_high_share"}
    return {name: config[key] for name, key in names.items() if config[key] is not None}


def cold_items(log: InteractionLog, config: Config) -> np.ndarray:
    """Items with fewer than cold_item_interactions in training, (n_items,) bool."""
    counts = np.bincount(log.items[log.training_behaviours()], minlength=log.n_items)
    least = config["cold_item_interactions"]
    least = _COLD_BELOW if least is None else least
    if least < 0:
        raise ValueError(f"cold_item_interactions must be >= 0, got {least}")
    return counts < least


def request_field(config: Config, dataset: Any) -> str:
    """The column of the interactions that request_field names.

    Raises ValueError if it is no column of tokens, or none is named.
    """
    name = config["request_field"]
    if dataset.field2type.get(name) != FeatureType.TOKEN or name not in dataset.inter_feat:
        raise ValueError(
            f"request_field must name a token column of the interactions, got {name!r}, of "
            f"{list(dataset.inter_feat)}; is it in load_col?"
        )
    return str(name)


class _WithinAUC(LossMetric):
    """AUC within each of some groups of impressions, averaged by their sizes."""

    of = ""

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        scores, labels = self.used_info(dataobject)
        try:
            value = user_auc_report(dataobject.get(self.of).numpy(), labels, scores).value
        except UndefinedMetricError as error:
            getLogger().warning(f"{type(self).__name__} is undefined here: {error}")
            value = float("nan")
        return {type(self).__name__.lower(): round(value, self.decimal_place)}


class UserAUC(_WithinAUC):
    """AUC within each user, averaged by impressions (MARS, eq. 19), named userauc.

    Users whose impressions are all of one class are left out; if no user is left, as under
    leave-one-out, the value is nan and the log says so.
    """

    metric_need = ["rec.score", "data.label", _USER]  # noqa: RUF012 - RecBole's convention
    of = _USER


class RequestAUC(_WithinAUC):
    """AUC within each request, averaged by impressions, named requestauc (DMAE's GAUC_pv).

    request_field names the column that tells requests apart. Requests of one class are left out.
    """

    metric_need = ["rec.score", "data.label", _REQUEST]  # noqa: RUF012
    of = _REQUEST


class _PartMetric(LossMetric, ABC):
    """A metric over some of the impressions; nan if it is undefined there."""

    key = ""

    @abstractmethod
    def rows(self, dataobject: Any) -> np.ndarray:
        """Which impressions count, (N,) bool."""

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        scores, labels = self.used_info(dataobject)
        mine = self.rows(dataobject)
        try:
            value = self.metric_info(scores[mine], labels[mine]) if mine.any() else float("nan")
        except UndefinedMetricError:  # one class only
            value = float("nan")
        return {self.key: round(value, self.decimal_place)}


class AUCCold(_PartMetric):
    """AUC over the impressions of items hardly met in training, named auccold; see cold_items."""

    metric_need = ["rec.score", "data.label", _COLD]  # noqa: RUF012
    key = "auccold"

    def rows(self, dataobject: Any) -> np.ndarray:
        return dataobject.get(_COLD).numpy().astype(bool)

    def metric_info(self, preds: np.ndarray, trues: np.ndarray) -> float:
        return auc(trues, preds)


class _GroupMetric(_PartMetric):
    """A metric over the impressions of one activity group."""

    metric_need = ["rec.score", "data.label", _USER, _ACTIVITY]  # noqa: RUF012
    group = 0

    def rows(self, dataobject: Any) -> np.ndarray:
        groups = dataobject.get(_ACTIVITY).numpy()[dataobject.get(_USER).numpy()]
        return groups == self.group


class _GroupAUC(_GroupMetric):
    def metric_info(self, preds: np.ndarray, trues: np.ndarray) -> float:
        return auc(trues, preds)


class _GroupLogLoss(_GroupMetric):
    smaller = True

    def metric_info(self, preds: np.ndarray, trues: np.ndarray) -> float:
        return log_loss(trues, preds)


class MarsCollector(Collector):
    """RecBole's collector, which also hands the metrics the users and their activity groups.

    Metrics get the rows of all processes, and so are those of the whole data.
    """

    def data_collect(self, train_data: Any) -> None:
        super().data_collect(train_data)
        self.learn_activity(train_data.dataset)

    def learn_activity(self, dataset: Any) -> None:
        """Group the users of a training set (or of any split of ours) by their activity.

        And learn from it which items are cold, and what tells requests apart.
        """
        if self.register.need(_REQUEST):
            self._request_field = request_field(self.config, dataset)
        if self.register.need(_COLD):
            if not hasattr(dataset, "log"):
                raise ValueError(
                    "AUCCold needs a data set of ours, which RecBole's models get that read "
                    "histories or contexts; set augmentation: none"
                )
            self._cold = torch.from_numpy(cold_items(dataset.log, self.config))
        if not self.register.need(_ACTIVITY):
            return
        if hasattr(dataset, "log"):
            groups = user_groups(dataset.log, self.config)
        else:
            users = dataset.inter_feat[dataset.uid_field].numpy()
            counts = np.bincount(users, minlength=dataset.user_num)
            groups = activity_groups(counts, **_shares(self.config))
        self.data_struct.set(_ACTIVITY, torch.from_numpy(groups.astype(np.int64)))

    def eval_batch_collect(
        self,
        scores_tensor: torch.Tensor,
        interaction: Interaction,
        positive_u: torch.Tensor,
        positive_i: torch.Tensor,
    ) -> None:
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        if self.register.need(_USER):
            self.data_struct.update_tensor(_USER, interaction[self.config["USER_ID_FIELD"]])
        if self.register.need(_REQUEST):
            self.data_struct.update_tensor(_REQUEST, interaction[self._request_field])
        if self.register.need(_COLD):
            items = interaction[self.config["ITEM_ID_FIELD"]].cpu()
            self.data_struct.update_tensor(_COLD, self._cold[items].long())

    def get_data_struct(self) -> Any:
        if self.register.need(_ACTIVITY) and _ACTIVITY not in self.data_struct:
            raise ValueError(
                "activity groups come from the training data: call fit() first, or "
                "trainer.eval_collector.data_collect(train_data)"
            )
        if not self.config["single_spec"]:
            gather_rows(self.data_struct, _ROWS)
        struct = super().get_data_struct()
        for name in (_USER, _REQUEST, _COLD):
            if name in self.data_struct:
                del self.data_struct[name]
        return struct


def _group_metrics() -> dict[str, type[LossMetric]]:
    metrics: dict[str, type[LossMetric]] = {}
    for group, name in enumerate(("Low", "Mid", "High")):
        for prefix, key, base in (("AUC", "auc", _GroupAUC), ("LogLoss", "logloss", _GroupLogLoss)):
            attributes = {
                "group": group,
                "key": f"{key}{name.lower()}",
                "__doc__": f"{prefix} over {name.lower()}-active users.",
                "__module__": __name__,
            }
            metrics[f"{prefix}{name}"] = type(f"{prefix}{name}", (base,), attributes)
    return metrics


def register_metrics() -> None:
    """Add our metrics to RecBole's tables, and the collector that feeds them to its trainer."""
    ours: dict[str, Any] = {
        **{"UserAUC": UserAUC, "RequestAUC": RequestAUC, "AUCCold": AUCCold},
        **_group_metrics(),
    }
    for name, metric in ours.items():
        lower = name.lower()
        register.metrics_dict[lower] = metric
        register.metric_information[lower] = metric.metric_need
        register.metric_types[lower] = metric.metric_type
        if metric.smaller and lower not in register.smaller_metrics:
            register.smaller_metrics.append(lower)
    import recbole.trainer.trainer as trainer_module

    trainer_module.Collector = MarsCollector
