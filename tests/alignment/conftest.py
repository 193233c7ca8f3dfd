"""Small logs and networks for the tests of the alignment package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from recbole_mars.alignment import AlignmentNetwork, AlignmentSettings
from recbole_mars.data import TEST, TRAIN, VALID, InteractionLog

N_ITEMS = 13


def _make_log(lengths: list[int], n_items: int = N_ITEMS, seed: int = 0) -> InteractionLog:
    """Users 1, 2, ... with so many random behaviours; the last two are VALID and TEST."""
    generator = np.random.default_rng(seed)
    n = sum(lengths)
    users = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    phases = np.full(n, TRAIN, dtype=np.int8)
    ends = np.cumsum(lengths)
    phases[ends - 1] = TEST
    phases[ends - 2] = VALID
    return InteractionLog(
        users=users,
        items=generator.integers(1, n_items, n),
        labels=generator.integers(0, 2, n).astype(np.float32),
        times=np.concatenate([np.arange(length) for length in lengths]).astype(np.float64),
        phases=phases,
        n_users=len(lengths) + 1,
        n_items=n_items,
    )


def _make_network(n_items: int = N_ITEMS, seed: int = 0, **settings: Any) -> AlignmentNetwork:
    """A network with weights by seed. Item 2 lacks text, item 3 image, item 4 both."""
    generator = torch.Generator().manual_seed(0)
    text_present, image_present = torch.ones(2, n_items, dtype=torch.bool)
    text_present[[2, 4]] = False
    image_present[[3, 4]] = False
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return AlignmentNetwork(
            AlignmentSettings(**{"id_width": 4, "width": 6, "ffn_width": 5, **settings}),
            n_items,
            torch.randn(n_items, 3, generator=generator),
            text_present,
            torch.randn(n_items, 5, generator=generator).half(),
            image_present,
        )


@pytest.fixture
def make_log() -> Callable[..., InteractionLog]:
    return _make_log


@pytest.fixture
def make_network() -> Callable[..., AlignmentNetwork]:
    return _make_network
