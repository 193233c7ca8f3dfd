"""The number of the epoch, told to the data set before its batches are asked for."""

from __future__ import annotations

import functools
from typing import Any

from recbole_mars.plugin.dataset import MultimodalDataset

__all__ = ["tell_epochs"]


def tell_epochs(trainer: type) -> None:
    """Let a RecBole trainer, and those below it, tell our data set which epoch begins.

    The number is the trainer's own: a continued run draws what an uninterrupted one would. Worker
    processes of the loader start with each epoch, after it is set. A trainer that does not come by
    this method stays at epoch 0: what is drawn is then the same in all epochs.
    """
    train_epoch = trainer._train_epoch  # type: ignore[attr-defined]

    @functools.wraps(train_epoch)
    def tell_and_train(
        self: Any, train_data: Any, epoch_idx: int, *args: Any, **options: Any
    ) -> Any:
        dataset = getattr(train_data, "_dataset", None)
        if isinstance(dataset, MultimodalDataset):
            dataset.histories.epoch = epoch_idx
        return train_epoch(self, train_data, epoch_idx, *args, **options)

    trainer._train_epoch = tell_and_train  # type: ignore[attr-defined]
