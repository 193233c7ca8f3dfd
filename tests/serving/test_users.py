"""A user's record: what is kept, what is told twice, and its byte form."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_mars.serving import UserRecord


def add(
    record: UserRecord, *behaviours: tuple[int, float], keep: int = 10
) -> tuple[UserRecord, int]:
    items, times = (np.array(column) for column in zip(*behaviours))
    return record.with_behaviours(items, items > 2, items / 2, times, keep)


def placed(record: UserRecord) -> list[tuple[int, float]]:
    return list(zip(record.items.tolist(), record.times.tolist()))


def test_behaviours_stand_by_time_and_equal_times_as_they_were_told() -> None:
    record, new = add(UserRecord(), (1, 5.0), (2, 3.0), (3, 5.0))
    record, more = add(record, (4, 4.0), (5, 5.0))
    assert (new, more, record.seen) == (3, 2, 5)
    assert placed(record) == [(2, 3.0), (4, 4.0), (1, 5.0), (3, 5.0), (5, 5.0)]
    assert record.liked.tolist() == [False, True, False, True, True]
    assert record.opinions.tolist() == [1.0, 2.0, 0.5, 1.5, 2.5]
    assert not record.trained.any()


def test_what_is_told_again_changes_nothing() -> None:
    record, _ = add(UserRecord(embedding=np.ones(2, np.float32), space="s"), (1, 5.0), (2, 6.0))
    record = UserRecord.from_bytes(record.to_bytes())
    again, new = add(record, (2, 6.0), (1, 5.0))
    assert new == 0
    assert again is record
    _, new = add(record, (1, 6.0), (2, 5.0), (2, 5.0))  # other items at these times
    assert new == 2


def test_new_behaviours_take_the_embedding_away() -> None:
    record = UserRecord(embedding=np.ones(2, np.float32), space="s")
    record, _ = add(record, (1, 1.0))
    assert record.space == ""
    assert record.embedding.shape == (0,)


def test_only_the_latest_are_kept_and_what_comes_too_late_is_refused() -> None:
    record, _ = add(UserRecord(), (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), keep=3)
    assert placed(record) == [(2, 2.0), (3, 3.0), (4, 4.0)]
    assert record.seen == 4
    again, new = add(record, (1, 1.0), (9, 1.5), keep=3)  # (1, 1.0) was counted before
    assert new == 0
    assert again.seen == 4
    record, new = add(record, (9, 2.5), keep=3)
    assert new == 1
    assert placed(record) == [(9, 2.5), (3, 3.0), (4, 4.0)]
    assert record.seen == 5
    with pytest.raises(ValueError, match="keep must be >= 1, got 0"):
        add(record, (1, 9.0), keep=0)


def test_told_again_changes_nothing_where_times_tie() -> None:
    """A runner killed between records and its state is told the same batches again."""
    rng = np.random.default_rng(0)
    for keep in (1, 2, 5, 20):
        for _ in range(30):
            times = rng.integers(0, 4, 60) + np.arange(60) // 15
            behaviours = list(zip(rng.integers(1, 9, 60).tolist(), times.astype(float).tolist()))
            cuts = [0, *sorted(rng.integers(0, 60, 6).tolist()), 60]
            batches = [behaviours[a:b] for a, b in zip(cuts, cuts[1:]) if a < b]
            record = UserRecord()
            for place, batch in enumerate(batches):
                record, _ = add(record, *batch, keep=keep)
                for told in batches[: place + 1]:
                    again, new = add(record, *told, keep=keep)
                    assert new == 0
                    assert again is record


def test_of_more_ties_than_are_kept_the_last_told_stay() -> None:
    record, new = add(UserRecord(), *((item, 1.0) for item in range(1, 6)), keep=3)
    assert (new, record.seen) == (5, 5)
    assert placed(record) == [(3, 1.0), (4, 1.0), (5, 1.0)]
    record, new = add(record, (9, 1.0), (9, 1.5), keep=3)  # the first could be one of the dropped
    assert (new, record.seen) == (1, 6)
    assert placed(record) == [(4, 1.0), (5, 1.0), (9, 1.5)]


def test_one_at_a_time_is_as_all_at_once() -> None:
    rng = np.random.default_rng(0)
    behaviours = [(int(i), float(t)) for i, t in zip(rng.integers(1, 9, 60), rng.permutation(60))]
    behaviours.sort(key=lambda behaviour: behaviour[1])
    whole, _ = add(UserRecord(), *behaviours, keep=20)
    step = UserRecord()
    for behaviour in behaviours:
        step, _ = add(step, behaviour, keep=20)
    assert step.to_bytes() == whole.to_bytes()


def test_bytes_hold_everything() -> None:
    record = UserRecord(
        np.array([3, 4], np.int32),
        np.array([True, False]),
        np.array([4.5, 1.0], np.float32),
        np.array([1.25, 1e9]),
        np.array([True, False]),
        seen=7,
        user=5,
        fold=3,
        group=2,
        space="räume",
        embedding=np.array([0.5, -1.5], np.float32),
    )
    found = UserRecord.from_bytes(record.to_bytes())
    for name in vars(record):
        mine, theirs = getattr(record, name), getattr(found, name)
        assert np.array_equal(mine, theirs), name
        assert type(mine) is type(theirs), name
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype, name
    empty = UserRecord.from_bytes(UserRecord().to_bytes())
    assert len(empty) == 0
    assert empty.seen == 0
    assert empty.space == ""


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"RMU0" + b[4:]])
def test_other_bytes_are_refused(spoil) -> None:
    record, _ = add(UserRecord(), (1, 1.0))
    with pytest.raises(ValueError, match="record"):
        UserRecord.from_bytes(spoil(record.to_bytes()))
    with pytest.raises(ValueError, match="record"):
        UserRecord.from_bytes(b"")


def test_a_flip_of_any_byte_is_seen() -> None:
    record, _ = add(UserRecord(), (1, 1.0), (2, 2.0))
    whole = record.to_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="record"):
            UserRecord.from_bytes(bytes(flipped))
