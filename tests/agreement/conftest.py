"""Small logs, and a planted world of two tastes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from recbole_mars.data import TEST, VALID, InteractionLog


@dataclass(frozen=True)
class World:
    """Users like the items of their taste. directions: (I, 2), one for each taste, and noise."""

    log: InteractionLog
    labels: np.ndarray
    directions: np.ndarray


def _log(users, items, phases=0, n_users=None, n_items=None, times=None) -> InteractionLog:
    users, items = np.asarray(users, dtype=np.int64), np.asarray(items, dtype=np.int64)
    return InteractionLog(
        users,
        items,
        np.ones(len(users), dtype=np.float32),
        np.arange(len(users)) * 1.0 if times is None else np.asarray(times, dtype=np.float64),
        np.broadcast_to(np.asarray(phases, dtype=np.int8), len(users)),
        users.max() + 1 if n_users is None else n_users,
        items.max() + 1 if n_items is None else n_items,
    )


@pytest.fixture(scope="session")
def make_log() -> Callable[..., InteractionLog]:
    return _log


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    """Each user meets length items; the last two are for validation and test.

    liking: 2 for tastes that decide nearly all, 0 for opinions that are pure noise.
    """

    def make(seed, n_users=120, n_items=60, length=20, liking=2.0) -> World:
        random = np.random.default_rng(seed)
        tastes = random.integers(0, 2, n_users + 1)
        kinds = random.integers(0, 2, n_items + 1)
        users = np.repeat(np.arange(1, n_users + 1), length)
        met = [random.permutation(n_items)[:length] + 1 for _ in range(n_users)]
        items = np.concatenate(met)
        utility = np.where(kinds[items] == tastes[users], liking, -liking)
        utility = utility + 0.5 * liking * random.normal(size=n_items + 1)[items]
        labels = (utility + random.logistic(size=len(users)) > 0).astype(np.float32)
        phases = np.zeros((n_users, length), dtype=np.int8)
        phases[:, -2:] = VALID, TEST
        directions = np.eye(2)[kinds] + 0.2 * random.normal(size=(n_items + 1, 2))
        directions[0] = 0
        log = _log(users, items, phases.ravel(), n_users + 1, n_items + 1)
        return World(log, labels, directions)

    return make
