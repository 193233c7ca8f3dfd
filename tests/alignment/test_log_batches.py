from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from recbole_mars.alignment.batches import Stretches, batches_by_length, read_sequences
from recbole_mars.data import TRAIN, VALID, InteractionLog


def test_every_counted_row_counts_once(make_log: Callable[..., InteractionLog]) -> None:
    log = make_log([3, 25, 8, 14])
    training = log.phases == TRAIN
    stretches = Stretches.cover(log, training, length=6, context=2)
    seen = []
    for batch in batches_by_length(stretches.lengths, 3, np.random.default_rng(0)):
        rows, counted = stretches.rows(batch)
        assert np.all(rows[counted] >= 0)
        for line, real in zip(rows, rows >= 0):
            assert len(np.unique(log.users[line[real]])) == 1
            assert np.all(np.diff(line[real]) == 1)
        seen.append(rows[counted])
    assert np.array_equal(np.sort(np.concatenate(seen)), np.flatnonzero(training))


def test_every_target_ends_a_stretch_of_its_own(make_log: Callable[..., InteractionLog]) -> None:
    log = make_log([3, 25, 8])
    stretches = Stretches.cover(log, log.phases != VALID, length=10, context=2)
    batch = np.array([2, 0, 1])
    singles = stretches.one_per_target(batch)
    rows, counted = singles.rows(np.arange(len(singles.starts)))
    expected = []
    for line, counts in zip(*stretches.rows(batch)):
        expected += [line[: t + 1].tolist() for t in np.flatnonzero(counts)]
    assert [line[line >= 0].tolist() for line in rows] == expected
    assert [np.flatnonzero(c).tolist() for c in counted] == [[len(e) - 1] for e in expected]


def test_batches_hold_like_lengths() -> None:
    lengths = np.array([9, 1, 5, 8, 2, 4])
    assert [b.tolist() for b in batches_by_length(lengths, 2)] == [[1, 4], [5, 2], [3, 0]]


def test_shuffled_batches_differ_by_seed_and_keep_lengths_near() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 300)
    first, second = (batches_by_length(lengths, 16, np.random.default_rng(seed)) for seed in (1, 2))
    again = batches_by_length(lengths, 16, np.random.default_rng(1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second))
    assert np.array_equal(np.sort(np.concatenate(first)), np.arange(300))
    padded = sum(lengths[batch].max() * len(batch) for batch in first)
    assert padded < 1.25 * lengths.sum()


def test_sequences_are_read_and_padded(make_log: Callable[..., InteractionLog]) -> None:
    log = make_log([3, 4])
    rows = np.array([[0, 1, 2], [5, -1, -1]])
    items, mask, labels, hidden = read_sequences(log, rows, torch.device("cpu"))
    assert hidden is None
    assert items.tolist() == [log.items[:3].tolist(), [log.items[5], 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False]]
    assert labels.tolist() == [log.labels[:3].tolist(), [log.labels[5], 0, 0]]
    assert (items.dtype, labels.dtype) == (torch.int64, torch.float32)
    drawn = replace(log, drawn=np.arange(len(log)) % 2 == 1)
    hidden = read_sequences(drawn, rows, torch.device("cpu")).hidden
    assert hidden.tolist() == [[False, True, False], [True, False, False]]
