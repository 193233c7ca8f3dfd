"""From a RecBole checkpoint to a model folder, which serving reads without RecBole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from recbole.config import Config

from recbole_mars import __version__
from recbole_mars.agreement import FittedAgreement, FittedClickAgreement
from recbole_mars.alignment import AlignmentNetwork
from recbole_mars.ctr import NETWORKS, Modality
from recbole_mars.data import TRAIN
from recbole_mars.evaluation import HIGH, LOW
from recbole_mars.plugin.agreement import fitted_agreement
from recbole_mars.plugin.ctr_model import SequenceModel
from recbole_mars.plugin.dataset import MultimodalDataset
from recbole_mars.plugin.metrics import user_groups
from recbole_mars.plugin.modalities import item_modalities
from recbole_mars.plugin.quick_start import load_data_and_model
from recbole_mars.plugin.settings import (
    OWN_SETTINGS,
    din_settings,
    is_temporal,
    retrieval_settings,
)
from recbole_mars.plugin.stage_one import (
    align,
    alignment_folder,
    alignment_network,
    stored_prefixes,
)
from recbole_mars.serving import (
    KnownWorld,
    ModelSettings,
    RequestSettings,
    TokenTable,
    TrainedModel,
    describe_table,
    table_columns,
    whole_folder,
)

__all__ = ["export_checkpoint", "export_model"]

_SERVED = ("none", "mars", "reppad", "cmr", "cmrsi", "cl4srec", "coserec", "basrec")


def export_checkpoint(checkpoint: str | Path, folder: str | Path) -> Path:
    """Write a trained model of ours as a model folder, for recbole_mars.serving.

    A RecBole checkpoint is a pickle: take only files that you or people you trust have trained. The
    folder holds none. Stage 1's weights and agreement are found beside the checkpoints, or made
    again, of which a warning tells. Returns the folder. Raises FileExistsError if it is there,
    ValueError for a model that cannot be served and for data or features that it was not trained
    with, FileNotFoundError without the checkpoint.
    """
    if Path(folder).exists():
        raise FileExistsError(f"{folder} is there already; name another folder or remove it")
    if Path(checkpoint).is_dir():
        raise ValueError(
            f"{checkpoint} must be a checkpoint, is a folder; name a .pth file, such as "
            f"{Path(checkpoint) / 'MARS-*.pth'}"
        )
    config, model, _, train_data, _, _ = load_data_and_model(
        str(checkpoint), state="WARNING", before_model=_tell_of_stage_one
    )
    return export_model(config, model, train_data._dataset, Path(folder))


def _tell_of_stage_one(config: Config, dataset: MultimodalDataset) -> None:
    """Before it is trained anew, which takes as long as it did and may not be what was wanted."""
    _check(config)
    if config["augmentation"] != "mars" and not config["mars_use_aligned"]:
        return
    folder = alignment_folder(dataset, config, dataset.item_features()).absolute()
    if not (folder / "alignment.pt").is_file():
        dataset.logger.warning(
            f"stage 1 of this model is not in {folder}: it is trained anew, and so are features "
            f"computed that are not in {folder.parents[1] / 'features'}. Another machine may give "
            "another alignment than the network was trained with; to take that one, export where "
            f"the model was trained, or copy its checkpoint_dir/mars and features to "
            f"{folder.parents[1]}"
        )


def export_model(
    config: Config, model: SequenceModel, dataset: MultimodalDataset, folder: Path
) -> Path:
    """As export_checkpoint, of a model in memory. dataset: one of the splits that build() made."""
    _check(config)
    trained = _trained_model(config, model.cpu(), dataset)
    world = _known_world(config, dataset, trained.agreement)
    notes = {"recbole_mars": __version__, "dataset": dataset.dataset_name, "model": config["model"]}
    with whole_folder(folder, notes) as aside:
        trained.save(aside)
        world.save(aside / "world")
    return folder


def _check(config: Config) -> None:
    if config["model"] not in NETWORKS:
        raise ValueError(
            f"model must be one of {', '.join(NETWORKS)} to be served, got {config['model']}"
        )
    if config["augmentation"] not in _SERVED:
        raise ValueError(
            f"augmentation {config['augmentation']} draws items at random at every request; train "
            "with none or mars to serve"
        )
    threshold, opinion = config["threshold"], config["opinion_field"]
    if opinion is not None and list(threshold or ()) != [opinion]:
        raise ValueError(
            f"an event has one value, for likes and opinions, got threshold {threshold} and "
            f"opinion_field {opinion!r}; name the same field in both"
        )


def _trained_model(
    config: Config, model: SequenceModel, dataset: MultimodalDataset
) -> TrainedModel:
    name = config["model"]
    items, users = SequenceModel.embeddings(config, dataset)
    columns = table_columns("items", items)
    if users is not None:
        columns.update(table_columns("users", users))
    read = item_modalities(config, dataset) if NETWORKS[name].reads_features else []
    features = {modality.name: modality for modality in read}
    alignment, retrieval, cosine = None, None, 0.0
    if config["augmentation"] == "mars":
        alignment = _alignment(config, dataset)
        retrieval = retrieval_settings(config, is_temporal(config))
        cosine = stored_prefixes(dataset, config, dataset.item_features()).threshold
        features = {**_stage_one_features(dataset), **features}
    kind = "opinions" if dataset.log.drawn is None else "clicks"
    settings = ModelSettings(
        network=name,
        din=din_settings(config),
        own=OWN_SETTINGS[name](config) if name in OWN_SETTINGS else None,
        items=describe_table(items),
        users=None if users is None else describe_table(users),
        modalities=tuple(modality.name for modality in read),
        alignment=None if alignment is None else alignment.settings,
        retrieval=retrieval,
        threshold=float(cosine),
        agreement=kind if config["mars_agreement"] else "",
        requests=_requests(config, dataset),
        dataset=dataset.dataset_name,
        feature_storage=config["feature_storage"],
    )
    return TrainedModel(
        settings,
        model.network.eval(),
        alignment,
        fitted_agreement(dataset, config) if settings.agreement else None,
        TokenTable(_tokens(dataset, dataset.iid_field)),
        columns,
        features,
    )


def _alignment(config: Config, dataset: MultimodalDataset) -> AlignmentNetwork:
    features = dataset.item_features()
    network = alignment_network(config, dataset.item_num, features)
    align(dataset, config, network, features)
    return network.cpu().eval()


def _stage_one_features(dataset: MultimodalDataset) -> dict[str, Modality]:
    features = dataset.item_features()
    pairs: dict[str, Any] = {
        "text": (features.text, features.text_present),
        "image": (features.image, features.image_present),
    }
    return {name: Modality(name, *pair) for name, pair in pairs.items() if pair[0] is not None}


def _requests(config: Config, dataset: MultimodalDataset) -> RequestSettings:
    threshold = config["threshold"]
    counts = dataset.log.training_counts()
    groups = user_groups(dataset.log, config)
    low, high = counts[groups == LOW], counts[groups == HIGH]
    lengths = [config["MAX_ITEM_LIST_LENGTH"], config["mars_agreement_length"] or 0]
    return RequestSettings(
        max_length=config["MAX_ITEM_LIST_LENGTH"],
        history=config["history"],
        like_from=float(next(iter(threshold.values()))) if threshold else 1.0,
        clicks_only=dataset.log.drawn is not None,
        opinions="value" if config["opinion_field"] is not None else "label",
        low_up_to=int(low.max(initial=0)),
        high_from=int(high.min(initial=np.iinfo(np.int32).max)),
        kept=max(1000, 2 * max(lengths)),
    )


def _known_world(
    config: Config,
    dataset: MultimodalDataset,
    agreement: FittedAgreement | FittedClickAgreement | None,
) -> KnownWorld:
    log, opinions = dataset.log.behaviours(), dataset.histories.opinions
    if dataset.log.drawn is not None:
        opinions = opinions[~dataset.log.drawn]
    folds = np.zeros(log.n_users) if agreement is None else agreement.fold
    return KnownWorld(
        users=TokenTable(_tokens(dataset, dataset.uid_field)),
        groups=user_groups(log, config)[1:].astype(np.int8),
        folds=folds[1:].astype(np.int8),
        bounds=log.offsets[1:],
        items=log.items.astype(np.int32),
        liked=log.labels > 0,
        opinions=opinions.astype(np.float32),
        times=log.times,
        trained=log.phases == TRAIN,
    )


def _tokens(dataset: MultimodalDataset, name: str) -> list[str]:
    return [str(token) for token in dataset.field2id_token[name][1:]]
