"""What the service is asked and what it answers, without HTTP.

Dimension letters: C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from recbole_mars.serving.scoring import Prepared, Scorer

__all__ = ["Answer", "Question", "Recent", "explain"]


class Recent(NamedTuple):
    """A behaviour that the asker tells of. value, time: as in an event."""

    item: str
    value: float
    time: float


@dataclass(frozen=True)
class Question:
    """How likely does this user click on each of these items?

    user, candidates: names. recent: behaviours that the store may not know yet. time: now, in the
    log's unit; None for after all that is known. explain: tell what the history was augmented with.
    augment: False scores the user's own history alone.
    """

    user: str
    candidates: Sequence[str]
    recent: Sequence[Recent] = ()
    time: float | None = None
    explain: bool = False
    augment: bool = True


@dataclass(frozen=True, eq=False)
class Answer:
    """The probabilities, and what they rest on.

    snapshot: the version that scored. candidates: their names. probabilities, known: (C,), of the
    candidates in their order, and which of them the model knows. user_known: None if the store
    could not tell. augmented: whether behaviours of others were put before the history. degraded:
    what failed and was left out, "store" or "augmentation". recent_ignored: recent behaviours that
    were left out, their items being unknown or their values far from all ratings. explanation: None
    unless asked for.
    """

    snapshot: str
    candidates: Sequence[str]
    probabilities: np.ndarray
    known: np.ndarray
    user_known: bool | None
    augmented: bool
    degraded: tuple[str, ...]
    recent_ignored: int
    explanation: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """As the service sends it."""
        told = zip(self.candidates, self.probabilities.tolist(), self.known.tolist())
        return {
            "snapshot": self.snapshot,
            "user_known": self.user_known,
            "augmented": self.augmented,
            "degraded": list(self.degraded),
            "recent_ignored": self.recent_ignored,
            "predictions": [
                {"item": item, "probability": probability, "known": known}
                for item, probability, known in told
            ],
            "explanation": self.explanation,
        }


def explain(
    scorer: Scorer,
    prepared: Prepared,
    candidates: Sequence[str],
    augmented: np.ndarray,
    plain: np.ndarray,
) -> dict[str, Any]:
    """Neighbours, what was borrowed of them, and what that changed.

    augmented, plain: (C,) probabilities with and without the borrowed behaviours.
    """
    neighbours, added = [], []
    borrowed, donors = prepared.borrowed, scorer.donors
    if borrowed is not None and donors is not None:
        neighbours = [
            {"user": donors.tokens[near.place], "similarity": float(near.similarity)}
            for near in borrowed.neighbours
        ]
        added = [
            {
                "item": scorer.model.items[int(donors.items[row]) - 1],
                "liked": bool(donors.liked[row]),
                "similarity": similarity,
                "donor": donors.tokens[donors.owner(row)],
            }
            for row, similarity in zip(borrowed.rows.tolist(), borrowed.similarities.tolist())
        ]
    return {
        "history_length": len(prepared.items) - len(added),
        "neighbours": neighbours,
        "added": added,
        "probabilities": [
            {"item": item, "with_augmentation": one, "without_augmentation": other}
            for item, one, other in zip(candidates, augmented.tolist(), plain.tolist())
        ],
    }
