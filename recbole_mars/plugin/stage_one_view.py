"""What stage 1 and retrieval did to a data set, as arrays that can be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset

from recbole_mars.alignment import AlignmentNetwork
from recbole_mars.data import TRAIN
from recbole_mars.evaluation import HIGH, LOW, MID
from recbole_mars.plugin.dataset import MultimodalDataset
from recbole_mars.plugin.metrics import user_groups
from recbole_mars.plugin.stage_one import (
    align,
    alignment_network,
    retrieval_inputs,
    stored_prefixes,
)
from recbole_mars.retrieval import UserIndex, unit_rows

__all__ = ["StageOneView", "view_stage_one"]


@dataclass(frozen=True)
class StageOneView:
    """Stage 1 in pictures; every array may be empty where an ablation leaves nothing to show.

    history_before, history_after: (T,) lengths of low-active users' histories, of all targets.
    text_points, image_points: (before, after) training, each (n, D), of the same n items.
    donor_similarities: (Q,) cosine of each query with its nearest donor; random_similarities:
    (Q,) with a high-active user drawn at random.
    curves: records of the training by name. statistics: numbers to tell. settings: the resolved
    configuration, plain values only.
    """

    history_before: np.ndarray
    history_after: np.ndarray
    text_points: tuple[np.ndarray, np.ndarray]
    image_points: tuple[np.ndarray, np.ndarray]
    donor_similarities: np.ndarray
    random_similarities: np.ndarray
    curves: dict[str, list[float]]
    statistics: dict[str, float | int | str]
    settings: dict[str, Any]


def view_stage_one(dataset: str, settings: Mapping[str, Any], n_items: int = 300) -> StageOneView:
    """Look at the artifacts of a MARS run, made now if they are not on disk.

    n_items: items drawn for the picture of the aligned space, at most.
    """
    config = Config(model="MARS", dataset=dataset, config_dict=dict(settings))
    data = create_dataset(config)
    data.build()
    log, groups = data.log, user_groups(data.log, config)
    features = data.item_features()
    before = alignment_network(config, data.item_num, features)
    after = alignment_network(config, data.item_num, features)
    history = align(data, config, after, features)
    table = stored_prefixes(data, config, features)

    low = table.rows
    own = np.minimum(data.histories.index.lengths(low), config["MAX_ITEM_LIST_LENGTH"])
    items = _drawn_items(after, data, n_items)
    statistics: dict[str, float | int | str] = {
        "users": int((groups >= 0).sum()),
        "items": data.item_num - 1,
        "interactions": len(log),
        "training behaviours": int((log.phases == TRAIN).sum()),
        **_present("text", features.text_present),
        **_present("picture", features.image_present),
        "low-active users": int((groups == LOW).sum()),
        "mid-active users": int((groups == MID).sum()),
        "high-active users": int((groups == HIGH).sum()),
        "targets that may borrow": len(low),
        "behaviours borrowed on average": round(table.mean_length, 1),
        "share that borrow none": round(table.empty_share, 3),
        "similarity threshold": round(table.threshold, 3),
    }
    return StageOneView(
        history_before=own,
        history_after=own + np.diff(table.pointers),
        text_points=(_points(before, "text", items), _points(after, "text", items)),
        image_points=(_points(before, "image", items), _points(after, "image", items)),
        donor_similarities=table.donor_similarities[np.isfinite(table.donor_similarities)],
        random_similarities=_random_similarities(data, config, after),
        curves={name: [record[name] for record in history.epochs] for name in history.epochs[0]},
        statistics=statistics,
        settings={
            name: value
            for name, value in sorted(config.final_config_dict.items())
            if isinstance(value, (bool, int, float, str, list, dict, type(None)))
        },
    )


def _present(name: str, present: np.ndarray | None) -> dict[str, int]:
    return {} if present is None else {f"items with {name}": int(present.sum())}


def _drawn_items(network: AlignmentNetwork, data: MultimodalDataset, n_items: int) -> torch.Tensor:
    """Items with both modalities, spread evenly over their popularity."""
    counts = np.bincount(data.log.items, minlength=data.item_num)
    paired = np.flatnonzero(network.paired.cpu().numpy())
    by_count = paired[np.argsort(-counts[paired], kind="stable")]
    step = max(1, -(-len(by_count) // n_items))
    return torch.from_numpy(by_count[::step])


@torch.inference_mode()
def _points(network: AlignmentNetwork, modality: str, items: torch.Tensor) -> np.ndarray:
    if modality not in network.modalities or len(items) == 0:
        return np.zeros((0, network.settings.width), dtype=np.float32)
    device = network.id_embedding.weight.device
    return network.modalities[modality](items.to(device)).cpu().numpy()


def _random_similarities(
    data: MultimodalDataset, config: Config, network: AlignmentNetwork
) -> np.ndarray:
    _, queries, pool = retrieval_inputs(data, config, network)
    generator = np.random.default_rng(config["seed"])
    chosen = generator.integers(0, len(pool.users), len(queries))
    center = UserIndex(pool.embeddings, pool.users, center=config["mars_center"]).center
    queries, donors = unit_rows(queries, center), unit_rows(pool.embeddings, center)
    return np.einsum("qd,qd->q", queries, donors[chosen])[queries.any(1)]
