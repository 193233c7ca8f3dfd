"""Histories of a data set's targets: shared by its splits, gathered for each batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from recbole_mars.augmentation import Augmenter, View, ViewAugmenter
from recbole_mars.data import TEST, TRAIN, VALID, HistoryIndex, InteractionLog

__all__ = ["PHASE_NAMES", "Histories", "phases_of_first_rows"]

PHASE_NAMES = {TRAIN: "train", VALID: "valid", TEST: "test"}


class Histories:
    """What the splits of a data set share: the log, its columns, the augmenter, the epoch.

    epoch: of training, which trainers set before each.
    """

    def __init__(self) -> None:
        self.log: InteractionLog
        self.index: HistoryIndex
        self.columns: dict[str, torch.Tensor] = {}
        self.opinions: np.ndarray  # (N,), the labels or what opinion_field names
        self.agreement: np.ndarray | None = None  # (N, 5), see recbole_mars.agreement
        self.augmenter: Augmenter | None = None
        self.epoch = 0
        self.seconds = 0.0  # that making the augmenter took, stage 1 included

    def set_log(
        self,
        log: InteractionLog,
        columns: dict[str, torch.Tensor],
        index: HistoryIndex,
        opinions: np.ndarray,
    ) -> None:
        self.log, self.columns, self.index, self.opinions = log, columns, index, opinions

    def set_phases(self, phases: np.ndarray) -> None:
        self.log = replace(self.log, phases=phases)

    def read(self, name: str, positions: np.ndarray) -> torch.Tensor:
        """A column at some rows of the log, zero where the row is -1."""
        values = self.columns[name].numpy().take(positions, axis=0, mode="clip")
        values[positions < 0] = 0
        return torch.from_numpy(values)

    def gather(
        self, rows: np.ndarray, max_length: int, phase: int | None
    ) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        """Positions (B, L) padded with -1, their lengths (B,) and how many are borrowed (B,).

        Borrowed are those at the head that came from other users; repeated own behaviours and what
        a perturbation puts between them are not.
        """
        positions, own = self.index.rows_before(rows, max_length)
        lengths, borrowed = own, np.zeros_like(own)
        if self.augmenter is not None and phase is not None:
            positions, lengths = self.augmenter.augment(
                rows, positions, own, max_length, PHASE_NAMES[phase], self.epoch
            )
            if self.augmenter.borrows:
                borrowed = lengths - own
        return _not_empty(positions), torch.from_numpy(lengths), torch.from_numpy(borrowed)

    def views(
        self, rows: np.ndarray, positions: np.ndarray, lengths: np.ndarray, max_length: int
    ) -> tuple[View, ...]:
        """Two augmented views of training histories, none if the augmenter gives none."""
        if not isinstance(self.augmenter, ViewAugmenter):
            return ()
        views = self.augmenter.views(rows, positions, lengths, max_length, self.epoch)
        return tuple(view._replace(histories=_not_empty(view.histories)) for view in views or ())


def _not_empty(positions: np.ndarray) -> np.ndarray:
    """Where nobody has a history, one padded place: it keeps shapes simple."""
    return positions if positions.shape[1] else np.full((len(positions), 1), -1, dtype=np.int64)


def phases_of_first_rows(log: InteractionLog, phases: np.ndarray) -> np.ndarray:
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
