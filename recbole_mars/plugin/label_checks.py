"""What a run needs of the labels, said before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset

from recbole_mars.data import TRAIN, VALID
from recbole_mars.plugin.config import FEATURE_MODELS, needs_stage_one
from recbole_mars.plugin.histories import PHASE_NAMES, Histories
from recbole_mars.plugin.log_rows import ROW_FIELD

__all__ = ["LabelChecks"]


class LabelChecks(Dataset):
    """Both classes where they are observed, and nothing that needs them where they are not."""

    histories: Histories
    lean: bool

    def _check_labels(self, splits: Sequence[Any]) -> None:
        """Raise ValueError unless training has both classes, where they are observed, and
        validation what its metric needs."""
        if self.config["mars_agreement"]:
            self._refuse_sampling()
        self._check_training()
        if len(splits) == 3:
            self._check_validation(splits[VALID])

    def _check_training(self) -> None:
        """Both classes must be observed by our models, and by stage 1 for any model."""
        sampled = self.config["train_neg_sample_args"]["distribution"] != "none"
        aligned, log = self._trains_stage_one(), self.histories.log
        if aligned and log.drawn is not None:
            raise ValueError(
                "stage 1 needs observed labels, and fixed_negatives are drawn; set augmentation "
                "to another than mars and mars_use_aligned: False"
            )
        if not aligned and (sampled or not self.lean):
            return
        labels = np.unique(log.labels[log.phases == TRAIN])
        if len(labels) < 2:
            remedy = "" if aligned else ", or sample negatives with train_neg_sample_args"
            raise ValueError(
                f"training labels must be of both classes, got only {labels.tolist()}; set "
                f"threshold (now {self.config['threshold']}) so that some are 0 and some 1{remedy}"
            )

    def _check_validation(self, split: Any) -> None:
        sampled = self.config["valid_neg_sample_args"]["distribution"] != "none"
        if sampled or not str(self.config["valid_metric"]).lower().startswith("auc"):
            return
        labels = self.histories.log.labels[split.inter_feat[ROW_FIELD].numpy()]
        if len(np.unique(labels)) == 1:
            raise ValueError(
                f"validation must hold labels of both classes for valid_metric "
                f"{self.config['valid_metric']}, got {len(labels)} rows of labels "
                f"{np.unique(labels).tolist()}; split in another way with eval_args, or set "
                "valid_metric: LogLoss"
            )

    def _refuse_sampling(self) -> None:
        if self.histories.log.drawn is not None:
            raise ValueError(
                "mars_agreement needs observed labels, and fixed_negatives are drawn; set "
                "mars_agreement: False"
            )
        for phase in PHASE_NAMES.values():
            key = f"{phase}_neg_sample_args"
            if self.config[key]["distribution"] != "none":
                raise ValueError(
                    f"mars_agreement needs observed labels, and {key} samples negatives, of which "
                    "nothing is known; set train_neg_sample_args: ~ and eval_args' mode: labeled"
                )

    def _trains_stage_one(self) -> bool:
        model, config = self.config["model"], self.config
        if needs_stage_one(config["augmentation"]) or model == "MARSAlign":
            return True
        return bool(config["mars_use_aligned"]) and model in FEATURE_MODELS
