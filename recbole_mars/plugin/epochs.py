"""What changes from epoch to epoch: the number told to the data set, and the learning rate."""

from __future__ import annotations

import functools
from numbers import Real
from typing import Any

from recbole_mars.plugin.dataset import MultimodalDataset

__all__ = ["check_decay", "tell_epochs"]


def check_decay(decay: Any) -> float:
    """learning_rate_decay as a number; 1 where a run has no such key.

    Raises ValueError unless it lies in (0, 1].
    """
    if decay is None:
        return 1.0
    if isinstance(decay, bool) or not isinstance(decay, Real) or not 0 < float(decay) <= 1:
        raise ValueError(f"learning_rate_decay must lie in (0, 1], got {decay!r}")
    return float(decay)


def tell_epochs(trainer: type) -> None:
    """Let a RecBole trainer, and those below it, tell our data set which epoch begins.

    It also multiplies the learning rate by learning_rate_decay after each epoch.

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
        decay = check_decay(self.config["learning_rate_decay"])
        if decay < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate * decay**epoch_idx
        return train_epoch(self, train_data, epoch_idx, *args, **options)

    trainer._train_epoch = tell_and_train  # type: ignore[attr-defined]
