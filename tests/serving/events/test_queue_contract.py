"""What all queues of interactions promise, on each of them."""

from __future__ import annotations

import json
import random
import threading
import time

import pytest
from event_numbers import events, numbers

from recbole_mars.data.files import write_whole
from recbole_mars.serving.events import ForeignOffset, QueueError


def test_events_come_in_the_order_they_were_appended(queue):
    assert queue.read(None, 10) == []
    ends = [queue.append(events(n, n + 5)) for n in range(0, 50, 5)]
    read = queue.read(None, 100)
    assert [event for _, event in read] == events(0, 50)
    offsets = [offset for offset, _ in read]
    assert offsets == sorted(set(offsets))
    assert len({len(offset) for offset in offsets}) == 1
    assert offsets[4::5] == ends


def test_reading_goes_on_behind_any_offset(queue):
    queue.append(events(0, 30))
    read = queue.read(None, 30)
    for n, (offset, _) in enumerate(read):
        assert queue.read(offset, 100) == read[n + 1 :]
        assert queue.read(offset, 4) == read[n + 1 : n + 5]


def test_read_in_parts_loses_and_doubles_nothing(queue):
    met, after = [], None
    for first in range(0, 60, 12):
        queue.append(events(first, first + 12))
        while part := queue.read(after, 5):
            assert len(part) <= 5
            met += numbers(part)
            after = part[-1][0]
    assert met == list(range(60))


def test_what_was_committed_can_be_read_again(queue, queues):
    """As a consumer must that falls back to older weights."""
    queue.append(events(0, 20))
    read = queue.read(None, 15)
    queue.commit(read[9][0])
    assert queue.read(read[3][0], 100)[:11] == read[4:]
    assert numbers(queue.read(None, 100)) == list(range(20))
    with queues.open() as restarted:
        assert numbers(restarted.read(read[5][0], 100)) == list(range(6, 20))
        restarted.commit(read[-1][0])
        restarted.commit(read[-1][0])
        assert numbers(restarted.read(read[-1][0], 100)) == list(range(15, 20))


def test_groups_read_independently(queues):
    with queues.open(group="a") as first, queues.open(group="b") as second:
        first.append(events(0, 10))
        after = first.read(None, 6)[-1][0]
        first.commit(after)
        assert numbers(second.read(None, 4)) == [0, 1, 2, 3]
        assert numbers(first.read(after, 10)) == [6, 7, 8, 9]
        assert numbers(second.read(None, 20)) == list(range(10))


def test_waiting_read_gets_what_comes(queue, queues):
    def append_later():
        time.sleep(0.3)
        with queues.open() as producer:
            producer.append(events(5, 8))

    offset = queue.append(events(0, 5))
    producer = threading.Thread(target=append_later)
    producer.start()
    assert numbers(queue.read(offset, 10, wait_seconds=60))[:1] == [5]
    producer.join()


def test_waiting_read_ends_without_events(queue):
    before = time.monotonic()
    assert queue.read(None, 10, wait_seconds=0.3) == []
    assert time.monotonic() - before >= 0.29


MALFORMED = (b"secret", b'{"user":"secret"}', b"\xff\xfe", b"[]")


def test_what_is_no_event_is_skipped_counted_and_kept(queue, queues, caplog):
    queue.append(events(0, 3))
    queues.put_raw(MALFORMED[0])
    queue.append(events(3, 5))
    for payload in MALFORMED[1:]:
        queues.put_raw(payload)
    assert numbers(queue.read(None, 10)) == [0, 1, 2, 3, 4]
    assert queue.malformed == 4
    assert len(caplog.messages) == 4
    assert all("at offset" in message for message in caplog.messages)
    assert "secret" not in caplog.text
    # read again they are not counted again, but they still stand there
    assert numbers(queue.read(None, 4)) == [0, 1, 2, 3]
    after = queue.read(None, 5)[-1][0]
    assert queue.read(after, 10) == []
    assert queue.malformed == 4
    with queues.open() as restarted:
        assert numbers(restarted.read(None, 10)) == [0, 1, 2, 3, 4]
        assert restarted.malformed == 4
    # and reading goes on behind them
    queue.append(events(5, 6))
    assert numbers(queue.read(after, 1)) == [5]


def test_wrong_arguments_are_refused(queue):
    with pytest.raises(ValueError, match="events must hold one at least"):
        queue.append([])
    with pytest.raises(ValueError, match="limit must be >= 1, got 0"):
        queue.read(None, 0)
    for offset in ("", "0", "1-1", "x" * 20):
        with pytest.raises(ForeignOffset, match=r"an offset of a .* digits, got"):
            queue.read(offset, 1)
        with pytest.raises(ForeignOffset, match=r"an offset of a .* digits, got"):
            queue.commit(offset)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a" * 101, "a b"])
def test_group_must_have_a_plain_name(queues, name):
    with pytest.raises(ValueError, match="group must have 1 to 100 letters"):
        queues.open(group=name)


def test_closed_queue_says_so(queue):
    queue.ping()
    offset = queue.append(events(0, 1))
    queue.close()
    queue.close()
    for use in (
        lambda: queue.append(events(0, 1)),
        lambda: queue.read(None, 1),
        lambda: queue.commit(offset),
        queue.ping,
    ):
        with pytest.raises(QueueError, match="is closed"):
            use()


def test_producers_at_the_same_time_lose_and_double_nothing(queues, child):
    def produce(say, producer):
        with queues.open() as queue:
            for n in range(20):
                queue.append(events(1000 * producer + 3 * n, 1000 * producer + 3 * n + 3))
                say(n)

    started = [child(produce, producer) for producer in range(3)]
    assert [producer.join() for producer in started] == [0, 0, 0]
    with queues.open() as queue:
        read = numbers(queue.read(None, 1000))
    assert len(read) == 180
    for producer in range(3):
        mine = [n % 1000 for n in read if n // 1000 == producer]
        assert mine == list(range(60))


def produce_on(say, queues):
    with queues.open() as queue:
        present = numbers(queue.read(None, 100_000))
        n = present[-1] + 1 if present else 0
        while True:
            queue.append(events(n, n + 7))
            n += 7
            say(n)


def test_killed_producer_loses_and_doubles_nothing(queues, child):
    moments = random.Random(5)
    confirmed = 0
    for _ in range(12):
        producer = child(produce_on, queues)
        producer.hear()
        time.sleep(moments.uniform(0, 0.03))
        confirmed = max(confirmed, producer.kill())
        with queues.open() as queue:
            read = numbers(queue.read(None, 100_000))
        assert read == list(range(len(read)))
        assert confirmed <= len(read) <= confirmed + 7


def consume_on(say, queues, file):
    """Keep the sum of what was read and the offset in one file, as training does with weights."""
    state = json.loads(file.read_text()) if file.exists() else {"after": None, "met": []}
    with queues.open() as queue:
        while True:
            for offset, event in queue.read(state["after"], 5, wait_seconds=0.05):
                state = {"after": offset, "met": [*state["met"], int(event.time)]}
            if state["after"]:
                write_whole(file, json.dumps(state))
                queue.commit(state["after"])
            say(len(state["met"]))


def test_killed_consumer_takes_each_event_into_effect_once(queues, child, tmp_path):
    moments = random.Random(7)
    file = tmp_path / "state.json"
    with queues.open() as producer:
        for turn in range(10):
            producer.append(events(50 * turn, 50 * turn + 50))
            consumer = child(consume_on, queues, file)
            consumer.hear()
            time.sleep(moments.uniform(0, 0.03))
            consumer.kill()
    last = child(consume_on, queues, file)
    while last.hear() < 500:
        pass
    assert json.loads(file.read_text())["met"] == list(range(500))


def test_two_processes_read_while_one_writes(queues, child):
    def read_all(say, group):
        with queues.open(group=group) as queue:
            after, met = None, []
            while len(met) < 300:
                part = queue.read(after, 7, wait_seconds=1)
                met += numbers(part)
                after = part[-1][0] if part else after
            assert met == list(range(300))
            say(len(met))

    readers = [child(read_all, "a"), child(read_all, "b")]
    with queues.open() as queue:
        for n in range(0, 300, 3):
            queue.append(events(n, n + 3))
    assert [reader.hear() for reader in readers] == [300, 300]
