"""Twenty items with features, and histories over them, for tests that vary both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from recbole_mars.ctr import History, Modality

N_ITEMS = 20


def modality(
    name: str = "text", width: int = 5, missing: Sequence[int] = (), seed: int = 0
) -> Modality:
    rng = np.random.default_rng(seed)
    present = np.ones(N_ITEMS, dtype=bool)
    present[[0, *missing]] = False
    vectors = rng.normal(size=(N_ITEMS, width)).astype(np.float32) * present[:, None]
    return Modality(name, vectors, present)


def batch(
    lengths: Sequence[int] = (7, 0, 3, 1, 6),
    length: int = 7,
    borrowed: Sequence[int] = (2, 0, 1, 0, 1),
    lowest: int = 0,
    seed: int = 1,
) -> tuple[History, torch.Tensor]:
    """Histories and targets. lowest: 0 if behaviours may be masked ones, which are of item 0."""
    generator = torch.Generator().manual_seed(seed)
    size = len(lengths)
    history = History(
        torch.randint(lowest, N_ITEMS, (size, length), generator=generator),
        torch.arange(length) < torch.tensor(lengths).unsqueeze(1),
        torch.randint(0, 2, (size, length), generator=generator),
        torch.tensor(borrowed)[:size],
    )
    return history, torch.randint(1, N_ITEMS, (size,), generator=generator)
