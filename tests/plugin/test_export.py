"""An exported model, its runner and its scorer say what the offline model says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed
from recbole_mars.serving.stores import LMDBStore

from recbole_mars.plugin.dataset import ROW_FIELD
from recbole_mars.plugin.export import export_model
from recbole_mars.serving import KnownWorld, Request, Scorer, Snapshots
from recbole_mars.serving.offline import OfflineRunner

CASES: dict[str, dict[str, Any]] = {
    "MARS": {},
    "MARS with labels": {"history_labels": True, "mars_mark_borrowed": True, "mars_mark_age": True},
    "MARS, liked items only": {"history": "positive"},
    "MARS, first behaviours too": {"min_history": 0},
    "MARS, top-k by time": {
        "mars_strategy": "top_k",
        "eval_args": {
            "split": {"RS": [8, 1, 1]},
            "order": "TO",
            "group_by": None,
            "mode": "labeled",
        },
    },
    "MARS, dynamic programming on 16-bit vectors": {
        "mars_strategy": "dynamic_programming",
        "mars_index_storage": "float16",
    },
    "agreement": {"mars_agreement": True, "history_labels": True, "opinion_field": "rating"},
    "agreement of labels": {"mars_agreement": True, "augmentation": "none"},
    "no features": {"augmentation": "none", "text_fields": None, "image_dir": None},
    "DMAE": {"model": "DMAE", "augmentation": "mars", "similarity_scale": "quantile"},
    "DMAE and stage 1": {"model": "DMAE", "augmentation": "mars", "mars_use_aligned": True},
    "SimTier": {"model": "SimTier", "augmentation": "mars", "mars_agreement": True},
    "UniSRec": {"model": "UniSRec"},
    "LRD": {"model": "LRD"},
    "BST": {"model": "BST", "augmentation": "mars"},
    "GRU4RecCTR": {"model": "GRU4RecCTR"},
    "AveragePooling": {"model": "AveragePooling"},
}


def trained(settings: dict[str, Any]) -> tuple[Config, Any, Any, Any]:
    """Config, model, training and test data of a short run."""
    config = Config(model=settings.pop("model", "MARS"), dataset="world", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, train._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.fit(train, valid, show_progress=False)
    return config, model.eval(), train._dataset, test


@pytest.mark.parametrize("case", CASES)
def test_the_online_score_is_the_offline_models(
    case: str, tiny: dict[str, Any], tmp_path: Path
) -> None:
    config, model, dataset, test = trained({**tiny, **CASES[case]})
    folder = export_model(config, model, dataset, tmp_path / "model")
    snapshots = Snapshots(tmp_path / "snapshots")
    with LMDBStore(tmp_path / "store") as store:
        OfflineRunner(folder, store, snapshots, donors="trained").run()
    scorer = Scorer.load(snapshots.current().folder)

    log = dataset.log
    offline, online, augmented = [], [], 0
    for batch in test:
        interaction = batch[0]
        offline.append(model.predict(interaction).detach().numpy())
        rows = interaction[ROW_FIELD].numpy()
        known = KnownWorld.load(folder / "world")
        until = np.full(len(known.users), 10**6)
        for row in rows.tolist():
            until[log.users[row] - 1] = row - log.offsets[log.users[row]]
            records = dict(known.records(scorer.model.settings.requests.kept, until))
            user = known.users[int(log.users[row]) - 1]
            request = Request(user, records[user], log.items[row : row + 1], float(log.times[row]))
            prepared = scorer.prepare(request)
            augmented += prepared.borrowed is not None and len(prepared.borrowed.rows) > 0
            online.append(scorer.score([prepared])[0])
    np.testing.assert_allclose(np.concatenate(online), np.concatenate(offline), atol=1e-5)
    if config["augmentation"] == "mars":
        assert augmented > 3
