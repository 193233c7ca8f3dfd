"""What every augmenter promises, and the one that does nothing.

Dimension letters: B targets, L longest history in the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from recbole_mars.data import pad_ragged

__all__ = ["Augmenter", "NoAugmenter", "keep_latest", "prepend"]


class Augmenter(ABC):
    """Makes the histories of a batch longer."""

    @abstractmethod
    def augment(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        phase: str,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment each target's history; everything is a row of the interaction log.

        rows: (B,), the targets. histories: (B, L), oldest first, padded on the right with -1, as
        HistoryIndex gives them. lengths: (B,). phase: "train", "valid" or "test".

        Returns histories and lengths of the same form, trimmed to the longest. Every augmenter
        keeps to this:
        - targets stay as they are, the arguments too, and no target enters its own history;
        - no history is longer than max_length;
        - own behaviours keep their order and have priority: the latest max_length of them stay,
          what is added takes the room that they leave;
        - the same arguments give the same result.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Name of what it does to histories: a killed run goes on only under the same."""


class NoAugmenter(Augmenter):
    """The history as it is, cut to max_length."""

    def augment(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        phase: str,
    ) -> tuple[np.ndarray, np.ndarray]:
        return keep_latest(histories, lengths, max_length)

    def fingerprint(self) -> str:
        return "none"


def keep_latest(
    histories: np.ndarray, lengths: np.ndarray, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut histories (B, L) of the given lengths (B,) to their latest max_length behaviours.

    Returns the histories, trimmed to the longest, and their lengths. Raises ValueError if
    max_length < 1.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be >= 1, got {max_length}")
    kept = np.minimum(lengths, max_length)
    starts = np.arange(len(histories)) * histories.shape[1] + lengths - kept
    return pad_ragged(histories.reshape(-1), starts, kept), kept


def prepend(
    prefixes: np.ndarray,
    prefix_lengths: np.ndarray,
    histories: np.ndarray,
    lengths: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Join each prefix and history into one sequence (MARS, eq. 18).

    prefixes: (B, P), histories: (B, L), both padded on the right; their lengths: (B,).
    Returns the sequences, padded on the right with -1 and trimmed to the longest, and lengths.
    """
    total = prefix_lengths + lengths
    joined = np.full((len(total), int(total.max(initial=0))), -1, dtype=np.int64)
    steps = np.arange(joined.shape[1])
    first = steps < prefix_lengths[:, None]
    joined[first] = prefixes[np.arange(prefixes.shape[1]) < prefix_lengths[:, None]]
    joined[~first & (steps < total[:, None])] = histories[
        np.arange(histories.shape[1]) < lengths[:, None]
    ]
    return joined, total
