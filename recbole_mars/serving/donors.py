"""High-active users as donors, as a service asks them: one query at a time.

Dimension letters: H donors, R behaviours of all donors, D width, n behaviours of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recbole_mars.augmentation import STRATEGIES, RetrievalSettings
from recbole_mars.retrieval import Candidate, UserIndex, unit_rows
from recbole_mars.serving.tokens import TokenTable

__all__ = ["Borrowed", "Donors", "Neighbour"]

_ARRAYS = ("bounds", "items", "liked", "times", "embeddings", "users", "seen")


class Neighbour(NamedTuple):
    """A donor near the query. place: among the donors. similarity: cosine (MARS, eq. 15)."""

    place: int
    similarity: float


@dataclass(frozen=True)
class Borrowed:
    """Behaviours that are put before a history, oldest first, and whom they were asked of.

    rows: (n,) among all donors' behaviours. similarities: (n,), s_i of eq. 16.
    """

    rows: np.ndarray
    similarities: np.ndarray
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, eq=False)
class Donors:
    """Everything that can be borrowed, in the order of the donors.

    tokens: (H,) names. index: over their embeddings, by place. bounds: (H + 1,): the behaviours of
    donor h are bounds[h] to bounds[h + 1], oldest first. items, liked, times: (R,), as in a
    UserRecord. embeddings: (R, D) float16, emb_item^mm of each behaviour (MARS, eq. 11). users:
    (H, D), emb_user^mm. seen: (H,), behaviours that each donor had when these were embedded.
    """

    tokens: TokenTable
    index: UserIndex
    bounds: np.ndarray
    items: np.ndarray
    liked: np.ndarray
    times: np.ndarray
    embeddings: np.ndarray
    users: np.ndarray
    seen: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def owner(self, row: int) -> int:
        """The place of the donor whose behaviour this is."""
        return int(np.searchsorted(self.bounds, row, side="right")) - 1

    def borrow(
        self,
        query: np.ndarray,
        own: str,
        room: int,
        settings: RetrievalSettings,
        threshold: float,
        before: float = np.inf,
    ) -> Borrowed:
        """What a history begins with (MARS, eq. 15-18): as build_prefixes, for one query.

        query: (D,), emb_user^mm; zeros find nobody. own: the asking user, who is no donor of their
        own. room: behaviours there is room for. before: with donor_time "before" only behaviours
        strictly before this time.
        """
        limit = before if settings.donor_time == "before" else np.inf
        neighbours = self._nearest(query, self.tokens.find(own), settings.n_candidates, limit)
        direction = unit_rows(query[None], self.index.center)[0]
        offers = [self._offer(near.place, direction, settings, limit) for near in neighbours]
        rows = STRATEGIES[settings.strategy](offers, room, threshold)
        similarity = {
            row: value
            for offer in offers
            for row, value in zip(offer.rows.tolist(), offer.similarities.tolist())
        }
        return Borrowed(rows, np.array([similarity[row] for row in rows.tolist()]), neighbours)

    def _nearest(self, query: np.ndarray, own: int, k: int, limit: float) -> tuple[Neighbour, ...]:
        return tuple(islice(self._by_nearness(query, own, limit, k), k))

    def _by_nearness(
        self, query: np.ndarray, own: int, limit: float, k: int
    ) -> Iterator[Neighbour]:
        """Donors with something to lend, the nearest first: the search widens as they run out."""
        told: set[int] = set()
        width = k
        while True:
            cosines, places = self.index.search(query[None], width, np.array([own]))
            for cosine, place in zip(cosines[0].tolist(), places[0].tolist()):
                if place < 0 or place in told:
                    continue
                told.add(place)
                first = self.bounds[place]
                if first < self.bounds[place + 1] and self.times[first] < limit:
                    yield Neighbour(place, cosine)
            if width >= len(self.index):
                return
            width = min(4 * width, len(self.index))

    def _offer(
        self, place: int, direction: np.ndarray, settings: RetrievalSettings, limit: float
    ) -> Candidate:
        start, end = int(self.bounds[place]), int(self.bounds[place + 1])
        if limit < np.inf:
            end = start + int(np.searchsorted(self.times[start:end], limit))
        start = max(start, end - settings.max_length)
        unit = unit_rows(self.embeddings[start:end], self.index.center)
        similarities = unit @ direction
        similarities[~unit.any(axis=1)] = -1.0
        return Candidate(np.arange(start, end), self.items[start:end], similarities)

    def save(self, folder: Path) -> None:
        """Write the files into a new folder."""
        folder.mkdir()
        self.tokens.save(folder / "tokens")
        self.index.save(folder / "index")
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Donors:
        """Open what save wrote, mapped. Raises FileNotFoundError or ValueError for damage."""
        arrays = {
            # Of memmap's own type everything is slower.
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in _ARRAYS
        }
        index = UserIndex.load(folder / "index")
        return cls(TokenTable.load(folder / "tokens"), index, **arrays)
