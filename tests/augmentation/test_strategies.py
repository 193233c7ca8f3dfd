import numpy as np
import pytest

from recbole_mars.augmentation import (
    STRATEGIES,
    dynamic_programming,
    filtered,
    most_similar,
    top_k,
)
from recbole_mars.retrieval import Candidate


def candidate(rows, similarities, items=None):
    return Candidate(
        np.array(rows, dtype=np.int64),
        np.array(rows if items is None else items, dtype=np.int64),
        np.array(similarities, dtype=np.float32),
    )


NEAR = candidate([10, 11, 12, 13], [0.75, 0.25, 0.5, 1.0], items=[1, 2, 3, 4])
FAR = candidate([20, 21, 22], [0.875, 1.0, 0.0], items=[3, 5, 6])


@pytest.mark.parametrize(
    ("strategy", "room", "theta", "expected"),
    [
        (most_similar, 9, 0.5, [10, 11, 12, 13]),
        (most_similar, 3, 0.5, [11, 12, 13]),
        (filtered, 9, 0.5, [10, 12, 13]),  # s_i = theta stays
        (filtered, 2, 0.5, [12, 13]),
        (filtered, 9, 1.5, []),
        # Item 3 once, from the far donor; of the equal similarities 1.0 the near donor's is last.
        (top_k, 9, 0.5, [10, 20, 21, 13]),
        (top_k, 2, 0.5, [21, 13]),
        (top_k, 9, 0.0, [22, 11, 10, 20, 21, 13]),
        (top_k, 9, 1.5, []),
        # near: 0.25 - 0.25 + 0 + 0.5 = 0.5 (or 0.5 alone), far: 0.375 + 0.5 = 0.875
        (dynamic_programming, 9, 0.5, [20, 21]),
        (dynamic_programming, 1, 0.5, [21]),
        # near: 0.5 + 0 + 0.25 + 0.75 = 1.5, far: 0.625 + 0.75 = 1.375
        (dynamic_programming, 9, 0.25, [10, 11, 12, 13]),
        (dynamic_programming, 9, 1.0, []),
        (dynamic_programming, 9, 0.9375, [13]),  # both 0.0625: the nearer donor
    ],
)
def test_hand_values(strategy, room, theta, expected):
    assert strategy([NEAR, FAR], room, theta).tolist() == expected


@pytest.mark.parametrize("strategy", STRATEGIES.values())
def test_nothing_to_borrow(strategy):
    empty = candidate([], [])
    assert len(strategy([], 5, 0.5)) == 0
    assert len(strategy([empty], 5, 0.5)) == 0
    assert len(strategy([NEAR, FAR], 0, 0.5)) == 0
    assert strategy([NEAR, empty], 5, -1.0).tolist() == strategy([NEAR], 5, -1.0).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_dynamic_programming_against_all_stretches(seed):
    random = np.random.default_rng(seed)
    # Eighths are exact in float32, so that equal sums are equal.
    candidates = [
        candidate(np.arange(n) + 100 * i, random.integers(-8, 9, n) / 8)
        for i, n in enumerate(random.integers(0, 9, 4))
    ]
    theta = random.integers(-4, 5) / 8
    greatest, best = 0.0, []
    for rows, _, similarities in candidates:
        for end in range(1, len(rows) + 1):
            for start in range(end):
                total = sum(float(s) - theta for s in similarities[start:end])
                if total > greatest:
                    greatest, best = total, rows[start:end].tolist()
    assert dynamic_programming(candidates, 100, theta).tolist() == best
    assert dynamic_programming(candidates, 2, theta).tolist() == best[-2:]


@pytest.mark.parametrize("seed", range(20))
def test_top_k_against_a_loop(seed):
    random = np.random.default_rng(seed)
    candidates = [
        candidate(
            np.arange(n) + 100 * i, random.integers(-8, 9, n) / 8, items=random.integers(1, 6, n)
        )
        for i, n in enumerate(random.integers(0, 9, 4))
    ]
    pairs = [
        (-float(s), i, row, item)
        for i, part in enumerate(candidates)
        for row, item, s in zip(*part[:2], part.similarities)
        if s >= 0.25
    ]
    taken, items = [], set()
    for _, _, row, item in sorted(pairs):
        if item not in items:
            taken.append(row)
            items.add(item)
    assert top_k(candidates, 100, 0.25).tolist() == taken[::-1]
    assert top_k(candidates, 3, 0.25).tolist() == taken[:3][::-1]
