"""Stage 1 of MARS for a RecBole data set: alignment, retrieval, and their artifacts on disk.

Artifacts live under checkpoint_dir/mars, in folders named after the data set and a fingerprint of
everything that they depend on: what fits is used, what does not is left alone.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from recbole.config import Config

from recbole_mars import __version__
from recbole_mars.alignment import (
    AlignmentExport,
    AlignmentNetwork,
    TrainingHistory,
    export_embeddings,
    train_alignment,
)
from recbole_mars.augmentation import PrefixTable, RetrievedAugmenter, build_prefixes
from recbole_mars.evaluation import HIGH, LOW
from recbole_mars.plugin.catalogue import ItemFeatures
from recbole_mars.plugin.dataset import MultimodalDataset
from recbole_mars.plugin.distributed import first_process_first
from recbole_mars.plugin.metrics import user_groups
from recbole_mars.plugin.settings import (
    alignment_settings,
    is_temporal,
    retrieval_settings,
    training_settings,
)
from recbole_mars.retrieval import DonorPool

__all__ = [
    "align",
    "aligned_items",
    "alignment_folder",
    "alignment_network",
    "prepare_retrieval",
    "retrieval_inputs",
    "stored_prefixes",
]


def alignment_network(config: Config, n_items: int, features: ItemFeatures) -> AlignmentNetwork:
    """A fresh network, the same for the same seed whatever else has drawn random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        return AlignmentNetwork(
            alignment_settings(config),
            n_items,
            features.text,
            features.text_present,
            features.image,
            features.image_present,
        )


def alignment_folder(dataset: MultimodalDataset, config: Config, features: ItemFeatures) -> Path:
    """Where stage 1 of this run is kept, whether it is there or not."""
    words = json.dumps(
        [
            __version__,
            str(alignment_settings(config)),
            str(training_settings(config)),
            config["seed"],
            features.fingerprint(),
            dataset.log.fingerprint(),
        ]
    )
    name = hashlib.sha256(words.encode()).hexdigest()[:16]
    return Path(config["checkpoint_dir"]) / "mars" / f"{dataset.dataset_name}-{name}"


def align(
    dataset: MultimodalDataset, config: Config, network: AlignmentNetwork, features: ItemFeatures
) -> TrainingHistory:
    """Train stage 1, continue it, or take the finished weights, whichever the disk allows."""
    folder = alignment_folder(dataset, config, features)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "alignment.lock"):  # a run beside this one waits, then finds it done
        history = train_alignment(
            network,
            dataset.log,
            settings=training_settings(config),
            folder=folder,
            device=config["device"],
            progress=bool(config["show_progress"]),
        )
    best = history.epochs[history.best_epoch - 1]
    dataset.logger.info(
        f"alignment: best epoch {history.best_epoch} of {len(history.epochs)}, "
        + ", ".join(f"{name} {value:.4f}" for name, value in best.items())
        + f"; kept in {folder}"
    )
    return history


def aligned_items(
    dataset: MultimodalDataset, config: Config, features: ItemFeatures
) -> tuple[np.ndarray, np.ndarray]:
    """Item embeddings (I, D) of stage 1 (MARS, eq. 11), trained or found on disk; who has one (I,).

    In a distributed run the first process trains and the others wait.
    """
    network = alignment_network(config, dataset.item_num, features)
    nothing = np.zeros(0, dtype=np.int64)
    with first_process_first():
        align(dataset, config, network, features)
    exported = export_embeddings(
        network,
        dataset.log.behaviours(),
        nothing,
        nothing,
        max_length=config["MAX_ITEM_LIST_LENGTH"],
        device=config["device"],
        progress=False,
    )
    return exported.item_embeddings, exported.item_seen


def prepare_retrieval(dataset: MultimodalDataset, config: Config) -> RetrievedAugmenter:
    """The prefixes of all low-active users' targets (MARS, eq. 15-17), made or found on disk.

    In a distributed run the first process makes them and the others wait.

    Raises ValueError if the features cannot be had or no user is high-active.
    """
    features = dataset.item_features()
    with first_process_first():
        table = stored_prefixes(dataset, config, features)
    dataset.logger.info(
        f"retrieval: {table.mean_length:.1f} behaviours borrowed a target on average, "
        f"{table.empty_share:.1%} borrow none, threshold {table.threshold:.3f}"
    )
    return RetrievedAugmenter(table)


def stored_prefixes(
    dataset: MultimodalDataset, config: Config, features: ItemFeatures
) -> PrefixTable:
    """The prefixes found on disk, or made by stage 1 and retrieval and kept there."""
    folder = _prefix_folder(dataset, config, features)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / "retrieval.lock"):
        try:
            return PrefixTable.load(folder)
        except (ValueError, OSError) as reason:
            if folder.is_dir():
                dataset.logger.warning(f"{folder} is damaged ({reason}): built anew")
        table = _retrieve(dataset, config, features)
        table.save(folder)
        return table


def _retrieve(dataset: MultimodalDataset, config: Config, features: ItemFeatures) -> PrefixTable:
    network = alignment_network(config, dataset.item_num, features)
    align(dataset, config, network, features)
    rows, queries, pool = retrieval_inputs(dataset, config, network)
    settings = retrieval_settings(config, is_temporal(config))
    own = np.minimum(dataset.histories.index.lengths(rows), settings.max_length)
    progress = bool(config["show_progress"])
    return build_prefixes(dataset.log, rows, queries, pool, settings, own, progress=progress)


def retrieval_inputs(
    dataset: MultimodalDataset, config: Config, network: AlignmentNetwork
) -> tuple[np.ndarray, np.ndarray, DonorPool]:
    """Query rows (Q,), query embeddings (Q, D) and the donors, by an aligned network.

    A sampled negative is a query like the behaviour that it was drawn for, and is never lent.

    Raises ValueError if no user is high-active.
    """
    log, behaviours = dataset.log, dataset.log.behaviours()
    groups = user_groups(log, config)
    donors = np.flatnonzero(groups == HIGH)
    if len(donors) == 0:
        raise ValueError(
            f"no high-active user: mars_high_share {config['mars_high_share']} of "
            f"{int((groups >= 0).sum())} users is none; raise it, or set augmentation: none"
        )
    places = log.behaviour_places()
    targets = places - behaviours.offsets[log.users] >= config["min_history"]
    query_rows = np.flatnonzero((groups[log.users] == LOW) & targets)
    asked, query_of = np.unique(places[query_rows], return_inverse=True)

    def export(rows: np.ndarray, users: np.ndarray) -> AlignmentExport:
        return export_embeddings(
            network,
            behaviours,
            rows,
            users,
            max_length=config["MAX_ITEM_LIST_LENGTH"],
            batch_users=config["mars_align_batch_users"],
            device=config["device"],
            progress=bool(config["show_progress"]),
        )

    exported = export(asked, donors)
    queries = exported.query_embeddings
    if len(asked) < len(query_rows):
        queries = queries[query_of]
    if config["retrieval_scope"] == "user":
        askers = np.unique(log.users[query_rows])
        whole = export(np.zeros(0, dtype=np.int64), askers)
        queries = whole.donor_embeddings[np.searchsorted(askers, log.users[query_rows])]
    lent = log.behaviour_rows()[exported.donor_rows]
    kept = log.labels[lent] > 0 if config["history"] == "positive" else slice(None)
    pool = DonorPool(
        exported.donor_users,
        exported.donor_embeddings,
        lent[kept],
        exported.donor_row_embeddings[kept],
    )
    return query_rows, queries, pool


def _prefix_folder(dataset: MultimodalDataset, config: Config, features: ItemFeatures) -> Path:
    settings = retrieval_settings(config, is_temporal(config))
    chosen = [config[key] for key in ("retrieval_scope", "mars_low_share", "mars_high_share")]
    words = f"{settings}{chosen}{config['history']}{config['min_history']}"
    name = hashlib.sha256(words.encode()).hexdigest()[:12]
    return alignment_folder(dataset, config, features) / f"prefixes-{name}"
