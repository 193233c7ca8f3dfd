"""From a user and candidate items to click probabilities, as the offline model would say.

Dimension letters: C candidates of a request, B candidates of all requests, L longest history,
n behaviours of a user, D width of multimodal embeddings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from recbole_mars.agreement import FittedClickAgreement
from recbole_mars.alignment import pooled_user_embedding
from recbole_mars.ctr import History, score_candidates
from recbole_mars.evaluation import LOW
from recbole_mars.serving.donors import Borrowed, Donors
from recbole_mars.serving.model_folder import TrainedModel
from recbole_mars.serving.users import UNKNOWN_GROUP, UserRecord

__all__ = ["NetworkInput", "Prepared", "Request", "Scorer", "collate", "embedding_space"]


@dataclass(frozen=True, eq=False)
class Request:
    """Who is asked about what.

    user: name. record: what is known of the user, with all behaviours up to now. candidates: (C,)
    internal item ids, 0 for an unknown one. time: now, in the log's unit. augment: False scores the
    user's own history alone.
    """

    user: str
    record: UserRecord
    candidates: np.ndarray
    time: float = np.inf
    augment: bool = True


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request as the network reads it.

    items, labels: (L,) the augmented history. borrowed: what it begins with, None where nothing was
    asked for. context: (C, width) agreement, or None.
    """

    request: Request
    items: np.ndarray
    labels: np.ndarray
    borrowed: Borrowed | None
    context: np.ndarray | None


class NetworkInput(NamedTuple):
    """What a network is called with. targets, users: (B,) ids. context: (B, width), or None."""

    history: History
    targets: torch.Tensor
    users: torch.Tensor
    context: torch.Tensor | None


def collate(prepared: Sequence[Prepared]) -> NetworkInput:
    """The candidates of all requests, in order, each with its request's history."""
    history, targets, users, context = _shared(prepared)
    counts = torch.tensor([len(each.request.candidates) for each in prepared])
    of = torch.arange(len(counts)).repeat_interleave(counts)
    return NetworkInput(history.chosen(of), targets, users[of], context)


def _shared(prepared: Sequence[Prepared]) -> NetworkInput:
    """As collate, but history and users are those of the requests, each once."""
    lengths = np.array([len(each.items) for each in prepared])
    width = int(lengths.max())
    items = np.zeros((len(prepared), width), dtype=np.int64)
    labels = np.zeros((len(prepared), width), dtype=np.float32)
    for row, each in enumerate(prepared):
        items[row, : lengths[row]], labels[row, : lengths[row]] = each.items, each.labels
    borrowed = [0 if each.borrowed is None else len(each.borrowed.rows) for each in prepared]
    history = History(
        torch.from_numpy(items),
        torch.from_numpy(np.arange(width) < lengths[:, None]),
        torch.from_numpy(labels),
        torch.tensor(borrowed),
    )
    targets = np.concatenate([each.request.candidates for each in prepared]).astype(np.int64)
    users = torch.tensor([each.request.record.user for each in prepared])
    contexts = [each.context for each in prepared if each.context is not None]
    context = torch.from_numpy(np.concatenate(contexts)) if contexts else None
    return NetworkInput(history, torch.from_numpy(targets), users, context)


class Scorer:
    """A model and the donors of one snapshot; score is for one thread at a time.

    donors: None for a model without augmentation, or where there are none.
    """

    def __init__(self, model: TrainedModel, donors: Donors | None) -> None:
        self.model = model
        self.donors = donors if model.settings.retrieval is not None else None
        self.space = embedding_space(model)

    @classmethod
    def load(cls, folder: Path) -> Scorer:
        """From a snapshot's folder."""
        there = (folder / "donors").is_dir()
        return cls(
            TrainedModel.load(folder / "model"), Donors.load(folder / "donors") if there else None
        )

    def embed(self, records: Sequence[UserRecord]) -> np.ndarray:
        """emb_user^mm after each user's latest behaviours (MARS, eq. 13), (U, D) float32.

        What the record holds of the current space is taken; zeros for nobody's behaviours, and a
        width of 0 for a model without stage 1.
        """
        network = self.model.alignment
        if network is None:
            return np.zeros((len(records), 0), dtype=np.float32)
        found = np.zeros((len(records), network.settings.width), dtype=np.float32)
        missing = []
        for place, record in enumerate(records):
            if record.space == self.space and len(record.embedding):
                found[place] = record.embedding
            elif len(record):
                missing.append(place)
        if missing:
            embeddings, mask = self.embed_behaviours([records[place] for place in missing])
            found[missing] = pooled_user_embedding(embeddings, mask).numpy()
        return found

    @torch.inference_mode()
    def embed_behaviours(self, records: Sequence[UserRecord]) -> tuple[torch.Tensor, torch.Tensor]:
        """emb_item^mm of each user's latest behaviours (MARS, eq. 11), and which are real.

        Each user has some. Returns (U, L, D), oldest first, and (U, L) bool. Raises ValueError for
        a model without stage 1.
        """
        network, requests = self.model.alignment, self.model.settings.requests
        if network is None:
            raise ValueError("this model has no stage 1; train one with augmentation: mars")
        latest = [slice(-requests.max_length, None)] * len(records)
        items = [record.items[part] for record, part in zip(records, latest)]
        liked = [record.liked[part] for record, part in zip(records, latest)]
        lengths = np.array([len(part) for part in items])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        labels = np.zeros(mask.shape, dtype=np.float32)
        ids[mask] = np.concatenate(items)
        labels[mask] = np.concatenate(liked)
        tensors = [torch.from_numpy(array) for array in (ids, mask, labels)]
        return network.embed(*tensors), tensors[1]

    def prepare(self, request: Request) -> Prepared:
        """Find, filter and prepend what the user borrows (MARS, eq. 15-18); ask for agreement."""
        requests = self.model.settings.requests
        record = request.record
        own = np.arange(len(record))
        if requests.history == "positive":
            own = np.flatnonzero(record.liked)
        own = own[-requests.max_length :]
        items, labels = record.items[own], record.liked[own]
        borrowed = None
        if request.augment and self.donors is not None and self.is_low_active(record):
            borrowed = self.borrow(request, requests.max_length - len(own))
        if borrowed is not None and self.donors is not None:
            lent = borrowed.rows
            items = np.concatenate([self.donors.items[lent], items])
            labels = np.concatenate([self.donors.liked[lent], labels])
        return Prepared(request, items, labels, borrowed, self._agreement(request))

    def is_low_active(self, record: UserRecord) -> bool:
        """As training had the user; a new one by the number of behaviours."""
        if record.group == UNKNOWN_GROUP:
            return record.seen <= self.model.settings.requests.low_up_to
        return record.group == LOW

    def borrow(self, request: Request, room: int) -> Borrowed | None:
        """What the user's history begins with; None for a user without behaviours."""
        settings = self.model.settings
        if self.donors is None or settings.retrieval is None or not len(request.record):
            return None
        query = self.embed([request.record])[0]
        return self.donors.borrow(
            query, request.user, room, settings.retrieval, settings.threshold, request.time
        )

    @torch.inference_mode()
    def score(self, prepared: Sequence[Prepared]) -> list[np.ndarray]:
        """Probabilities of each request's candidates, (C,) float32 each, in one pass."""
        counts = [len(each.request.candidates) for each in prepared]
        if not sum(counts):
            return [np.zeros(0, dtype=np.float32) for _ in prepared]
        history, targets, users, context = _shared(prepared)
        logits = score_candidates(self.model.network, history, targets, counts, users, context)
        return list(np.split(torch.sigmoid(logits).numpy(), np.cumsum(counts)[:-1]))

    def _agreement(self, request: Request) -> np.ndarray | None:
        fitted, record = self.model.agreement, request.record
        if fitted is None:
            return None
        if isinstance(fitted, FittedClickAgreement):
            return fitted.expect(
                record.items, request.candidates, record.fold, record.seen, request.time
            )
        return fitted.expect(
            record.items,
            record.opinions,
            record.trained,
            request.candidates,
            record.fold,
            n_behaviours=record.seen,
        )


def embedding_space(model: TrainedModel) -> str:
    """A name for the space of multimodal embeddings: that of stage 1's weights; "" without any."""
    if model.alignment is None:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.alignment.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    digest.update(str(model.settings.requests.max_length).encode())
    return digest.hexdigest()
