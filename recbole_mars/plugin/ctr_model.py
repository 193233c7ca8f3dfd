"""What our CTR models have in common as RecBole sees them.

Dimension letters: B batch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import FeatureType, InputType
from torch import Tensor, nn

from recbole_mars.ctr import NETWORKS, FieldEmbedding, History, Prediction, build_network
from recbole_mars.plugin.dataset import AGREEMENT_FIELD, BORROWED_FIELD, MultimodalDataset
from recbole_mars.plugin.modalities import item_modalities
from recbole_mars.plugin.settings import OWN_SETTINGS, check_heads, din_settings

__all__ = ["CTRModel", "SequenceModel"]


class CTRModel(SequentialRecommender, ABC):
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
        # A checkpoint indexes its embeddings by internal ids, which another data set numbers anew,
        # and holds no features.
        features = dataset.item_features().fingerprint() if dataset.reads_features else ""
        self.register_buffer("data_fingerprint", _fingerprint(dataset, features))
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


class SequenceModel(CTRModel):
    """A CTR model of a history, a target, a user's own features and agreement.

    Its network is called as network(history, target_item, user, context) and returns a Prediction.
    """

    network: nn.Module

    def __init__(self, config: Config, dataset: MultimodalDataset) -> None:
        super().__init__(config, dataset)
        self.agreement = bool(config["mars_agreement"])
        if config["mars_precision"] == "bfloat16" and _lacks_bfloat16(config["device"]):
            self.logger.warning(
                "mars_precision: bfloat16 is slower than float32 on this processor, which has no "
                "instructions for it (AMX or AVX512-BF16)"
            )
        self.network = self._make_network(config, dataset)
        # Constants of the data set, alike in all processes: not to be sent in every step.
        kept = set(self.state_dict())
        constants = [name for name, _ in self.named_buffers() if name not in kept]
        self._ddp_params_and_buffers_to_ignore = constants

    def _make_network(self, config: Config, dataset: MultimodalDataset) -> nn.Module:
        """What scores, in plain torch: the network that is called as the model is."""
        name = config["model"]
        own = OWN_SETTINGS[name](config) if name in OWN_SETTINGS else None
        embeddings = self.embeddings(config, dataset)
        if name == "UniSRec":
            check_heads(config, embeddings[0].width)
        modalities = item_modalities(config, dataset) if NETWORKS[name].reads_features else []
        return build_network(name, *embeddings, din_settings(config), own, modalities)

    @staticmethod
    def embeddings(
        config: Config, dataset: MultimodalDataset
    ) -> tuple[FieldEmbedding, FieldEmbedding | None]:
        """Of items, and of users, None if nothing of them is read."""
        size = config["embedding_size"]
        items = FieldEmbedding(dataset.item_num, size, **_columns(dataset, dataset.iid_field))
        columns = _columns(dataset, dataset.uid_field)
        use_id = bool(config["mars_use_user_id"])
        users = None
        if use_id or any(columns.values()):
            users = FieldEmbedding(dataset.user_num, size, use_id=use_id, **columns)
        return items, users

    def predictions(self, interaction: Interaction) -> Prediction:
        """What the network says of a batch."""
        return self.network(
            self.history(interaction),
            interaction[self.ITEM_ID],
            interaction[self.USER_ID],
            self.context(interaction),
        )

    def logits(self, interaction: Interaction) -> Tensor:
        return self.predictions(interaction).logits

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        found = self.predictions(interaction)
        loss = self.loss(found.logits, interaction[self.label_field].float())
        return loss if found.loss is None else loss + found.loss

    def context(self, interaction: Interaction) -> Tensor | None:
        """Numbers about each sample that the final network reads, (B, C), or None."""
        return interaction[AGREEMENT_FIELD] if self.agreement else None

    def history(self, interaction: Interaction, prefix: str = "") -> History:
        """The history of each sample, or one of its views; a view is marked as all its own."""
        items = interaction[prefix + self.ITEM_SEQ]
        lengths = interaction[prefix + self.ITEM_SEQ_LEN]
        borrowed = torch.zeros_like(lengths) if prefix else interaction[BORROWED_FIELD]
        position = torch.arange(items.shape[1], device=items.device)
        mask = position < lengths.unsqueeze(1)
        return History(items, mask, self._labels(interaction, prefix), borrowed)


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


def _fingerprint(dataset: MultimodalDataset, features: str) -> Tensor:
    """Of what a checkpoint takes for granted: ids, and the features' fingerprint."""
    digest = hashlib.sha256(dataset.dataset_name.encode())
    for field in (dataset.uid_field, dataset.iid_field):
        digest.update("\n".join(map(str, dataset.field2id_token[field])).encode())
    digest.update(features.encode())
    return torch.tensor(list(digest.digest()[:16]), dtype=torch.uint8)


def _refuse_other_data(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    found = state.get(f"{prefix}data_fingerprint")
    if found is not None and not torch.equal(found.cpu(), model.data_fingerprint.cpu()):  # type: ignore[arg-type]
        raise ValueError(
            "the checkpoint was trained on another data set, on other users and items of it, or "
            "with other item features; load it with the dataset, data_path, filters and features "
            "that it was trained with; computed ones are kept under checkpoint_dir/features, by "
            "default in the folder where it was trained"
        )
