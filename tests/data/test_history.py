import numpy as np
import pytest

from recbole_mars.data import HistoryIndex, InteractionLog, look_back, pad_ragged, windows


def make_log(n=60, n_users=7, seed=0, **changes):
    rng = np.random.default_rng(seed)
    columns = {
        "users": np.sort(rng.integers(1, n_users, n)),
        "items": rng.integers(1, 9, n),
        "labels": rng.integers(0, 2, n).astype(np.float32),
        "times": np.arange(n, dtype=np.float64),
        "phases": np.zeros(n, dtype=np.int8),
        "n_users": n_users + 1,
        "n_items": 9,
    }
    return InteractionLog(**{**columns, **changes})


def test_fingerprint_knows_every_column():
    log = make_log()
    assert make_log().fingerprint() == log.fingerprint()
    changes = {
        "items": np.roll(log.items, 1),
        "labels": 1 - log.labels,
        "times": log.times + 1,
        "phases": np.ones(len(log), dtype=np.int8),
        "n_items": 10,
    }
    for name, value in changes.items():
        assert make_log(**{name: value}).fingerprint() != log.fingerprint(), name


def test_pad_ragged_by_hand():
    values = np.array([5, 6, 7, 8])
    padded = pad_ragged(values, np.array([0, 2, 1]), np.array([3, 0, 2]))
    assert padded.tolist() == [[5, 6, 7], [-1, -1, -1], [6, 7, -1]]


def test_offsets_and_counts():
    log = make_log()
    for user in range(log.n_users):
        rows = np.arange(log.offsets[user], log.offsets[user + 1])
        assert rows.tolist() == np.flatnonzero(log.users == user).tolist()
    assert log.training_counts().sum() == len(log)


@pytest.mark.parametrize("kind", ["all", "positive"])
@pytest.mark.parametrize("max_length", [1, 3, 100])
def test_histories_equal_a_plain_loop(kind, max_length):
    log = make_log()
    rows = np.random.default_rng(1).permutation(len(log))
    histories, lengths = HistoryIndex(log, kind).rows_before(rows, max_length)
    for row, history, length in zip(rows, histories, lengths):
        earlier = [
            other
            for other in range(row)
            if log.users[other] == log.users[row] and (kind == "all" or log.labels[other] > 0)
        ]
        assert history[:length].tolist() == earlier[-max_length:]
        assert (history[length:] == -1).all()
    assert histories.shape[1] == lengths.max()


def test_no_targets_give_an_empty_batch():
    histories, lengths = HistoryIndex(make_log()).rows_before(np.zeros(0, dtype=int), 5)
    assert histories.shape == (0, 0)
    assert len(lengths) == 0


@pytest.mark.parametrize(("length", "context"), [(1, 0), (4, 0), (5, 2), (200, 100)])
def test_windows_count_every_target_once_with_context(length, context):
    log = make_log(80)
    targets = np.random.default_rng(2).random(len(log)) < 0.5
    starts, ends, firsts = windows(log.offsets, targets, length, context)
    counted = [row for a, b in zip(firsts, ends) for row in range(a, b) if targets[row]]
    assert counted == np.flatnonzero(targets).tolist()
    assert (ends - starts <= length).all()
    for start, end, first in zip(starts, ends, firsts):
        assert len(set(log.users[start:end])) == 1
        begin = log.offsets[log.users[start]]
        assert first - start == min(context, first - begin)


@pytest.mark.parametrize(("length", "context"), [(1, 0), (5, 2), (6, 3), (7, 6), (40, 20)])
def test_a_row_looks_back_as_far_as_its_window(length, context):
    offsets, targets = np.array([0, 0, 3, 60]), np.ones(60, dtype=bool)
    for start, end, first in zip(*windows(offsets, targets, length, context)):
        begin = 3 if start >= 3 else 0
        for row in range(first, end):
            assert look_back(int(row) - begin, length, context) == row - start


def test_windows_without_targets():
    assert all(len(part) == 0 for part in windows(make_log().offsets, np.zeros(60, bool), 5, 2))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one length"):
        make_log(items=np.ones(3, dtype=int))
    with pytest.raises(ValueError, match="sorted by user"):
        make_log(times=np.arange(60.0)[::-1].copy())
    with pytest.raises(ValueError, match="items must lie"):
        make_log(n_items=2)
    with pytest.raises(ValueError, match="users must lie"):
        make_log(users=np.zeros(60, dtype=int))
    with pytest.raises(ValueError, match="history must be"):
        HistoryIndex(make_log(), "liked")
    with pytest.raises(ValueError, match="max_length"):
        HistoryIndex(make_log()).rows_before(np.array([1]), 0)
    with pytest.raises(ValueError, match="context"):
        windows(make_log().offsets, np.ones(60, bool), 5, 5)
    with pytest.raises(ValueError, match="got -1 for length 5"):
        look_back(3, 5, -1)
