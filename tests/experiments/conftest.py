"""A tiny data set, an experiment on it, and training that only pretends."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_mars.data import InteractionLog
from recbole_mars.data.synthetic import SyntheticSettings, generate, write_atomic
from recbole_mars.evaluation import Impressions
from recbole_mars.plugin.scored_run import ScoredRun

LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "labeled"}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the data set "world"."""
    folder = tmp_path_factory.mktemp("data")
    write_atomic(
        generate(SyntheticSettings(n_users=40, n_items=60, high_length=(12, 20), seed=3)),
        folder,
        "world",
    )
    return folder


@pytest.fixture
def content() -> dict[str, Any]:
    """An experiment as YAML holds it; trains in seconds."""
    return copy.deepcopy(
        {
            "name": "tiny",
            "settings": {
                "text_fields": ["title"],
                "image_dir": "{data_path}/world/images",
                "MAX_ITEM_LIST_LENGTH": 10,
                "epochs": 2,
                "train_batch_size": 64,
                "embedding_size": 4,
                "mars_dnn_hidden": [8],
                "mars_attention_hidden": [8],
                "mars_align_epochs": 1,
                "mars_width": 8,
                "mars_id_width": 8,
            },
            "datasets": {"world": {}},
            "splits": {"leave-one-out": LEAVE_ONE_OUT},
            "methods": {"DIN": {"augmentation": "none"}, "MARS": {"augmentation": "mars"}},
            "seeds": [2020, 2021],
        }
    )


class FakeTraining:
    """Remembers what it was asked to train, and answers at once.

    valid_auc: of some settings, exactly k / 10. before: called with the settings of each run.
    """

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.tested: list[bool] = []
        self.valid_auc: Callable[[dict[str, Any]], int] = lambda settings: 7
        self.before: Callable[[dict[str, Any]], None] = lambda settings: None

    def __call__(
        self,
        dataset: str,
        settings: Any,
        *,
        test: bool = True,
        model_folder: Path | None = None,
    ) -> ScoredRun:
        self.calls.append(dict(settings))
        self.tested.append(test)
        self.before(dict(settings))
        if model_folder is not None:
            model_folder.mkdir(parents=True)
            (model_folder / "calls").write_text(str(len(self.calls)))
        return ScoredRun(
            train_loss=[0.5, 0.4],
            valid_score=[0.6, 0.7],
            valid=impressions(self.valid_auc(dict(settings))),
            test=impressions(8) if test else None,
            log=LOG,
            text_present=None,
            image_present=None,
            epochs=2,
            best_epoch=1,
            resumed=False,
            seconds={"preparation": 1.0, "training": 2.0, "total": 3.0},
            peak_memory_mb={"process": 100.0},
        )

    def named(self, *keys: str) -> list[tuple[Any, ...]]:
        """The values of some keys, call by call."""
        return [tuple(call[key] for key in keys) for call in self.calls]


def impressions(tenths: int) -> Impressions:
    """One click among ten non-clicks, above `tenths` of them: AUC tenths / 10. One user each."""
    scores = np.r_[tenths / 10 - 0.05, np.arange(10) / 10].clip(0, 1)
    return Impressions(
        users=np.arange(11),
        groups=np.array([0] * 6 + [2] * 5, dtype=np.int8),
        labels=np.r_[1, np.zeros(10)],
        scores=scores.astype(np.float32),
        lengths=np.arange(11),
    )


LOG = InteractionLog(
    users=np.array([1, 1, 2]),
    items=np.array([1, 2, 1]),
    labels=np.array([1.0, 0.0, 1.0], dtype=np.float32),
    times=np.array([1.0, 2.0, 1.0]),
    phases=np.zeros(3, dtype=np.int8),
    n_users=3,
    n_items=3,
)


@pytest.fixture
def training() -> FakeTraining:
    return FakeTraining()
