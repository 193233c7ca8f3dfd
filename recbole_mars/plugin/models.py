"""RecBole's view of our models: thin classes over the plain-torch networks."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import FeatureType, InputType
from torch import Tensor, nn

from recbole_mars.alignment import AlignmentExport, export_embeddings
from recbole_mars.ctr import DIN, FieldEmbedding, History, TrainingBatch
from recbole_mars.plugin.dataset import (
    AGREEMENT_FIELD,
    BORROWED_FIELD,
    RATE_FIELD,
    VIEW_PREFIXES,
    MultimodalDataset,
)
from recbole_mars.plugin.settings import din_settings, training_objective
from recbole_mars.plugin.stage_one import alignment_network

__all__ = ["MARS", "MARSAlign"]


class _CTRModel(SequentialRecommender, ABC):
    """A sequential CTR model with labels: binary cross-entropy over logits of the target."""

    input_type = InputType.POINTWISE

    def __init__(self, config: Config, dataset: MultimodalDataset) -> None:
        super().__init__(config, dataset)
        if not isinstance(dataset, MultimodalDataset):
            raise TypeError(
                f"{type(self).__name__} needs a MultimodalDataset, got {type(dataset).__name__}; "
                "make it with recbole.data.create_dataset(config)"
            )
        self.label_field = config["LABEL_FIELD"]
        self.label_list_field = self.label_field + config["LIST_SUFFIX"]
        self.history_labels = bool(config["history_labels"])
        self.loss = nn.BCEWithLogitsLoss()
        # A checkpoint indexes its embeddings by internal ids, which another data set numbers anew.
        self.register_buffer("data_fingerprint", _ids_fingerprint(dataset))
        self.register_load_state_dict_pre_hook(_refuse_other_data)

    @abstractmethod
    def logits(self, interaction: Interaction) -> Tensor:
        """Logits of the targets, (B,)."""

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        return self.loss(self.logits(interaction), interaction[self.label_field].float())

    def predict(self, interaction: Interaction) -> Tensor:
        return torch.sigmoid(self.logits(interaction))

    def _labels(self, interaction: Interaction, prefix: str = "") -> Tensor | None:
        return interaction[prefix + self.label_list_field] if self.history_labels else None


class MARS(_CTRModel):
    """MARS, stage 2: DIN over histories that borrow from similar high-active users.

    Stage 1 (alignment) and retrieval run before its first epoch, see MARSTrainer. With
    augmentation: none it is our plain DIN; cl4srec, coserec and basrec add an objective to that
    one's training.
    """

    def __init__(self, config: Config, dataset: MultimodalDataset) -> None:
        super().__init__(config, dataset)
        size = config["embedding_size"]
        items = FieldEmbedding(self.n_items, size, **_columns(dataset, dataset.iid_field))
        columns = _columns(dataset, dataset.uid_field)
        use_id = bool(config["mars_use_user_id"])
        users = None
        if use_id or any(columns.values()):
            users = FieldEmbedding(dataset.user_num, size, use_id=use_id, **columns)
        self.din = DIN(items, users, din_settings(config))
        self.agreement = bool(config["mars_agreement"])
        self.objective = training_objective(config)
        if config["mars_precision"] == "bfloat16" and _lacks_bfloat16(config["device"]):
            self.logger.warning(
                "mars_precision: bfloat16 is slower than float32 on this processor, which has no "
                "instructions for it (AMX or AVX512-BF16)"
            )

    def logits(self, interaction: Interaction) -> Tensor:
        return self._score(interaction)[0]

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        labels = interaction[self.label_field].float()
        logits, interest, target = self._score(interaction)
        loss = self.loss(logits, labels)
        # Without views in the epochs before an objective starts.
        if self.objective is None or VIEW_PREFIXES[0] + self.ITEM_SEQ not in interaction:
            return loss
        first, second = VIEW_PREFIXES
        batch = TrainingBatch(
            self._history(interaction),
            interaction[self.ITEM_ID],
            interaction[self.USER_ID],
            labels,
            (self._history(interaction, first), self._history(interaction, second)),
            (interaction[first + RATE_FIELD], interaction[second + RATE_FIELD]),
            self._context(interaction),
        )
        return loss + self.objective(self.din, batch, interest, target)

    def _score(self, interaction: Interaction) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B,), and interest and target vectors (B, D)."""
        history = self._history(interaction)
        interest, target = self.din.interest(history, interaction[self.ITEM_ID])
        user, context = interaction[self.USER_ID], self._context(interaction)
        return self.din.logits(interest, target, user, context), interest, target

    def _context(self, interaction: Interaction) -> Tensor | None:
        return interaction[AGREEMENT_FIELD] if self.agreement else None

    def _history(self, interaction: Interaction, prefix: str = "") -> History:
        """The history of each sample, or one of its views; a view is marked as all its own."""
        items = interaction[prefix + self.ITEM_SEQ]
        lengths = interaction[prefix + self.ITEM_SEQ_LEN]
        borrowed = torch.zeros_like(lengths) if prefix else interaction[BORROWED_FIELD]
        position = torch.arange(items.shape[1], device=items.device)
        mask = position < lengths.unsqueeze(1)
        return History(items, mask, self._labels(interaction, prefix), borrowed)


class MARSAlign(_CTRModel):
    """MARS, stage 1, as a CTR model of its own (eq. 12): the alignment network's score.

    Trained causally, all targets of a user in one pass, by MARSAlignTrainer; what it learns is
    the artifact that MARS uses.
    """

    def __init__(self, config: Config, dataset: MultimodalDataset) -> None:
        super().__init__(config, dataset)
        self.network = alignment_network(config, self.n_items, dataset.item_features())

    def logits(self, interaction: Interaction) -> Tensor:
        """The target is put behind its history, and its position's logit taken."""
        history, target = interaction[self.ITEM_SEQ], interaction[self.ITEM_ID]
        length = interaction[self.ITEM_SEQ_LEN].unsqueeze(1)
        items = torch.cat([history, torch.zeros_like(history[:, :1])], dim=1)
        items = items.scatter(1, length, target.unsqueeze(1))
        mask = torch.arange(items.shape[1], device=items.device) <= length
        labels = self._labels(interaction)
        if labels is not None:
            labels = torch.cat([labels, torch.zeros_like(labels[:, :1])], dim=1)
        output = self.network(items, mask, labels)
        return output.logits.gather(1, length).squeeze(1)

    def export(self, dataset: MultimodalDataset) -> AlignmentExport:
        """Multimodal embeddings of items and users (MARS, eq. 11 and 13), for use elsewhere.

        item_embeddings (I, D) and item_seen (I,) go by internal item id; donor_users (H,) are all
        users with training behaviours, donor_embeddings (H, D) theirs. dataset.id2token tells
        the names of internal ids. dataset: any split that build() made.
        """
        return export_embeddings(
            self.network,
            dataset.log,
            np.zeros(0, dtype=np.int64),
            np.flatnonzero(dataset.log.training_counts()),
            max_length=self.max_seq_length,
            device=self.device,
            progress=False,
        )


def _lacks_bfloat16(device: torch.device) -> bool:
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    answers = [getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name)]
    return device.type == "cpu" and bool(answers) and not any(answers)


def _columns(dataset: MultimodalDataset, id_field: str) -> dict[str, Any]:
    """Side features of items or users, as FieldEmbedding takes them."""
    feature = dataset.item_feat if id_field == dataset.iid_field else dataset.user_feat
    groups: dict[str, dict[str, Tensor]] = {"tokens": {}, "token_lists": {}, "numbers": {}}
    for name in feature if feature is not None else ():
        kind = dataset.field2type[name]
        if name == id_field:
            continue
        if kind == FeatureType.TOKEN:
            groups["tokens"][name] = feature[name]
        elif kind == FeatureType.TOKEN_SEQ:
            groups["token_lists"][name] = feature[name]
        elif kind == FeatureType.FLOAT and feature[name].dim() == 1:
            groups["numbers"][name] = feature[name]
        elif kind == FeatureType.FLOAT:  # numerical_features: (value, 1), discretised (1, bucket)
            if name in (dataset.config["discretization"] or {}):
                groups["tokens"][name] = feature[name][:, 1].long()
            else:
                groups["numbers"][name] = feature[name][:, 0]
        else:
            raise ValueError(
                f"side feature {name} is a float_seq, which a DIN field cannot hold; take it out "
                "of load_col, and give vectors as text_features or image_features"
            )
    return groups


def _ids_fingerprint(dataset: MultimodalDataset) -> Tensor:
    digest = hashlib.sha256(dataset.dataset_name.encode())
    for field in (dataset.uid_field, dataset.iid_field):
        digest.update("\n".join(map(str, dataset.field2id_token[field])).encode())
    return torch.tensor(list(digest.digest()[:16]), dtype=torch.uint8)


def _refuse_other_data(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    found = state.get(f"{prefix}data_fingerprint")
    if found is not None and not torch.equal(found.cpu(), model.data_fingerprint.cpu()):  # type: ignore[arg-type]
        raise ValueError(
            "the checkpoint was trained on another data set, or on other users and items of it; "
            "load it with the dataset, data_path and filters that it was trained with"
        )
