"""What a run needs of its rows and their labels, said before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset

from recbole_mars.data import TEST, TRAIN, VALID
from recbole_mars.plugin.config import FEATURE_MODELS, needs_stage_one
from recbole_mars.plugin.histories import PHASE_NAMES, Histories
from recbole_mars.plugin.log_rows import ROW_FIELD

__all__ = ["LabelChecks"]

_NAMES = {VALID: "validation", TEST: "test"}


class LabelChecks(Dataset):
    """Both classes where they are observed, and nothing that needs them where they are not."""

    histories: Histories
    lean: bool

    def _check_labels(self, splits: Sequence[Any]) -> None:
        """Raise ValueError unless training has both classes, where they are observed, and what
        is held out can give the metrics.

        A test set of one class goes on: what is undefined on it is nan, and the log says so.
        """
        if self.config["mars_agreement"]:
            self._refuse_sampling()
        self._check_training()
        for phase, split in enumerate(splits):
            if phase != TRAIN:
                self._check_rows(
                    phase, self.histories.log.labels[split.inter_feat[ROW_FIELD].numpy()]
                )

    def _check_training(self) -> None:
        """Both classes must be observed by our models, and by stage 1 for any model."""
        sampled = self.config["train_neg_sample_args"]["distribution"] != "none"
        aligned, log = self._trains_stage_one(), self.histories.log
        if not aligned and (sampled or not self.lean):
            return
        labels = np.unique(log.labels[log.phases == TRAIN])
        if len(labels) < 2:
            remedy = "" if aligned else ", or sample negatives with train_neg_sample_args"
            raise ValueError(
                f"training labels must be of both classes, got only {labels.tolist()}; set "
                f"threshold (now {self.config['threshold']}) so that some are 0 and some 1{remedy}"
            )

    def _check_rows(self, phase: int, labels: np.ndarray) -> None:
        """Of the validation or test set; RecBole's metrics take no single row with a label."""
        name, metric = _NAMES[phase], self.config["valid_metric"]
        asked = self.config["eval_args"]
        remedy = (
            f"change eval_args (now split {asked['split']}, group_by {asked['group_by']}) or use "
            "more data"
        )
        observed = self.config[f"{PHASE_NAMES[phase]}_neg_sample_args"]["distribution"] == "none"
        least, words = (2, "two rows or more") if observed else (1, "a row")
        if len(labels) < least and _is_asked_for(phase, asked["split"]):
            raise ValueError(f"the {name} set must have {words}, got {len(labels)}; {remedy}")
        found = np.unique(labels)
        if phase == VALID and observed and len(found) == 1 and "auc" in str(metric).lower():
            raise ValueError(
                f"the validation set must hold labels of both classes for valid_metric {metric}, "
                f"got {len(labels)} rows of label {found[0]:g}; {remedy}, or set valid_metric: "
                "LogLoss"
            )

    def _refuse_sampling(self) -> None:
        if self.histories.log.drawn is not None:
            if self.config["opinion_field"] is not None:
                raise ValueError(
                    "with fixed_negatives agreement is of clicks, which hold no opinions, and "
                    f"opinion_field is {self.config['opinion_field']!r}; set it to ~"
                )
            return
        for phase in PHASE_NAMES.values():
            key = f"{phase}_neg_sample_args"
            if self.config[key]["distribution"] != "none":
                raise ValueError(
                    f"mars_agreement needs observed labels, and {key} samples negatives, of which "
                    "nothing is known; set train_neg_sample_args: ~ and eval_args' mode: labeled, "
                    "and fixed_negatives for data of clicks only"
                )

    def _trains_stage_one(self) -> bool:
        model, config = self.config["model"], self.config
        if needs_stage_one(config["augmentation"]) or model == "MARSAlign":
            return True
        return bool(config["mars_use_aligned"]) and model in FEATURE_MODELS


def _is_asked_for(phase: int, split: Mapping[str, Any]) -> bool:
    """split: of eval_args, {"LS": which rows are held out} or {"RS": a share of each set}."""
    (value,) = split.values()
    if isinstance(value, str):
        return value in ("valid_and_test", f"{PHASE_NAMES[phase]}_only")
    return bool(value[phase])
