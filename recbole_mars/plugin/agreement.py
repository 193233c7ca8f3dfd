"""Agreement for a RecBole data set: computed once, kept on disk beside stage 1's artifacts."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock
from recbole.config import Config

from recbole_mars import __version__
from recbole_mars.agreement import (
    ClickAgreementSettings,
    FittedAgreement,
    FittedClickAgreement,
    agree,
    agree_on_clicks,
)
from recbole_mars.data import load_columns, save_columns
from recbole_mars.plugin.distributed import first_process_first
from recbole_mars.plugin.settings import agreement_columns, agreement_settings

if TYPE_CHECKING:
    from recbole_mars.plugin.dataset import MultimodalDataset

__all__ = ["fitted_agreement", "prepare_agreement"]

_COLUMNS, _FITTED = "columns", "fitted"  # folders of one data set's agreement


def prepare_agreement(dataset: MultimodalDataset, config: Config) -> np.ndarray:
    """What is to be expected of each row of the log, (N, 5) float32, see AGREEMENT_COLUMNS; with
    fixed_negatives (N, 17), see CLICK_COLUMNS.

    Each column has mean 0 and variance 1 over the training rows; one that is constant there is
    only centred.

    In a distributed run the first process computes it and the others wait.
    """
    return _prepared(dataset, config)[0]


def fitted_agreement(
    dataset: MultimodalDataset, config: Config
) -> FittedAgreement | FittedClickAgreement:
    """What gives the same for pairs that are in no log, as an online service needs it.

    It is kept with what prepare_agreement gives, and like this called in all processes of a run.
    """
    return _prepared(dataset, config)[1]


def _prepared(
    dataset: MultimodalDataset, config: Config
) -> tuple[np.ndarray, FittedAgreement | FittedClickAgreement]:
    features = _features(dataset)
    opinions = dataset.histories.opinions
    settings, names = agreement_settings(config), agreement_columns(config)
    clicks = isinstance(settings, ClickAgreementSettings)
    kind: type[FittedAgreement | FittedClickAgreement] = (
        FittedClickAgreement if clicks else FittedAgreement
    )
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
                fitted = kind.load(folder / _FITTED)
                columns, _ = load_columns(folder / _COLUMNS)
            except ValueError as error:
                dataset.logger.warning(f"{error}: computed anew")
                shutil.rmtree(folder, ignore_errors=True)
            else:
                _tell(dataset, fitted)
                return np.stack([columns[name] for name in names], axis=1), fitted
        progress = bool(config["show_progress"])
        found = (
            agree_on_clicks(dataset.log, features, settings, progress=progress)
            if isinstance(settings, ClickAgreementSettings)
            else agree(dataset.log, opinions, features, settings, progress=progress)
        )
        table = found.standardised()
        found.fitted.save(folder / _FITTED)
        save_columns(folder / _COLUMNS, dict(zip(names, table.T)), {})
        _tell(dataset, found.fitted)
        return table, found.fitted


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


def _tell(dataset: MultimodalDataset, fitted: FittedAgreement | FittedClickAgreement) -> None:
    if isinstance(fitted, FittedClickAgreement):
        return
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in fitted.weights.items())
    dataset.logger.info(f"agreement: weights of the kernel: {shown}")
