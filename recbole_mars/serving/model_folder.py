"""A trained model as plain files, without RecBole: what the offline runner starts from.

Dimension letters: I items and U users, padding included, N interactions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from recbole_mars.agreement import AGREEMENTS, FittedAgreement, FittedClickAgreement
from recbole_mars.alignment import AlignmentNetwork, AlignmentSettings
from recbole_mars.augmentation import RetrievalSettings
from recbole_mars.ctr import (
    NETWORKS,
    DINSettings,
    FieldEmbedding,
    Modality,
    build_network,
)
from recbole_mars.serving.tensors import load_tensors, save_tensors
from recbole_mars.serving.tokens import TokenTable

__all__ = [
    "ModelSettings",
    "RequestSettings",
    "TrainedModel",
    "describe_table",
    "table_columns",
]

_SETTINGS = "model.json"
_FORMAT = 1
_SPREADS = 10.0  # standard deviations of opinions, from their mean


@dataclass(frozen=True)
class RequestSettings:
    """How a user's behaviours become what the network reads.

    max_length: of a history. history: "all" behaviours, or the "positive" ones. like_from: the
    value of an event from which on it is a like. opinions: what agreement reads of an event, its
    "value" or its "label". clicks_only: whether only likes become behaviours, as in training on
    clicks; what was shown in vain can be learnt from, and is then forgotten. low_up_to, high_from:
    users whom training did not know are low-active up to so many behaviours, and high-active from
    so many on. kept: behaviours kept of a user.

    Raises ValueError for an unknown choice or a number out of range.
    """

    max_length: int
    history: str = "all"
    like_from: float = 1.0
    opinions: str = "label"
    clicks_only: bool = False
    low_up_to: int = 0
    high_from: int = 1 << 30
    kept: int = 1000

    def __post_init__(self) -> None:
        for name, known in (("history", ("all", "positive")), ("opinions", ("value", "label"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if not 1 <= self.max_length <= self.kept:
            raise ValueError(f"max_length must lie in 1..kept ({self.kept}), got {self.max_length}")

    def read(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether events of these values are likes, bool, and the opinions, float32."""
        liked = np.asarray(values) >= self.like_from
        opinions = np.asarray(values) if self.opinions == "value" else liked
        return liked, opinions.astype(np.float32)

    def remembered(self, liked: np.ndarray) -> np.ndarray:
        """Which events become behaviours of their user, bool."""
        return liked if self.clicks_only else np.ones_like(liked)


@dataclass(frozen=True)
class ModelSettings:
    """Everything about a model that is not an array.

    network: of NETWORKS, din and own its settings. items, users: how their embeddings are made, see
    describe_table; users is None for a model without users' own features.
    modalities: names of those that the network reads. alignment: stage 1, None without
    augmentation. retrieval, threshold: how histories are augmented, and the cosine that theta came
    to. agreement: of AGREEMENTS, "" if the network reads none. dataset: the name, for whoever reads
    the file. feature_storage: what the network keeps of its modalities in memory, see FrozenRows.
    """

    network: str
    din: DINSettings
    own: Any
    items: Mapping[str, Any]
    users: Mapping[str, Any] | None
    modalities: tuple[str, ...]
    alignment: AlignmentSettings | None
    retrieval: RetrievalSettings | None
    threshold: float
    agreement: str
    requests: RequestSettings
    dataset: str = ""
    feature_storage: str = "float32"

    def to_json(self) -> str:
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelSettings:
        """Raises ValueError for a text that to_json did not write."""
        try:
            found = json.loads(text)
            if found.pop("format") != _FORMAT:
                raise ValueError(f"its format must be {_FORMAT}")
            if found["network"] not in NETWORKS:
                raise ValueError(f"network {found['network']!r} is unknown")
            if found["agreement"] and found["agreement"] not in AGREEMENTS:
                raise ValueError(f"agreement {found['agreement']!r} is unknown")
            own = NETWORKS[found["network"]].settings
            kinds: dict[str, Any] = {
                "din": DINSettings,
                "own": own,
                "alignment": AlignmentSettings,
                "retrieval": RetrievalSettings,
                "requests": RequestSettings,
                "modalities": tuple,
            }
            for name, kind in kinds.items():
                if found[name] is not None:
                    given = found[name]
                    found[name] = kind(given) if kind is tuple else kind(**given)
            return cls(**found)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{_SETTINGS} is not that of a model: {error}") from None


@dataclass
class TrainedModel:
    """A model that can score, and what is known about the world that it was trained in.

    network: in eval mode. alignment: in eval mode, None without augmentation. agreement: None
    without. items: names of the internal ids 1, 2, ... columns: of the item and user
    embeddings, see table_columns. features: frozen vectors by modality, of stage 1 and the network.
    """

    settings: ModelSettings
    network: nn.Module
    alignment: AlignmentNetwork | None
    agreement: FittedAgreement | FittedClickAgreement | None
    items: TokenTable
    columns: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Modality] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        """Internal item ids, padding included."""
        return len(self.items) + 1

    def plausible(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Which values of events are no mistakes, bool: one far from all ratings would drown them.

        A model that reads labels alone takes any.
        """
        found = np.asarray(values, dtype=np.float64)
        fitted = self.agreement
        if not isinstance(fitted, FittedAgreement) or self.settings.requests.opinions != "value":
            return np.ones(len(found), dtype=bool)
        return np.abs(found - fitted.opinion_mean) <= _SPREADS * fitted.opinion_spread

    def save(self, folder: Path) -> None:
        """Write the files into a folder that is there; whoever calls makes it whole."""
        (folder / _SETTINGS).write_text(self.settings.to_json(), encoding="utf-8")
        self.items.save(folder / "items")
        (folder / "features").mkdir()
        for name, modality in self.features.items():
            np.save(folder / "features" / f"{name}.npy", modality.vectors, allow_pickle=False)
            present = folder / "features" / f"{name}_present.npy"
            np.save(present, modality.present, allow_pickle=False)
        save_tensors(_own(self.columns), folder / "columns.safetensors")
        self.save_network(folder)
        if self.alignment is not None:
            save_tensors(_own(self.alignment.state_dict()), folder / "alignment.safetensors")
        if self.agreement is not None:
            self.agreement.save(folder / "agreement")

    def save_network(self, folder: Path) -> None:
        """Write the CTR network's weights alone, which streaming training changes."""
        save_tensors(_own(self.network.state_dict()), folder / "network.safetensors")

    @classmethod
    def load(cls, folder: Path) -> TrainedModel:
        """Read what save wrote.

        Raises FileNotFoundError for a missing file, ValueError for one that does not fit.
        """
        settings = ModelSettings.from_json((folder / _SETTINGS).read_text(encoding="utf-8"))
        tokens = TokenTable.load(folder / "items")
        features = {}
        for path in sorted((folder / "features").glob("*_present.npy")):
            name = path.name[: -len("_present.npy")]
            vectors = np.load(path.with_name(f"{name}.npy"), mmap_mode="r", allow_pickle=False)
            features[name] = Modality(name, vectors, np.load(path, allow_pickle=False))
        columns = load_tensors(folder / "columns.safetensors")
        items = _embedding(columns, "items", settings.items)
        users = _embedding(columns, "users", settings.users) if settings.users else None
        kept = settings.feature_storage
        modalities = [features[name]._replace(storage=kept) for name in settings.modalities]
        network = build_network(
            settings.network, items, users, settings.din, settings.own, modalities
        )
        _fill(network, folder / "network.safetensors")
        alignment = None
        if settings.alignment is not None:
            given = [features.get(name) for name in ("text", "image")]
            arrays = [x for m in given for x in ((m.vectors, m.present) if m else (None, None))]
            alignment = AlignmentNetwork(settings.alignment, len(tokens) + 1, *arrays)
            _fill(alignment, folder / "alignment.safetensors")
        kind = AGREEMENTS.get(settings.agreement)
        agreement = None if kind is None else kind.load(folder / "agreement")
        return cls(settings, network, alignment, agreement, tokens, columns, features)


def describe_table(table: FieldEmbedding) -> dict[str, Any]:
    """How an embedding is made: its sizes, and the names of its columns by group."""
    names = {group: list(columns) for group, columns in table.columns().items()}
    return {
        "n_ids": table.n_ids,
        "embedding_size": table.embedding_size,
        "use_id": table.id_embedding is not None,
        **names,
    }


def table_columns(name: str, table: FieldEmbedding) -> dict[str, Tensor]:
    """The columns of an embedding, each under "name.group.column"."""
    return {
        f"{name}.{group}.{key}": column
        for group, columns in table.columns().items()
        for key, column in columns.items()
    }


def _embedding(
    columns: Mapping[str, Tensor], name: str, settings: Mapping[str, Any]
) -> FieldEmbedding:
    groups = {
        group: {key: columns[f"{name}.{group}.{key}"] for key in settings[group]}
        for group in ("tokens", "token_lists", "numbers")
    }
    n_ids, size, use_id = (settings[key] for key in ("n_ids", "embedding_size", "use_id"))
    return FieldEmbedding(n_ids, size, **groups, use_id=use_id)


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share no memory, on the CPU."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _fill(module: nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its settings: {error}") from None
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
