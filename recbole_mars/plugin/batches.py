"""The batches of a loader, without a Python list of all rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["Batches", "replace_lists"]


class Batches:
    """Row numbers of each batch, those that RecBole's loader gives.

    RecBole holds list(range(rows)), and torch's sampler a list of the shuffled rows: 40 bytes a
    row each, which every worker process comes to copy, for Python counts references in them.

    loader: a RecBole data loader, whose order, generator and batch size this takes.
    """

    def __init__(self, loader: Any) -> None:
        self.loader, self.rows, self.batch_size = loader, loader.sample_size, loader.step

    def __iter__(self) -> Iterator[list[int]]:
        order, generator = torch.arange(self.rows), self.loader.generator
        if self.loader.shuffle:
            if generator is None:  # RecBole takes it away from loaders that it saves
                seed = int(torch.empty((), dtype=torch.int64).random_().item())
                generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(self.rows, generator=generator)
        for begin in range(0, self.rows, self.batch_size):
            yield order[begin : begin + self.batch_size].tolist()
        if self.loader.shuffle:  # torch's sampler draws twice an epoch, and uses the first
            torch.randperm(self.rows, generator=generator)

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)


def replace_lists(loader: Any, batches: Any = None) -> None:
    """Give a RecBole data loader its batches in this form, or in another one of the same use."""
    # torch refuses to set these, and RecBole to name them.
    vars(loader)["dataset"] = range(loader.sample_size)
    vars(loader)["batch_sampler"] = batches or Batches(loader)
