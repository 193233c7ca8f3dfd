"""Twenty items with features, and histories over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from recbole_mars.ctr import History, Modality

N_ITEMS = 20


@pytest.fixture
def two_modalities() -> list[Modality]:
    """Text of all items, and pictures of all but 3 and 4."""
    rng = np.random.default_rng(0)
    found = []
    for name, width, missing in (("text", 5, [0]), ("image", 4, [0, 3, 4])):
        present = np.ones(N_ITEMS, dtype=bool)
        present[missing] = False
        vectors = rng.normal(2, 3, size=(N_ITEMS, width)) * present[:, None]
        found.append(Modality(name, vectors.astype(np.float32), present))
    return found


@pytest.fixture
def some_histories() -> Callable[..., tuple[History, torch.Tensor]]:
    """Makes five samples with labels, origins and a masked behaviour, one of them empty."""

    def make() -> tuple[History, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        mask = torch.arange(7) < torch.tensor([7, 0, 3, 1, 6]).unsqueeze(1)
        items = torch.randint(1, N_ITEMS, mask.shape, generator=generator) * mask
        items[0, 2] = 0
        labels = torch.randint(0, 2, mask.shape, generator=generator) * mask
        history = History(items, mask, labels, torch.tensor([2, 0, 1, 0, 1]))
        return history, torch.randint(1, N_ITEMS, (len(mask),), generator=generator)

    return make
