"""Questions that are scored together get their own answers, and no one's errors."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest

from recbole_mars.serving.service import (
    Batcher,
    Engine,
    Question,
    QueueFull,
    Recent,
    ServiceSettings,
    TooLate,
)

LATER = float("inf")


@pytest.fixture
def engine(snapshots, store, publish):
    publish(1)
    found = Engine(snapshots, store)
    found.reload_if_new()
    return found


@pytest.fixture
def batcher(engine):
    """Makes batchers, and closes them. Sizes of batches are in its attribute `sizes`."""
    made = []

    def make(**settings):
        sizes = []
        given = {"seconds": 30.0, "batch_seconds": 0.5, **settings}
        made.append(Batcher(engine, ServiceSettings(**given), sizes.append))
        made[-1].sizes = sizes
        return made[-1]

    yield make
    for each in made:
        each.close()


def questions():
    return [
        Question(
            f"person{1 + number % 11}",
            [f"item{1 + (number + step) % 22}" for step in range(1 + number % 5)],
            [Recent("item4", 5.0, 500.0)] if number % 3 == 0 else [],
            explain=number % 4 == 0,
        )
        for number in range(40)
    ]


def test_answers_are_those_of_single_questions(engine, batcher, store):
    store.gate.clear()  # so that all are there before the first is scored
    batches = batcher(preparing_threads=8, queue=40)
    asked = questions()
    futures = [batches.submit(question, LATER) for question in asked]
    assert batches.waiting == 40
    store.gate.set()
    for question, future in zip(asked, futures):
        together, alone = future.result(30), engine.answer(question)
        np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=1e-6)
        assert together.candidates == question.candidates
        for name in ("user_known", "augmented", "recent_ignored", "snapshot"):
            assert getattr(together, name) == getattr(alone, name)
        assert (together.explanation is None) == (not question.explain)
        if question.explain:
            pairs = [answer.explanation["probabilities"] for answer in (together, alone)]
            for one, other in zip(*pairs):
                assert one == pytest.approx(other, abs=1e-6)
    assert batches.waiting == 0
    assert sum(batches.sizes) == 40
    assert max(batches.sizes) > 1


def test_many_threads_get_their_own_answers(engine, batcher):
    batches = batcher(batch_seconds=0.002, queue=100)
    asked = questions()
    expected = [engine.answer(question).probabilities for question in asked]

    def ask(number):
        return batches.submit(asked[number], LATER).result(30).probabilities

    with ThreadPoolExecutor(16) as threads:
        for number, found in enumerate(threads.map(ask, [*range(40)] * 5)):
            np.testing.assert_allclose(found, expected[number % 40], atol=1e-6)


def test_zero_scores_each_alone(batcher, store):
    store.gate.clear()
    batches = batcher(batch_seconds=0.0, preparing_threads=8)
    futures = [batches.submit(question, LATER) for question in questions()[:8]]
    store.gate.set()
    for future in futures:
        future.result(30)
    assert batches.sizes == [1] * 8


def test_a_batch_with_enough_candidates_waits_for_no_more(batcher, store):
    store.gate.clear()
    batches = batcher(batch_seconds=20.0, batch_candidates=4, preparing_threads=8)
    futures = [batches.submit(Question("x", ["item1", "item2"]), LATER) for _ in range(6)]
    store.gate.set()
    for future in futures:
        future.result(10)  # long before batch_seconds are over
    assert batches.sizes == [2, 2, 2]


def test_a_question_alone_does_not_wait(batcher):
    batches = batcher(batch_seconds=20.0)
    assert batches.submit(Question("x", ["item1"]), LATER).result(10).candidates == ["item1"]


@pytest.mark.parametrize("step", ["pose", "score", "reply"])
def test_an_error_stays_with_its_question(engine, batcher, store, monkeypatch, step):
    does = getattr(engine, step)

    def fails(given, *scores):
        told = given if isinstance(given, list) else [given]
        if any(getattr(each, "question", each).user == "bad" for each in told):
            raise ZeroDivisionError("bad")
        return does(given, *scores)

    monkeypatch.setattr(engine, step, fails)
    store.gate.clear()
    batches = batcher(preparing_threads=8)
    users = ["person1", "bad", "person6", "person7", "bad"]
    futures = [batches.submit(Question(user, ["item1"]), LATER) for user in users]
    store.gate.set()
    for user, future in zip(users, futures):
        if user == "bad":
            with pytest.raises(ZeroDivisionError):
                future.result(30)
        else:
            expected = engine.answer(Question(user, ["item1"])).probabilities
            np.testing.assert_allclose(future.result(30).probabilities, expected, atol=1e-6)
    assert batches.waiting == 0


def test_what_is_too_late_or_cancelled_is_not_scored(engine, batcher, store, monkeypatch):
    scored = []
    score = engine.score
    monkeypatch.setattr(
        engine, "score", lambda posed: scored.extend(p.question.user for p in posed) or score(posed)
    )
    batches = batcher(preparing_threads=2)
    store.gate.clear()
    soon = time.monotonic() + 0.5
    late = batches.submit(Question("late", ["item1"]), soon)  # late when it is to be scored
    gone = batches.submit(Question("gone", ["item1"]), LATER)
    while store.asked < 2:  # both threads wait for the store
        time.sleep(0.001)
    later = batches.submit(Question("later", ["item1"]), soon)  # late when it is to be posed
    never = batches.submit(Question("never", ["item1"]), LATER)
    good = batches.submit(Question("good", ["item1"]), LATER)
    assert gone.cancel()
    assert never.cancel()
    time.sleep(max(0.0, soon - time.monotonic()) + 0.01)
    store.gate.set()
    assert good.result(30).candidates == ["item1"]
    for future, error in ((late, TooLate), (later, TooLate), (gone, CancelledError)):
        with pytest.raises(error):
            future.result(30)
    assert scored == ["good"]
    assert store.asked == 3
    while batches.waiting:
        time.sleep(0.001)


def test_a_full_queue_takes_no_more_until_there_is_room(batcher, store):
    batches = batcher(queue=3, preparing_threads=1)
    store.gate.clear()
    futures = [batches.submit(Question("x", ["item1"]), LATER) for _ in range(3)]
    with pytest.raises(QueueFull, match="3 questions"):
        batches.submit(Question("x", ["item1"]), LATER)
    store.gate.set()
    for future in futures:
        future.result(30)
    assert batches.submit(Question("x", ["item1"]), LATER).result(30).candidates == ["item1"]


def test_closing_answers_what_was_asked(batcher, store):
    batches = batcher(preparing_threads=1)
    store.gate.clear()
    futures = [batches.submit(Question("x", ["item1"]), LATER) for _ in range(5)]
    closing = threading.Thread(target=batches.close)
    closing.start()
    while not batches._closed:
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="stopping"):
        batches.submit(Question("x", ["item1"]), LATER)
    store.gate.set()
    closing.join(30)
    assert not closing.is_alive()
    assert all(future.done() and future.result().candidates == ["item1"] for future in futures)
    batches.close()
