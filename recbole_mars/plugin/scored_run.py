"""One training run that keeps what a report needs: every test score, not only the averages."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_logger, init_seed

from recbole_mars.plugin.config import needs_stage_one
from recbole_mars.plugin.metrics import user_groups

__all__ = ["ScoredRun", "run_fingerprint", "scored_run"]


@dataclass(frozen=True)
class ScoredRun:
    """A finished run with its best weights.

    train_loss, valid_score: one number an epoch, of those trained in this process.
    users, groups, labels, scores: (T,) of the test impressions: internal user ids, activity groups
    (0 low, 1 mid, 2 high), labels and predicted probabilities.
    seconds: from reading the data to the last score.
    """

    train_loss: list[float]
    valid_score: list[float]
    best_valid_score: float
    users: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    seconds: float


def run_fingerprint(model: str, dataset: str, settings: Mapping[str, Any]) -> str:
    """Hash of what a run reads: data, splits and, where it augments, item features."""
    config = Config(model=model, dataset=dataset, config_dict=dict(settings))
    data = create_dataset(config)
    data.build()
    found = data.fingerprint()
    if needs_stage_one(config["augmentation"]):
        found += data.item_features().fingerprint()
    return hashlib.sha256(found.encode()).hexdigest()


def scored_run(model: str, dataset: str, settings: Mapping[str, Any]) -> ScoredRun:
    """Train a model as run_recbole does, and score the test set with its best weights."""
    begin = time.perf_counter()
    config = Config(model=model, dataset=dataset, config_dict=dict(settings))
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    data = create_dataset(config)
    train_data, valid_data, test_data = data_preparation(config, data)
    init_seed(config["seed"], config["reproducibility"])
    network = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
    valid_score: list[float] = []
    best, _ = trainer.fit(
        train_data,
        valid_data,
        verbose=False,
        show_progress=config["show_progress"],
        callback_fn=lambda epoch, score: valid_score.append(float(score)),
    )
    # Unsafe for a stranger's file (it holds RecBole's Config object), but this run just wrote it.
    checkpoint = torch.load(
        trainer.saved_model_file, map_location=config["device"], weights_only=False
    )
    network.load_state_dict(checkpoint["state_dict"])
    users, labels, scores = _score(network, test_data, config)
    return ScoredRun(
        train_loss=[float(loss) / len(train_data) for loss in trainer.train_loss_dict.values()],
        valid_score=valid_score,
        best_valid_score=float(best),
        users=users,
        groups=user_groups(train_data._dataset.log, config)[users],
        labels=labels,
        scores=scores,
        seconds=time.perf_counter() - begin,
    )


@torch.inference_mode()
def _score(network: Any, data: Any, config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    network.eval()
    users, labels, scores = [], [], []
    for interaction, *_ in data:
        scores.append(network.predict(interaction.to(config["device"])).cpu().numpy())
        users.append(interaction[config["USER_ID_FIELD"]].cpu().numpy())
        labels.append(interaction[config["LABEL_FIELD"]].cpu().numpy())
    return np.concatenate(users), np.concatenate(labels), np.concatenate(scores)
