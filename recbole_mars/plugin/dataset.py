"""RecBole's sequential data set with lazy histories, 64-bit time order and augmentation."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole.sampler import SeqSampler
from recbole.utils import FeatureSource, FeatureType

from recbole_mars.augmentation import Augmenter
from recbole_mars.ctr import STORAGES
from recbole_mars.data import TEST, TRAIN, VALID, HistoryIndex, InteractionLog
from recbole_mars.plugin.agreement import prepare_agreement
from recbole_mars.plugin.catalogue import ItemCatalogue, ItemFeatures
from recbole_mars.plugin.config import (
    CTR_MODELS,
    FEATURE_MODELS,
    data_folder,
    needs_stage_one,
)
from recbole_mars.plugin.fixed_negatives import FixedNegatives
from recbole_mars.plugin.histories import PHASE_NAMES, Histories, phases_of_first_rows
from recbole_mars.plugin.label_checks import LabelChecks
from recbole_mars.plugin.log_rows import ROW_FIELD, HistoryLengths, LogRows, RowNumbers
from recbole_mars.plugin.prepared import KeptPreparation
from recbole_mars.plugin.reading import FlatReading
from recbole_mars.plugin.splits import VectorizedSplits

__all__ = [
    "AGREEMENT_FIELD",
    "AUGMENTERS",
    "BORROWED_FIELD",
    "RATE_FIELD",
    "ROW_FIELD",
    "VIEW_PREFIXES",
    "CTRDataset",
    "DIENMultimodalDataset",
    "MultimodalDataset",
    "TargetDataset",
]

BORROWED_FIELD = "borrowed_length"  # behaviours at the head of the history that are other users'
AGREEMENT_FIELD = "agreement"  # what is to be expected of the target, see recbole_mars.agreement
OPINION_FIELD = "opinion"  # what opinion_field names, kept where threshold drops it
VIEW_PREFIXES = ("view_1_", "view_2_")  # of the fields of augmented views, in training only
RATE_FIELD = "rate"  # the share of a view's behaviours that were to be changed
AUGMENTERS: dict[str, Callable[[MultimodalDataset, Config], Augmenter]] = {}  # by name


class MultimodalDataset(
    KeptPreparation, FlatReading, VectorizedSplits, FixedNegatives, LabelChecks, SequentialDataset
):
    """A sequential data set whose histories are gathered for each batch, not written out.

    RecBole stores (interactions - users) x MAX_ITEM_LIST_LENGTH numbers for every field. Here a
    history is a stretch of the interaction log, found when a batch asks for it, so memory grows
    with the number of interactions only, and augmentation is a change of row numbers: donors'
    behaviours come with all their fields, and RecBole's own transforms can follow.

    It gives full-width lists of every interaction field, as RecBole's models expect.

    Raises ValueError for what it cannot use: MAX_ITEM_LIST_LENGTH < 1, duplicate rows, a missing
    file or column, benchmark files (their histories are written out already).
    """

    lean = False  # item and label lists only, trimmed to the batch's longest history
    inter_feat: Any  # a DataFrame while the data is prepared, then an Interaction

    def __init__(self, config: Config) -> None:
        self._check_options(config)
        self.histories = Histories()
        self.phase: int | None = None  # set on each split by build()
        super().__init__(config)
        self._catalogue: ItemCatalogue | None = None
        if self.uses_features(config):
            self._catalogue = ItemCatalogue(config, self.dataset_path, self.dataset_name)

    @staticmethod
    def uses_features(config: Config) -> bool:
        """Whether a run of this configuration reads item features."""
        if needs_stage_one(config["augmentation"]) or config["model"] in FEATURE_MODELS:
            return True
        return bool(config["mars_agreement"]) and ItemCatalogue.is_asked_for(config)

    @staticmethod
    def _check_options(config: Config) -> None:
        length = config["MAX_ITEM_LIST_LENGTH"]
        if not isinstance(length, int) or length < 1:
            raise ValueError(f"MAX_ITEM_LIST_LENGTH must be an integer >= 1, got {length!r}")
        allowed = {
            "history": ("all", "positive"),
            "min_history": (0, 1),
            "duplicates": ("error", "keep", "drop"),
            "ties": ("file", "shuffled"),
            "augmentation": ("none", *AUGMENTERS),
            "retrieval_scope": ("behaviour", "user"),
            "keep_prepared": (None, True, False),
            "feature_storage": STORAGES,
        }
        for key, values in allowed.items():
            if config[key] not in values:
                raise ValueError(f"{key} must be one of {values}, got {config[key]!r}")
        FixedNegatives.check_option(config)
        if config["mars_agreement"] and config["model"] not in CTR_MODELS:
            raise ValueError(
                f"mars_agreement is for {', '.join(CTR_MODELS)}, got model {config['model']}; "
                "set it to False"
            )
        if config["benchmark_filename"] is not None:
            raise ValueError(
                "benchmark_filename holds ready-made histories, which this data set builds "
                "itself; remove it and choose the split with eval_args"
            )

    def _get_preset(self) -> None:
        super()._get_preset()
        self.dataset_path = self.config["data_path"] = data_folder(self.config)

    def _set_label_by_threshold(self) -> None:
        name = self.config["opinion_field"] if self.lean else None
        if name is None:
            super()._set_label_by_threshold()
            return
        kinds = {field: self.field2type[field] for field in self.inter_feat}
        if not isinstance(name, str) or kinds.get(name) != FeatureType.FLOAT:
            raise ValueError(
                f"opinion_field must name a float column of the interactions, got {name!r}, "
                f"of {list(self.inter_feat)}; is it in load_col?"
            )
        opinions = self.inter_feat[name]
        if not np.isfinite(opinions).all():
            raise ValueError(f"opinion_field {name} must be finite, got {opinions.max()} too")
        super()._set_label_by_threshold()
        self.inter_feat[OPINION_FIELD] = opinions
        self.set_field_property(OPINION_FIELD, FeatureType.FLOAT, FeatureSource.INTERACTION, 1)

    def _normalize(self) -> None:
        """All but times and opinions, which our models' services meet as they are told."""
        told = (self.time_field, OPINION_FIELD) if self.lean else ()
        kept = {name: self.inter_feat[name] for name in told if name in self.inter_feat}
        super()._normalize()
        for name, column in kept.items():
            self.inter_feat[name] = column

    def data_augmentation(self) -> None:
        """Keep the interactions as flat columns; the targets are those with enough history."""
        self._aug_presets()
        columns = {name: self.inter_feat[name] for name in self.inter_feat}
        drawn = self._draw_negatives(columns)
        users = columns[self.uid_field].numpy()
        if self.label_field in columns:
            labels = columns[self.label_field].float()
        else:
            labels = torch.ones(len(users))
        opinions = labels
        if self.lean and self.config["opinion_field"] is not None:
            opinions = columns.pop(OPINION_FIELD)
        log = InteractionLog(
            users=users,
            items=columns[self.iid_field].numpy(),
            labels=labels.numpy(),
            times=columns[self.time_field].numpy(),
            phases=np.zeros(len(users), dtype=np.int8),
            n_users=self.user_num,
            n_items=self.item_num,
            drawn=drawn,
        )
        # Negatives follow their interaction into its split, see build().
        done = np.arange(len(users)) if drawn is None else np.flatnonzero(~drawn)
        first = np.r_[True, users[done][1:] != users[done][:-1]]
        targets = done[~first] if self.config["min_history"] else done
        single = int((np.bincount(users[done]) == 1).sum())
        if single and self.config["min_history"]:
            self.logger.info(f"{single} users have one interaction: history for no target")
        lengths = HistoryLengths(HistoryIndex(log, self.config["history"]), self.max_item_list_len)
        extra: dict[str, Any] = {ROW_FIELD: RowNumbers(), self.item_list_length_field: lengths}
        self.inter_feat = LogRows(torch.from_numpy(targets), {**columns, **extra})
        if self.lean:
            columns.setdefault(self.label_field, labels)
        self.histories.set_log(log, columns, lengths.index, opinions.numpy())

    def build(self) -> list[MultimodalDataset]:
        """The training, validation and test sets, which share one log of behaviours."""
        splits = super().build()
        phases = np.full(len(self.histories.log), -1, dtype=np.int8)
        for phase, split in enumerate(splits):
            split.phase = phase
            split.inter_feat = self._with_negatives(split.inter_feat)
            phases[split.inter_feat[ROW_FIELD].numpy()] = phase
            sampling = self.config[f"{PHASE_NAMES[phase]}_neg_sample_args"]["distribution"]
            if phase != TRAIN and sampling == "none":
                # An order of evaluation in which a batch asks for few items: our models score
                # an equal pair of target and behaviour once.
                order = torch.argsort(split.inter_feat[self.iid_field], stable=True)
                split.inter_feat = split.inter_feat[order]
        self.histories.set_phases(self._of_negatives_too(phases_of_first_rows(self.log, phases)))
        self._check_labels(splits)
        if self.config["mars_agreement"]:
            self.histories.agreement = prepare_agreement(self, self.config)
        # Our trainer waits for stage 1 until it starts; everything else can be had now.
        if not (self.lean and needs_stage_one(self.config["augmentation"])):
            self.prepare_augmentation()
        return splits

    def prepare_augmentation(self) -> None:
        """Make the augmenter that the configuration asks for, training stage 1 if need be."""
        name = self.config["augmentation"]
        if self.histories.augmenter is None and name != "none":
            begin = time.perf_counter()
            self.histories.augmenter = AUGMENTERS[name](self, self.config)
            self.histories.seconds = time.perf_counter() - begin

    @property
    def reads_features(self) -> bool:
        """Whether this run reads item features."""
        return self._catalogue is not None

    def item_features(self) -> ItemFeatures:
        """Text and image features of all items, by internal id."""
        if self._catalogue is None:
            self._catalogue = ItemCatalogue(self.config, self.dataset_path, self.dataset_name)
        return self._catalogue.features([str(t) for t in self.field2id_token[self.iid_field][1:]])

    @property
    def log(self) -> InteractionLog:
        """All interactions with their split; complete once build() has run."""
        return self.histories.log

    def held_in_training(self) -> np.ndarray:
        """(N,) bool: the rows of the log that training's histories hold, by the key history."""
        held = self.log.training_behaviours()
        return held & (self.log.labels > 0) if self.config["history"] == "positive" else held

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        picked = self.inter_feat[index]
        batch = Interaction({name: picked[name] for name in picked})
        if ROW_FIELD not in batch:
            return self.join(batch) if join else batch
        self._add_histories(batch)
        return self.join(batch) if join and not self.lean else batch

    def _add_histories(self, batch: Interaction) -> None:
        if self.phase is not None:
            self.prepare_augmentation()
        positions, lengths, borrowed = self.histories.gather(
            batch[ROW_FIELD].numpy(), self.max_item_list_len, self.phase
        )
        if not self._trims():
            missing = self.max_item_list_len - positions.shape[1]
            positions = np.pad(positions, ((0, 0), (0, missing)), constant_values=-1)
        batch[self.item_list_length_field] = lengths
        for name, list_name in self._list_fields().items():
            batch[list_name] = self.histories.read(name, positions)
        if self.lean:
            batch[BORROWED_FIELD] = borrowed
            if self.histories.agreement is not None:
                rows = batch[ROW_FIELD].numpy()
                batch[AGREEMENT_FIELD] = torch.from_numpy(self.histories.agreement[rows])
            if self.phase == TRAIN:
                self._add_views(batch, positions, lengths)

    def _add_views(self, batch: Interaction, positions: np.ndarray, lengths: torch.Tensor) -> None:
        rows = batch[ROW_FIELD].numpy()
        views = self.histories.views(rows, positions, lengths.numpy(), self.max_item_list_len)
        for prefix, view in zip(VIEW_PREFIXES, views):
            batch[prefix + self.item_list_length_field] = torch.from_numpy(view.lengths)
            batch[prefix + RATE_FIELD] = torch.from_numpy(view.rates)
            for name, list_name in self._list_fields().items():
                batch[prefix + list_name] = self.histories.read(name, view.histories)

    def _trims(self) -> bool:
        """Whether lists may be as wide as their batch only: RecBole joins the batches of several
        users where it samples negatives for evaluation."""
        if self.phase not in (VALID, TEST):
            return self.lean
        arguments = self.config[f"{PHASE_NAMES[self.phase]}_neg_sample_args"]
        return self.lean and arguments["sample_num"] == "none"

    def fingerprint(self) -> str:
        """Hash of all that a run reads: interactions, splits, side features, augmentation."""
        digest = hashlib.sha256(self.log.fingerprint().encode())
        for feature in (self.user_feat, self.item_feat):
            for name in feature if feature is not None else ():
                digest.update(name.encode() + feature[name].numpy().tobytes())
        if self.config["model"] in FEATURE_MODELS:
            digest.update(self.item_features().fingerprint().encode())
        if self.histories.agreement is not None:
            digest.update(self.histories.agreement.tobytes())
        if self.histories.augmenter is not None:
            digest.update(self.histories.augmenter.fingerprint().encode())
        return digest.hexdigest()

    def _list_fields(self) -> dict[str, str]:
        fields = [name for name in self.histories.columns if name != self.uid_field]
        if self.lean:
            wanted = {self.iid_field, self.label_field if self.config["history_labels"] else None}
            fields = [name for name in fields if name in wanted]
        return {name: name + self.config["LIST_SUFFIX"] for name in fields}

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Users x items, of the targets and of first behaviours that a target follows."""
        if ROW_FIELD not in self.inter_feat:
            return Dataset.inter_matrix(self, form, value_field)
        rows, step = self.inter_feat[ROW_FIELD].numpy(), self.config["fixed_negatives"] + 1
        if self.log.drawn is not None:
            rows = rows[~self.log.drawn[rows]]
        firsts = self.log.offsets[self.log.users[rows]] + step - 1
        rows = np.concatenate([rows, firsts[rows == firsts + step]])
        columns = {
            name: self.histories.columns[name][torch.from_numpy(rows)]
            for name in (self.uid_field, self.iid_field, value_field)
            if name is not None
        }
        return self._create_sparse_matrix(
            Interaction(columns), self.uid_field, self.iid_field, form, value_field
        )


class CTRDataset(MultimodalDataset):
    """The data set for our own models."""

    lean = True


class TargetDataset(MultimodalDataset):
    """The data set for RecBole's context models: the same targets and splits, without histories."""

    def __init__(self, config: Config) -> None:
        defaults = {"MAX_ITEM_LIST_LENGTH": 1, "ITEM_LIST_LENGTH_FIELD": "item_length"}
        for key, value in defaults.items():
            if config[key] is None:
                config[key] = value
        super().__init__(config)

    def _aug_presets(self) -> None:
        """No lists, which a context model would embed."""

    def _add_histories(self, batch: Interaction) -> None:
        pass


class DIENMultimodalDataset(MultimodalDataset):
    """The data set for RecBole's DIEN, whose histories carry one sampled negative a behaviour."""

    def data_augmentation(self) -> None:
        """As for other models, with the negatives as one more flat column."""
        self.neg_item_list_field = (
            self.config["NEG_PREFIX"] + self.iid_field + self.config["LIST_SUFFIX"]
        )
        super().data_augmentation()
        self.seq_sampler = SeqSampler(self)
        items = self.histories.columns[self.iid_field]
        negatives = self.seq_sampler.sample_neg_sequence(items)
        self.histories.columns[self.config["NEG_PREFIX"] + self.iid_field] = negatives
