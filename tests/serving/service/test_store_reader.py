"""A store that fails slowly is left alone for a while."""

from __future__ import annotations

import pytest

from recbole_mars.serving.service import store_reader
from recbole_mars.serving.service.store_reader import StoreReader
from recbole_mars.serving.stores import StoreError


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(store_reader, "time", found)
    return found


def test_a_failure_rests_ten_times_as_long_as_it_took(clock, store, monkeypatch):
    reader = StoreReader(store)
    store.put_many({b"a": b"1"})
    assert reader.get_many([b"a", b"b"]) == [b"1", None]
    get = store._get

    def slow(keys):
        clock.now += 0.2
        return get(keys)

    monkeypatch.setattr(store, "_get", slow)
    store.fails = True
    asked = store.asked
    with pytest.raises(StoreError, match="told to fail"):
        reader.get_many([b"a"])
    assert store.asked == asked + 1
    store.fails = False
    clock.now += 1.99
    with pytest.raises(StoreError, match="failed a moment ago"):
        reader.get_many([b"a"])
    assert store.asked == asked + 1
    clock.now += 0.02
    assert reader.get_many([b"a"]) == [b"1"]


def test_a_failure_that_took_no_time_is_tried_at_once(clock, store):
    reader = StoreReader(store)
    store.fails = True
    for _ in range(3):
        with pytest.raises(StoreError, match="told to fail"):
            reader.get_many([b"a"])
