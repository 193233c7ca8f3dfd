"""One training run that keeps what a report needs: every test score, not only the averages."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_logger, init_seed

from recbole_mars.data import InteractionLog
from recbole_mars.evaluation import Impressions
from recbole_mars.plugin.dataset import ROW_FIELD
from recbole_mars.plugin.export import export_model
from recbole_mars.plugin.metrics import cold_items, request_field, user_groups
from recbole_mars.plugin.peak_memory import peak_memory_mb, reset_peak_memory

__all__ = ["ScoredRun", "scored_run"]


@dataclass(frozen=True)
class ScoredRun:
    """A finished run, scored with its best weights.

    train_loss: one number an epoch. valid_score: likewise, of the epochs trained in this process.
    valid, test: the impressions held out; test is None where it was not asked for.
    log: all interactions, with their split. text_present, image_present: (I,) which items have
    features, by internal id; None where none were read.
    epochs: trained; best_epoch: whose weights are the best, from 1. resumed: whether a killed run
    was continued, so that the seconds are of its rest only.
    seconds: "preparation" (reading and splitting), "stage_one" (with retrieval; next to none where
    artifacts of an earlier run fit), "training", "valid" and "test" (one pass each) and "total".
    peak_memory_mb: see recbole_mars.plugin.peak_memory.
    """

    train_loss: list[float]
    valid_score: list[float]
    valid: Impressions
    test: Impressions | None
    log: InteractionLog
    text_present: np.ndarray | None
    image_present: np.ndarray | None
    epochs: int
    best_epoch: int
    resumed: bool
    seconds: dict[str, float]
    peak_memory_mb: dict[str, float]


def scored_run(
    dataset: str,
    settings: Mapping[str, Any],
    *,
    test: bool = True,
    model_folder: Path | None = None,
) -> ScoredRun:
    """Train a model as run_recbole does, and score what was held out with its best weights.

    settings: RecBole's keys and ours, `model` among them (by default MARS). test: False leaves
    the test set unseen. model_folder: gets the model with its best weights, for
    recbole_mars.serving; must not be there. The best weights are deleted in the end; artifacts of
    stage 1 stay, and a killed run is continued by the same call.
    Raises ValueError if a folder is given for a model that cannot be served.
    """
    reset_peak_memory()
    clock = _Clock()
    model = settings.get("model", "MARS")
    config = Config(model=model, dataset=dataset, config_dict=dict(settings))
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    data = create_dataset(config)
    train_data, valid_data, test_data = data_preparation(config, data)
    prepared = train_data._dataset
    prepared.prepare_augmentation()  # now, to time it; the trainer finds it done
    clock.lap("preparation")
    clock.move("preparation", "stage_one", prepared.histories.seconds)
    init_seed(config["seed"], config["reproducibility"])
    network = get_model(config["model"])(config, prepared).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
    # RecBole names the file by the second, which two processes may share.
    best = f"scored-{_digest(dataset, settings)}.pth"
    trainer.saved_model_file = str(Path(config["checkpoint_dir"]) / best)
    valid_score: list[float] = []
    trainer.fit(
        train_data,
        valid_data,
        verbose=False,
        show_progress=config["show_progress"],
        callback_fn=lambda epoch, score: valid_score.append(float(score)),
    )
    best_file = Path(trainer.saved_model_file)  # of a continued run, as it was called before
    # Unsafe for a stranger's file (it holds RecBole's Config object), but this run just wrote it.
    checkpoint = torch.load(best_file, map_location=config["device"], weights_only=False)
    network.load_state_dict(checkpoint["state_dict"])
    clock.lap("training")
    groups = user_groups(prepared.log, config)
    valid = _score(network, valid_data, groups, config)
    clock.lap("valid")
    tested = _score(network, test_data, groups, config) if test else None
    clock.lap("test")
    features = prepared.item_features() if prepared.reads_features else None
    result = ScoredRun(
        train_loss=[float(loss) / len(train_data) for loss in trainer.train_loss_dict.values()],
        valid_score=valid_score,
        valid=valid,
        test=tested,
        log=prepared.log,
        text_present=features.text_present if features else None,
        image_present=features.image_present if features else None,
        epochs=len(trainer.train_loss_dict),
        best_epoch=int(checkpoint["epoch"]) + 1,
        resumed=trainer.start_epoch > 0,
        seconds={name: round(value, 2) for name, value in clock.finish().items()},
        peak_memory_mb=peak_memory_mb(),
    )
    if model_folder is not None:
        export_model(config, network, prepared, model_folder)
    best_file.unlink()
    return result


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now

    def move(self, source: str, target: str, seconds: float) -> None:
        self.seconds[source] -= seconds
        self.seconds[target] = seconds

    def finish(self) -> dict[str, float]:
        return {**self.seconds, "total": time.perf_counter() - self._begin}


def _digest(dataset: str, settings: Mapping[str, Any]) -> str:
    words = repr([dataset, sorted((key, str(value)) for key, value in settings.items())])
    return hashlib.sha256(words.encode()).hexdigest()[:16]


@torch.inference_mode()
def _score(network: Any, data: Any, groups: np.ndarray, config: Config) -> Impressions:
    network.eval()
    fields = {"users": config["USER_ID_FIELD"], "labels": config["LABEL_FIELD"], "rows": ROW_FIELD}
    fields["items"] = config["ITEM_ID_FIELD"]
    if config["request_field"] is not None:
        fields["requests"] = request_field(config, data._dataset)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("scores", *fields)}
    for interaction, *_ in data:
        columns["scores"].append(network.predict(interaction.to(config["device"])).cpu().numpy())
        for name, field in fields.items():
            columns[name].append(interaction[field].cpu().numpy())
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Impressions(
        users=joined["users"],
        groups=groups[joined["users"]],
        labels=joined["labels"],
        scores=joined["scores"],
        lengths=data._dataset.histories.index.lengths(joined["rows"]),
        cold=cold_items(data._dataset.log, config)[joined["items"]],
        requests=joined.get("requests"),
    )
