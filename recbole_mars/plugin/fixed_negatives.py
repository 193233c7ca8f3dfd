"""Rows of label 0 for data of clicks only, drawn once and shared by all runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset

from recbole_mars.data import NEGATIVES_BY, draw_negatives
from recbole_mars.plugin.histories import Histories
from recbole_mars.plugin.log_rows import LogRows

__all__ = ["FixedNegatives"]

_SAMPLING = ("train_neg_sample_args", "valid_neg_sample_args", "test_neg_sample_args")


class FixedNegatives(Dataset):
    """Items that a user never met as rows of the log, before the interaction they are drawn for.

    Both see the same behaviours, and the split takes them together. RecBole draws anew in each
    epoch and for each model, so that no two are evaluated on the same rows.
    """

    histories: Histories

    @staticmethod
    def check_option(config: Config) -> None:
        """Raise ValueError for values that cannot be used, or sampling by RecBole beside them."""
        count, by = config["fixed_negatives"], config["fixed_negatives_by"]
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"fixed_negatives must be a whole number >= 0, got {count!r}")
        if by not in NEGATIVES_BY:
            raise ValueError(f"fixed_negatives_by must be one of {NEGATIVES_BY}, got {by!r}")
        for key in _SAMPLING if count else ():
            if config[key]["distribution"] != "none":
                raise ValueError(
                    f"fixed_negatives: {count} draws all negatives, and {key} draws more; set "
                    "train_neg_sample_args: ~ and eval_args' mode: labeled"
                )

    def _draw_negatives(self, columns: dict[str, Any]) -> np.ndarray | None:
        """Put the negatives between the rows of some columns; gives which they are, (N,) bool."""
        count, labels = self.config["fixed_negatives"], columns.get(self.label_field)
        if not count:
            return None
        if labels is not None and not (labels > 0).all():
            raise ValueError(
                f"fixed_negatives is for interactions that are all positive, and "
                f"{int((labels <= 0).sum())} of {len(labels)} are labelled 0; set threshold: ~ to "
                f"take all as positive (now {self.config['threshold']}), or fixed_negatives: 0"
            )
        users, items = columns[self.uid_field].numpy(), columns[self.iid_field]
        times = columns[self.time_field].numpy()
        by = self.config["fixed_negatives_by"]
        found = draw_negatives(users, items.numpy(), count, by, times)
        for name, values in columns.items():
            columns[name] = values.repeat_interleave(count + 1, dim=0)
        drawn = (torch.arange(len(columns[self.iid_field])) + 1) % (count + 1) != 0
        columns[self.iid_field][drawn] = torch.from_numpy(found).flatten().to(items.dtype)
        columns[self.label_field] = (~drawn).float()
        return drawn.numpy()

    def _with_negatives(self, rows: LogRows) -> LogRows:
        """Some interactions, each after its negatives."""
        count = self.config["fixed_negatives"]
        if not count:
            return rows
        every = rows.interaction.rows[:, None] - torch.arange(count, -1, -1)
        return LogRows(every.flatten(), rows.interaction.columns)

    def _of_negatives_too(self, values: np.ndarray) -> np.ndarray:
        """A column of the log in which negatives have what their interaction has."""
        drawn = self.histories.log.drawn
        if drawn is None:
            return values
        return np.repeat(values[~drawn], self.config["fixed_negatives"] + 1)
