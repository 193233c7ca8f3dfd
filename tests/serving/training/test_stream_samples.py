"""Samples: what the service would score, one for each new event that can be learnt from."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_world import Deployment

from recbole_mars.serving import KnownWorld, Request, Scorer, UserRecord
from recbole_mars.serving.events import Event
from recbole_mars.serving.stores import LMDBStore
from recbole_mars.serving.training.behaviours import Behaviours, prepare_samples
from recbole_mars.serving.users import user_key


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LMDBStore]:
    with LMDBStore(tmp_path / "records") as opened:
        yield opened


def behaviours(deployment: Deployment, store: LMDBStore) -> Behaviours:
    scorer = Scorer.load(deployment.snapshots.current().folder)
    world = KnownWorld.load(deployment.model / "world")
    return Behaviours(scorer.model, world, store)


def test_a_sample_is_what_the_service_would_score(tmp_path: Path, store: LMDBStore) -> None:
    deployment = Deployment(tmp_path / "d", agreement=True)
    scorer = Scorer.load(deployment.snapshots.current().folder)
    taking = behaviours(deployment, store)
    told = [Event(user, "i3", 5.0, 100.0) for user in ("u1", "u20", "new")]
    told += [Event("u1", "i4", 2.0, 101.0), Event("new", "i1", 4.0, 102.0)]
    samples = [taking.take(str(place), event) for place, event in enumerate(told)]
    assert [sample.liked for sample in samples if sample] == [True, True, True, False, True]
    prepared = prepare_samples(scorer, [sample for sample in samples if sample])
    assert sum(each.borrowed is not None and len(each.borrowed.rows) > 0 for each in prepared) > 1
    known = dict(KnownWorld.load(deployment.model / "world").records(30))
    for event, found in zip(told, prepared):
        record = known.get(event.user, UserRecord())
        earlier = [e for e in told if e.user == event.user and e.time < event.time]
        items = np.array([int(e.item[1:]) for e in earlier], dtype=np.int64)
        values, times = (np.array([getattr(e, x) for e in earlier]) for x in ("value", "time"))
        record, _ = record.with_behaviours(items, values >= 4, values, times, 30)
        wanted = scorer.prepare(
            Request(event.user, record, np.array([int(event.item[1:])]), event.time)
        )
        np.testing.assert_array_equal(found.items, wanted.items)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_array_equal(found.context, wanted.context)
        np.testing.assert_allclose(scorer.score([found]), scorer.score([wanted]), atol=1e-6)


def test_a_late_event_does_not_see_what_came_after_it(
    deployment: Deployment, store: LMDBStore
) -> None:
    taking = behaviours(deployment, store)
    first = taking.take("1", Event("u1", "i3", 5.0, 100.0))
    assert first is not None
    assert first.past.times.tolist() == [0, 1]
    assert first.past.seen == 2
    late = taking.take("2", Event("u1", "i4", 5.0, 0.5))
    assert late is not None
    assert late.past.times.tolist() == [0]
    assert late.past.seen == 1
    last = taking.take("3", Event("u1", "i5", 5.0, 200.0))
    assert last is not None
    assert last.past.times.tolist() == [0, 0.5, 1, 100]
    assert last.past.items.tolist()[1::2] == [4, 3]


def test_what_was_shown_in_vain_is_learnt_from_and_no_behaviour_of_a_model_of_clicks(
    tmp_path: Path, store: LMDBStore
) -> None:
    taking = behaviours(Deployment(tmp_path / "d", clicks_only=True), store)
    told = [Event("u1", "i3", 1.0, 100.0), Event("u1", "i4", 5.0, 101.0)]
    told += [Event("u1", "i5", 1.0, 102.0), Event("u1", "i6", 5.0, 103.0)]
    samples = [taking.take(str(place), event) for place, event in enumerate(told)]
    assert [sample.liked for sample in samples if sample] == [False, True, False, True]
    last = samples[-1]
    assert last is not None
    assert last.past.items[-2:].tolist() == [
        *KnownWorld.load(tmp_path / "d" / "model" / "world").record(1, 30).items[-1:],
        4,
    ]
    assert last.past.seen == 3


def test_what_waits_is_not_stored_and_what_is_settled_is(
    deployment: Deployment, store: LMDBStore
) -> None:
    taking = behaviours(deployment, store)
    taking.take("1", Event("u1", "i3", 5.0, 100.0))
    taking.take("2", Event("u1", "i9?", 5.0, 100.0))
    assert taking.changes() == {}
    assert not taking.skipped
    taking.settle()
    assert taking.skipped == {"unknown item": 1}
    taking.take("3", Event("u2", "i3", 5.0, 100.0))
    store.put_many(taking.changes())
    taking.saved()
    assert [key for key, _ in store.scan()] == [user_key("u1")]
    assert taking.take("4", Event("u1", "i3", 5.0, 100.0)) is None  # told before
    taking.settle()
    assert list(taking.changes()) == [user_key("u2")]
    assert taking.skipped == {"unknown item": 1, "told before": 1}


@pytest.mark.parametrize("agreement", [False, True])
def test_events_to_learn_nothing_from_are_skipped_counted_and_logged_once_a_kind(
    tmp_path: Path, store: LMDBStore, caplog: pytest.LogCaptureFixture, agreement: bool
) -> None:
    taking = behaviours(Deployment(tmp_path / "d", agreement=agreement), store)
    bad: dict[str, dict[str, Any]] = {
        "unknown item": {"item": "i99"},
        **({"value out of range": {"value": 1e9}} if agreement else {}),
    }
    with caplog.at_level(logging.WARNING):
        for place in range(3):
            for change in bad.values():
                event = {"user": "u1", "item": "i1", "value": 5.0, "time": 100.0, **change}
                assert taking.take(str(place), Event(**event)) is None
    taking.settle()
    assert taking.skipped == dict.fromkeys(bad, 3)
    assert taking.changes() == {}
    assert [kind for text in caplog.messages for kind in bad if kind in text] == list(bad)
    assert "offset 0" in caplog.messages[0]


def test_without_a_world_all_users_are_new(tmp_path: Path, store: LMDBStore) -> None:
    scorer = Scorer.load(Deployment(tmp_path / "d").snapshots.current().folder)
    sample = Behaviours(scorer.model, None, store).take("1", Event("u1", "i3", 5.0, 100.0))
    assert sample is not None
    assert (len(sample.past), sample.past.user) == (0, 0)
