"""What every augmenter promises, and the one that does nothing.

Dimension letters: B targets, L longest history in the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from recbole_mars.data import pad_ragged

__all__ = ["Augmenter", "NoAugmenter", "keep_latest", "prepend", "prepend_to_room"]


class Augmenter(ABC):
    """Changes the histories of a batch before a CTR model reads them.

    Additive augmenters put behaviours before the own ones, in the room that these leave: the latest
    max_length own behaviours stay, in their order, at the end. Perturbing ones (PerturbedAugmenter)
    change the own behaviours themselves, and only in training; each says how.

    borrows: what it adds at the head comes from other users' behaviours.
    """

    borrows = False

    @abstractmethod
    def augment(
        self,
        rows: np.ndarray,
        histories: np.ndarray,
        lengths: np.ndarray,
        max_length: int,
        phase: str,
        epoch: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment each target's history; everything is a row of the interaction log.

        rows: (B,), the targets. histories: (B, L), oldest first, padded on the right with -1, as
        HistoryIndex gives them. lengths: (B,). phase: "train", "valid" or "test". epoch: of
        training, from 0; who draws anew in each looks at it.

        Returns histories and lengths of the same form, trimmed to the longest; -1 within a length
        is a masked behaviour, which reads as item 0 with all fields 0. Every augmenter keeps to
        this:
        - targets stay as they are, the arguments too, and no target enters its own history;
        - no history is longer than max_length;
        - rows that were not in the history are training behaviours, and none is one that the
          target's user had later;
        - the same arguments give the same result, for each target whatever the batch beside it;
          another seed gives another one to all that draws;
        - one that acts in training only gives keep_latest() elsewhere;
        - at strength 0 it gives keep_latest().
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
        epoch: int = 0,
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


def prepend_to_room(
    added: np.ndarray,
    added_lengths: np.ndarray,
    histories: np.ndarray,
    lengths: np.ndarray,
    max_length: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Put as much before each history as the room of max_length allows, the last of it.

    added: (B, P), histories: (B, L), both padded on the right; their lengths: (B,).
    Returns the sequences, as prepend.
    """
    histories, lengths = keep_latest(histories, lengths, max_length)
    fitting = np.minimum(added_lengths, max_length - lengths)
    starts = np.arange(len(added)) * added.shape[1] + added_lengths - fitting
    prefixes = pad_ragged(added.reshape(-1), starts, fitting)
    return prepend(prefixes, fitting, histories, lengths)
