"""Agreement for a RecBole data set: computed once, kept on disk beside stage 1's artifacts."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock
from recbole.config import Config

from recbole_mars import __version__
from recbole_mars.agreement import AGREEMENT_COLUMNS, agree
from recbole_mars.data import TRAIN, load_columns, save_columns
from recbole_mars.plugin.distributed import first_process_first
from recbole_mars.plugin.settings import agreement_settings

if TYPE_CHECKING:
    from recbole_mars.plugin.dataset import MultimodalDataset

__all__ = ["prepare_agreement"]


def prepare_agreement(dataset: MultimodalDataset, config: Config) -> np.ndarray:
    """What is to be expected of each row of the log, (N, 5) float32, see AGREEMENT_COLUMNS.

    Each column has mean 0 and variance 1 over the training rows; one that is constant there is
    only centred.

    In a distributed run the first process computes it and the others wait.
    """
    features = _features(dataset)
    opinions = dataset.histories.opinions
    settings = agreement_settings(config)
    digest = hashlib.sha256(dataset.log.fingerprint().encode())
    digest.update(json.dumps([__version__, str(settings), sorted(features)]).encode())
    for part in (opinions, *features.values()):
        digest.update(np.ascontiguousarray(part).tobytes())
    name = f"{dataset.dataset_name}-agreement-{digest.hexdigest()[:16]}"
    folder = Path(config["checkpoint_dir"]) / "mars" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with first_process_first(), FileLock(f"{folder}.lock"):
        if folder.is_dir():
            try:
                columns, notes = load_columns(folder)
            except ValueError as error:
                dataset.logger.warning(f"{error}: computed anew")
                shutil.rmtree(folder, ignore_errors=True)
            else:
                _tell(dataset, notes["weights"])
                return np.stack([columns[name] for name in AGREEMENT_COLUMNS], axis=1)
        found = agree(
            dataset.log, opinions, features, settings, progress=bool(config["show_progress"])
        )
        table = _standardised(found.columns, dataset.log.phases == TRAIN)
        columns = dict(zip(AGREEMENT_COLUMNS, table.T))
        save_columns(folder, columns, {"weights": dict(found.weights)})
        _tell(dataset, found.weights)
        return table


def _standardised(columns: np.ndarray, training: np.ndarray) -> np.ndarray:
    mean = columns[training].mean(0, dtype=np.float64)
    spread = columns[training].std(0, dtype=np.float64)
    return ((columns - mean) / np.where(spread > 1e-6, spread, 1)).astype(np.float32)


def _features(dataset: MultimodalDataset) -> dict[str, np.ndarray]:
    """Item features by modality, those that there are: (I, D), zeros where an item has none."""
    if not dataset.reads_features:
        return {}
    items = dataset.item_features()
    found = {}
    for name, matrix, present in (
        ("text", items.text, items.text_present),
        ("image", items.image, items.image_present),
    ):
        if matrix is not None and present is not None:
            found[name] = np.where(present[:, None], matrix, 0)
    return found


def _tell(dataset: MultimodalDataset, weights: Mapping[str, float]) -> None:
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
    dataset.logger.info(f"agreement: weights of the kernel: {shown}")
