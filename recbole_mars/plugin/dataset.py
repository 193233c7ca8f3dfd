"""RecBole's sequential data set with lazy histories, 64-bit time order and augmentation."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole.sampler import SeqSampler

from recbole_mars.augmentation import Augmenter
from recbole_mars.data import TEST, TRAIN, VALID, HistoryIndex, InteractionLog
from recbole_mars.plugin.catalogue import ItemCatalogue, ItemFeatures

__all__ = [
    "AUGMENTERS",
    "BORROWED_FIELD",
    "ROW_FIELD",
    "CTRDataset",
    "DIENMultimodalDataset",
    "MultimodalDataset",
]

ROW_FIELD = "log_row"  # the target's row in the interaction log
BORROWED_FIELD = "borrowed_length"  # behaviours at the head of the history that a donor gave
AUGMENTERS: dict[str, Callable[[MultimodalDataset, Config], Augmenter]] = {}  # by name
_PHASE_NAMES = {TRAIN: "train", VALID: "valid", TEST: "test"}


class MultimodalDataset(SequentialDataset):
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
        self.histories = _Histories()
        self.phase: int | None = None  # set on each split by build()
        super().__init__(config)
        self._catalogue: ItemCatalogue | None = None
        if config["augmentation"] != "none" or config["model"] == "MARSAlign":
            self._catalogue = ItemCatalogue(config, self.dataset_path, self.dataset_name)

    @staticmethod
    def _check_options(config: Config) -> None:
        length = config["MAX_ITEM_LIST_LENGTH"]
        if not isinstance(length, int) or length < 1:
            raise ValueError(f"MAX_ITEM_LIST_LENGTH must be an integer >= 1, got {length!r}")
        allowed = {
            "history": ("all", "positive"),
            "min_history": (0, 1),
            "duplicates": ("error", "keep", "drop"),
            "augmentation": ("none", *AUGMENTERS),
            "retrieval_scope": ("behaviour", "user"),
        }
        for key, values in allowed.items():
            if config[key] not in values:
                raise ValueError(f"{key} must be one of {values}, got {config[key]!r}")
        if config["benchmark_filename"] is not None:
            raise ValueError(
                "benchmark_filename holds ready-made histories, which this data set builds "
                "itself; remove it and choose the split with eval_args"
            )

    def _get_preset(self) -> None:
        super()._get_preset()
        # RecBole reads ml-100k from its own package whatever data_path says.
        asked = self.config.external_config_dict.get("data_path")
        if asked and self.dataset_name == "ml-100k":
            self.dataset_path = os.path.join(str(asked), self.dataset_name)
            self.config["data_path"] = self.dataset_path

    # -- reading ---------------------------------------------------------------------------

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        plain = os.path.join(dataset_path, f"{token}.inter")
        if os.path.isfile(plain) or not os.path.isfile(f"{plain}.gz"):
            super()._load_inter_feat(token, dataset_path)
            return
        with tempfile.TemporaryDirectory() as folder:
            unpacked = os.path.join(folder, f"{token}.inter")
            with gzip.open(f"{plain}.gz", "rb") as packed, open(unpacked, "wb") as file:
                shutil.copyfileobj(packed, file)
            super()._load_inter_feat(token, folder)

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame | None:
        with open(filepath, encoding=self.config["encoding"] or "utf-8") as file:
            header = file.readline().rstrip("\n").split(self.config["field_separator"])
        bad = [column for column in header if column.count(":") != 1]
        if bad:
            raise ValueError(
                f"{filepath}: column {bad[0]!r} must be named name:type (token, token_seq, float "
                "or float_seq), separated by tabs; see RecBole's atomic files"
            )
        return super()._load_feat(filepath, source)

    def _data_filtering(self) -> None:
        for field in (self.uid_field, self.iid_field, self.time_field):
            if field not in self.inter_feat:
                raise ValueError(
                    f"{self.dataset_name}.inter must have the column {field!r}, found "
                    f"{list(self.inter_feat)}; add it to load_col or set the field's name"
                )
        for field in (self.uid_field, self.iid_field):
            missing = self.inter_feat.index[self.inter_feat[field].isnull()]
            if len(missing):
                raise ValueError(
                    f"{self.dataset_name}.inter: {len(missing)} rows have no {field}, the first in "
                    f"line {missing[0] + 2}; an id that is empty or reads as missing (nan, NULL, "
                    "NA, None) must be renamed"
                )
        self._handle_duplicates()
        super()._data_filtering()

    def _handle_duplicates(self) -> None:
        how = self.config["duplicates"]
        key = [self.uid_field, self.iid_field, self.time_field]
        repeated = self.inter_feat.duplicated(key, keep="last")
        if how == "keep" or not repeated.any():
            return
        first = self.inter_feat.loc[repeated, key].iloc[0].tolist()
        found = (
            f"{int(repeated.sum())} rows repeat the user, item and time of another, "
            f"the first: {dict(zip(key, first))}"
        )
        if how == "error":
            raise ValueError(
                f"{self.dataset_name}.inter: {found}. A repeated row shows a target in its own "
                "history; remove them, or set duplicates: drop (the last is kept) or keep"
            )
        self.logger.warning(f"{found}; dropped, the last of each is kept (duplicates: drop)")
        self.inter_feat = self.inter_feat[~repeated]

    # -- histories -------------------------------------------------------------------------

    def _change_feat_format(self) -> None:
        # RecBole casts times to float32 before it sorts, 64-second steps at today's epoch:
        # the order is settled here, in 64 bit, ties in file order.
        self.inter_feat = self.inter_feat.sort_values(
            [self.uid_field, self.time_field], kind="stable", ignore_index=True
        )
        super()._change_feat_format()

    def _dataframe_to_interaction(self, data: pd.DataFrame) -> Interaction:
        interaction = super()._dataframe_to_interaction(data)
        if self.time_field in data and self.time_field not in self.config["numerical_features"]:
            times = data[self.time_field].to_numpy(dtype=np.float64)
            interaction[self.time_field] = torch.from_numpy(times.copy())
        return interaction

    def data_augmentation(self) -> None:
        """Keep the interactions as flat columns; the targets are those with enough history."""
        self._aug_presets()
        columns = {name: self.inter_feat[name] for name in self.inter_feat}
        users = columns[self.uid_field].numpy()
        if self.label_field in columns:
            labels = columns[self.label_field].float()
        else:
            labels = torch.ones(len(users))
        log = InteractionLog(
            users=users,
            items=columns[self.iid_field].numpy(),
            labels=labels.numpy(),
            times=columns[self.time_field].numpy(),
            phases=np.zeros(len(users), dtype=np.int8),
            n_users=self.user_num,
            n_items=self.item_num,
        )
        first = np.r_[True, users[1:] != users[:-1]]
        targets = np.flatnonzero(~first) if self.config["min_history"] else np.arange(len(users))
        single = int((np.diff(log.offsets) == 1).sum())
        if single and self.config["min_history"]:
            self.logger.info(f"{single} users have one interaction: history for no target")
        feat = Interaction({name: column[targets] for name, column in columns.items()})
        if self.lean:
            columns.setdefault(self.label_field, labels)
        self.histories.set_log(log, columns, self.config["history"])
        feat[ROW_FIELD] = torch.from_numpy(targets)
        length = np.minimum(self.histories.index.lengths(targets), self.max_item_list_len)
        feat[self.item_list_length_field] = torch.from_numpy(length)
        self.inter_feat = feat

    def build(self) -> list[MultimodalDataset]:
        """The training, validation and test sets, which share one log of behaviours."""
        splits = super().build()
        phases = np.full(len(self.histories.log), -1, dtype=np.int8)
        for phase, split in enumerate(splits):
            split.phase = phase
            phases[split.inter_feat[ROW_FIELD].numpy()] = phase
        self.histories.set_phases(_phases_of_first_rows(self.histories.log, phases))
        self._check_labels()
        if self.config["augmentation"] != "none" and not self.lean:
            self.prepare_augmentation()
        return splits

    def _check_labels(self) -> None:
        """Both classes must be observed by our models, and by stage 1 for any model."""
        sampled = self.config["train_neg_sample_args"]["distribution"] != "none"
        if self._catalogue is None and (sampled or not self.lean):
            return
        labels = np.unique(self.log.labels[self.log.phases == TRAIN])
        if len(labels) < 2:
            remedy = "" if self._catalogue else ", or sample negatives with train_neg_sample_args"
            raise ValueError(
                f"training labels must be of both classes, got only {labels.tolist()}; set "
                f"threshold (now {self.config['threshold']}) so that some are 0 and some 1{remedy}"
            )

    def prepare_augmentation(self) -> None:
        """Make the augmenter that the configuration asks for, training stage 1 if need be."""
        name = self.config["augmentation"]
        if self.histories.augmenter is None and name != "none":
            self.histories.augmenter = AUGMENTERS[name](self, self.config)

    def item_features(self) -> ItemFeatures:
        """Text and image features of all items, by internal id."""
        if self._catalogue is None:
            self._catalogue = ItemCatalogue(self.config, self.dataset_path, self.dataset_name)
        return self._catalogue.features([str(t) for t in self.field2id_token[self.iid_field][1:]])

    @property
    def log(self) -> InteractionLog:
        """All interactions with their split; complete once build() has run."""
        return self.histories.log

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        index = torch.as_tensor(np.asarray(index)) if not isinstance(index, slice) else index
        batch = Interaction({name: self.inter_feat[name][index] for name in self.inter_feat})
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
            positions = torch.nn.functional.pad(positions, (0, missing), value=-1)
        batch[self.item_list_length_field] = lengths
        for name, list_name in self._list_fields().items():
            batch[list_name] = self.histories.column(name)[positions]
        if self.lean:
            batch[BORROWED_FIELD] = borrowed

    def _trims(self) -> bool:
        """Whether lists may be as wide as their batch only: RecBole joins the batches of several
        users where it samples negatives for evaluation."""
        if self.phase not in (VALID, TEST):
            return self.lean
        arguments = self.config[f"{_PHASE_NAMES[self.phase]}_neg_sample_args"]
        return self.lean and arguments["sample_num"] == "none"

    def fingerprint(self) -> str:
        """Hash of all that a run reads: interactions, splits, side features, augmentation."""
        digest = hashlib.sha256(self.log.fingerprint().encode())
        for feature in (self.user_feat, self.item_feat):
            for name in feature if feature is not None else ():
                digest.update(name.encode() + feature[name].numpy().tobytes())
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
        rows = self.inter_feat[ROW_FIELD].numpy()
        firsts = self.log.offsets[self.log.users[rows]]
        rows = np.concatenate([rows, firsts[rows == firsts + 1]])
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


class DIENMultimodalDataset(MultimodalDataset):
    """The data set for RecBole's DIEN, whose histories carry one sampled negative a behaviour."""

    def data_augmentation(self) -> None:
        """As for other models, with the negatives as one more flat column."""
        self.neg_item_list_field = (
            self.config["NEG_PREFIX"] + self.iid_field + self.config["LIST_SUFFIX"]
        )
        self.seq_sampler = SeqSampler(self)
        negatives = self.seq_sampler.sample_neg_sequence(self.inter_feat[self.iid_field])
        super().data_augmentation()
        self.histories.columns[self.config["NEG_PREFIX"] + self.iid_field] = negatives


class _Histories:
    """What the splits of a data set share: the log, its columns, the augmenter."""

    def __init__(self) -> None:
        self.log: InteractionLog
        self.index: HistoryIndex
        self.columns: dict[str, torch.Tensor] = {}
        self.augmenter: Augmenter | None = None
        self._padded: dict[str, torch.Tensor] = {}

    def set_log(self, log: InteractionLog, columns: dict[str, torch.Tensor], kind: str) -> None:
        self.log = log
        self.columns = columns
        self.index = HistoryIndex(log, kind)

    def set_phases(self, phases: np.ndarray) -> None:
        log = self.log
        self.log = InteractionLog(
            log.users, log.items, log.labels, log.times, phases, log.n_users, log.n_items
        )

    def column(self, name: str) -> torch.Tensor:
        """A column with one more row of zeros, which position -1 reads."""
        if name not in self._padded:
            values = self.columns[name]
            self._padded[name] = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
        return self._padded[name]

    def gather(
        self, rows: np.ndarray, max_length: int, phase: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Positions (B, L) padded with -1, their lengths (B,) and how many are borrowed (B,)."""
        positions, own = self.index.rows_before(rows, max_length)
        lengths = own
        if self.augmenter is not None and phase is not None:
            positions, lengths = self.augmenter.augment(
                rows, positions, own, max_length, _PHASE_NAMES[phase]
            )
        if positions.shape[1] == 0:  # nobody has a history: one padded place keeps shapes simple
            positions = np.full((len(rows), 1), -1, dtype=np.int64)
        as_tensor = torch.from_numpy
        return as_tensor(positions), as_tensor(lengths), as_tensor(lengths - own)


def _phases_of_first_rows(log: InteractionLog, phases: np.ndarray) -> np.ndarray:
    """Give rows that are no targets a split: that of the user's next row, or by time.

    A first behaviour belongs to training if the user's next one does, or if it is no later than
    the last training target; else it is as late as the split that it falls into.
    """
    result = phases.copy()
    unset = np.flatnonzero(phases < 0)
    following = np.minimum(unset + 1, len(log) - 1)
    same_user = log.users[following] == log.users[unset]
    latest = [log.times[phases == phase].max(initial=-np.inf) for phase in (TRAIN, VALID)]
    by_time = np.where(
        log.times[unset] <= latest[0], TRAIN, np.where(log.times[unset] <= latest[1], VALID, TEST)
    )
    result[unset] = np.where(same_user & (phases[following] == TRAIN), TRAIN, by_time)
    return result
