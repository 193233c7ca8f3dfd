"""Donors from users' records, embedding anew only those who have changed.

Dimension letters: H donors, R behaviours of all donors, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from recbole_mars.alignment import pooled_user_embedding
from recbole_mars.augmentation import RetrievalSettings
from recbole_mars.retrieval import UserIndex
from recbole_mars.serving.donors import Donors
from recbole_mars.serving.scoring import Scorer
from recbole_mars.serving.tokens import TokenTable
from recbole_mars.serving.users import UserRecord

__all__ = ["DonorBuilder"]


class DonorBuilder:
    """Collects what high-active users can lend, user by user.

    trained_only: lend only behaviours that training knew. previous: donors of the same space, whose
    embeddings are taken where a donor has not changed since. spool: folder for a nameless file that
    is as large as what is lent; None for the system's.
    """

    def __init__(
        self,
        scorer: Scorer,
        settings: RetrievalSettings,
        trained_only: bool = False,
        previous: Donors | None = None,
        spool: Path | None = None,
    ) -> None:
        self.scorer, self.settings = scorer, settings
        self.trained_only, self.previous = trained_only, previous
        self._tokens: list[str] = []
        self._seen: list[int] = []
        self._parts: list[dict[str, np.ndarray]] = []
        # Embeddings are nearly all that donors are, and may be more than there is memory for.
        self._embeddings = TemporaryFile(dir=spool)  # noqa: SIM115

    def add(self, users: list[tuple[str, UserRecord]]) -> None:
        """Add users, in the order that they are to have."""
        placed: list[dict[str, np.ndarray] | None] = []
        fresh: list[UserRecord] = []
        for token, record in users:
            lent = self._lent(record)
            if not len(lent):
                continue
            kept = self._kept(token, record)
            if kept is None:
                fresh.append(lent)
            placed.append(kept)
            self._tokens.append(token)
            self._seen.append(record.seen)
        made = self._embed(fresh)
        for kept in placed:
            part = dict(next(made) if kept is None else kept)
            embeddings = part.pop("embeddings")
            self._width = embeddings.shape[1]
            self._embeddings.write(embeddings.tobytes())
            self._parts.append(part)

    def finish(self) -> Donors | None:
        """The donors; None if there is none."""
        if not self._parts:
            return None
        settings = self.settings
        columns = {
            name: np.concatenate([part[name] for part in self._parts])
            for name in ("items", "liked", "times")
        }
        lengths = [len(part["items"]) for part in self._parts]
        self._embeddings.flush()
        shape = (sum(lengths), self._width)
        embeddings = np.memmap(self._embeddings, np.float16, "r", shape=shape)
        users = np.stack([part["user"] for part in self._parts])
        index = UserIndex(
            users,
            np.arange(len(lengths)),
            settings.index,
            center=settings.center,
            storage=settings.storage,
            rerank=settings.rerank,
        )
        return Donors(
            TokenTable(self._tokens),
            index,
            np.concatenate([[0], np.cumsum(lengths)]),
            users=users,
            seen=np.array(self._seen),
            embeddings=embeddings,
            **columns,
        )

    def _lent(self, record: UserRecord) -> UserRecord:
        """The record with only the latest behaviours that stage 1 reads of a donor."""
        chosen = np.flatnonzero(record.trained) if self.trained_only else np.arange(len(record))
        return record.chosen(chosen[-self.scorer.model.settings.requests.max_length :])

    def _embed(self, records: list[UserRecord]) -> Iterator[dict[str, np.ndarray]]:
        if not records:
            return
        embeddings, mask = self.scorer.embed_behaviours(records)
        pooled = pooled_user_embedding(embeddings, mask).numpy()
        for record, rows, real, user in zip(records, embeddings.numpy(), mask.numpy(), pooled):
            part = {
                "items": record.items,
                "liked": record.liked,
                "times": record.times,
                "embeddings": rows[real].astype(np.float16),
            }
            if self.scorer.model.settings.requests.history == "positive":
                part = {name: column[record.liked] for name, column in part.items()}
            yield {**part, "user": user.copy()}

    def _kept(self, token: str, record: UserRecord) -> dict[str, np.ndarray] | None:
        """What the previous donors hold of an unchanged user."""
        before = self.previous
        place = -1 if before is None else before.tokens.find(token)
        if before is None or place < 0 or before.seen[place] != record.seen:
            return None
        rows = slice(int(before.bounds[place]), int(before.bounds[place + 1]))
        part = {
            name: getattr(before, name)[rows] for name in ("items", "liked", "times", "embeddings")
        }
        return {**part, "user": before.users[place]}
