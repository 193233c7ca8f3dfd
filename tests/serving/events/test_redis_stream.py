"""What only the Redis stream does: consumers that stand in, a server that goes away, trimming."""

from __future__ import annotations

import signal
import threading
import traceback
from contextlib import closing

import pytest
from event_numbers import events, numbers

from recbole_mars.serving.events import EventsLost, QueueError, RedisStream, open_queue
from recbole_mars.serving.redis_connection import RedisAddress, RedisConnection


@pytest.fixture
def address(redis_server):
    return redis_server.address + "?stream=s"


@pytest.fixture
def client(redis_server):
    with closing(redis_server.client()) as opened:
        yield opened


def pending(client) -> dict[str, int]:
    """How many entries each consumer of the group was given and has not committed."""
    return {
        consumer["name"].decode(): consumer["pending"]
        for consumer in client.xinfo_consumers("s", "training")
        if consumer["pending"]
    }


def test_commit_acknowledges_up_to_the_offset(address, client):
    with RedisStream(address) as queue:
        queue.commit(queue.append(events(0, 10)))  # nothing was given yet
        read = queue.read(None, 10)
        assert pending(client) == {"one": 10}
        queue.commit(read[6][0])
        assert pending(client) == {"one": 3}
        queue.commit(read[6][0])
        queue.commit(read[2][0])
        assert pending(client) == {"one": 3}
        queue.commit(read[9][0])
        assert pending(client) == {}
        assert client.xlen("s") == 10


def test_commit_goes_over_many_pages(address, client):
    with RedisStream(address) as queue:
        queue.append(events(0, 2500))
        read = queue.read(None, 2500)
        queue.commit(read[2400][0])
    assert pending(client) == {"one": 99}


def test_restarted_consumer_goes_on_behind_its_offset(address, client):
    with RedisStream(address) as queue:
        queue.append(events(0, 10))
        after = queue.read(None, 6)[3][0]  # the effects of two of the six were not stored
    with RedisStream(address) as restarted:
        assert numbers(restarted.read(after, 3)) == [4, 5, 6]
        assert numbers(restarted.read(after, 100)) == [4, 5, 6, 7, 8, 9]


def test_stand_in_waits_for_a_living_consumer(address, client):
    with (
        RedisStream(address, consumer="a") as first,
        RedisStream(address, consumer="b") as second,
    ):
        first.append(events(0, 10))
        read = first.read(None, 4)
        assert second.read(None, 10) == []
        assert second.read(None, 10, wait_seconds=0.3) == []
        assert second.read(read[1][0], 10) == []
        # whose offset is behind them needs not wait
        assert numbers(second.read(read[3][0], 2)) == [4, 5]
        assert first.read(read[3][0], 10) == []
        assert pending(client) == {"a": 4, "b": 2}
        second.commit(read[3][0])
        assert pending(client) == {"b": 2}


def test_stand_in_takes_over_from_a_dead_consumer(address, client, caplog):
    with RedisStream(address, consumer="a") as first:
        first.append(events(0, 2100))
        after = first.read(None, 2050)[9][0]
    with RedisStream(address, consumer="b", takeover_seconds=0.2) as second:
        read = second.read(after, 3000, wait_seconds=60)
        assert numbers(read) == list(range(10, 2100))
        assert pending(client) == {"b": 2100}
        assert "Claimed 1000 entries of silent consumer b'a'" in caplog.text
        second.commit(read[-1][0])
        assert pending(client) == {}


def test_consumer_that_reads_is_not_taken_for_dead(address, client):
    with RedisStream(address, consumer="a") as first:
        first.append(events(0, 4))
        first.read(None, 2)
        stop = threading.Event()

        def replay():
            while not stop.wait(0.02):
                first.read(None, 1)

        thread = threading.Thread(target=replay)
        thread.start()
        with RedisStream(address, consumer="b", takeover_seconds=0.5) as second:
            assert second.read(None, 10, wait_seconds=1.5) == []
        stop.set()
        thread.join()
    assert pending(client) == {"a": 2}


def test_order_holds_where_two_are_given_entries_at_once(address, client, monkeypatch):
    """Another consumer is given entries between this one's look at the group and its reading."""
    with (
        RedisStream(address, consumer="a") as first,
        RedisStream(address, consumer="b") as second,
    ):
        first.append(events(0, 6))
        look = RedisStream._first_held
        looks = []

        def look_then_lose(queue, client, after):
            held = look(queue, client, after)
            if queue is second and not looks:
                looks.append(held)
                looks.append(first.read(None, 3))
            return held

        monkeypatch.setattr(RedisStream, "_first_held", look_then_lose)
        assert second.read(None, 10) == []
        assert pending(client) == {"a": 3, "b": 3}
        assert numbers(looks[1]) == [0, 1, 2]
        last = looks[1][-1][0]
        first.commit(last)
        assert numbers(second.read(last, 10)) == [3, 4, 5]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_queue_works_again_when_its_server_is_back(own_redis, how):
    with RedisStream(own_redis.address) as queue:
        offset = queue.append(events(0, 5))
        assert numbers(queue.read(None, 3)) == [0, 1, 2]
        own_redis.stop(how)
        for use in (
            lambda: queue.append(events(5, 6)),
            lambda: queue.read(None, 1),
            lambda: queue.read(offset, 1, wait_seconds=1),
            lambda: queue.commit(offset),
            queue.ping,
        ):
            with pytest.raises(QueueError, match=r"127\.0\.0\.1:\d+/0 cannot be reached: .*start"):
                use()
        own_redis.start()
        queue.ping()
        assert numbers(queue.read(None, 10)) == [0, 1, 2, 3, 4]
        queue.append(events(5, 6))
        assert numbers(queue.read(offset, 10)) == [5]


def test_waiting_is_longer_than_the_timeout(address):
    with RedisStream(address + "&timeout=0.4") as queue:
        assert queue.read(None, 1, wait_seconds=1.2) == []
        timer = threading.Timer(0.9, lambda: queue.append(events(0, 1)))
        timer.start()
        assert numbers(queue.read(None, 1, wait_seconds=60)) == [0]
        timer.join()


def test_group_that_was_removed_begins_behind_the_offset(address, client):
    with RedisStream(address) as queue:
        queue.append(events(0, 10))
        after = queue.read(None, 10)[5][0]
        client.xgroup_destroy("s", "training")
        queue.commit(after)
        assert numbers(queue.read(after, 10)) == [6, 7, 8, 9]
        assert pending(client) == {"one": 4}


def test_stream_that_was_lost_is_an_error(address, client):
    with RedisStream(address) as queue:
        queue.append(events(0, 10))
        after = queue.read(None, 10)[5][0]
        client.flushall()
        with pytest.raises(EventsLost, match=r"stream 's' .* ends at 0-0, before the offset"):
            queue.read(after, 10)
        queue.append(events(10, 12))
        with pytest.raises(EventsLost, match="may have been removed unread"):
            queue.read(after, 10)
        assert numbers(queue.read(None, 10)) == [10, 11]


def test_longest_length_trims_and_the_loss_is_told(address, client):
    with RedisStream(address + "&max_length=100") as queue:
        after = queue.append(events(0, 1))
        assert numbers(queue.read(None, 1)) == [0]
        for first in range(1, 1001, 100):
            queue.append(events(first, first + 100))
        assert 100 <= client.xlen("s") <= 300
        with pytest.raises(EventsLost, match="use a larger max_length"):
            queue.read(after, 10)
        left = numbers(queue.read(None, 1000))
        assert left == list(range(left[0], 1001))


def test_all_that_was_given_may_be_trimmed(address):
    """Nothing is left up to what the group has been given, but more stands behind it."""
    with RedisStream(address) as queue:
        queue.append(events(0, 100))
        after = queue.read(None, 100)[49][0]
        queue.commit(after)
    with RedisStream(address + "&max_length=200") as queue:
        queue.append(events(100, 1100))
        with pytest.raises(EventsLost, match="may have been removed unread"):
            queue.read(after, 10)
        left = numbers(queue.read(None, 2000))
        assert left == list(range(left[0], 1100))
        assert left[0] > 100


def test_errors_do_not_tell_what_was_sent():
    redis = pytest.importorskip("redis")
    connection = RedisConnection(RedisAddress.parse("redis://127.0.0.1:1/0"), QueueError, retries=0)
    sent = "Command # 1 (XADD s * event {secret}) of pipeline caused error: Timeout"
    for error in (redis.TimeoutError(sent), redis.ResponseError(sent)):
        with pytest.raises(QueueError, match=r": Timeout") as caught, connection.client():
            raise error
        assert "secret" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_entry_without_an_event_is_skipped(address, client, caplog):
    client.xadd("s", {"other": "secret"})
    with RedisStream(address) as queue:
        queue.append(events(0, 1))
        assert numbers(queue.read(None, 10)) == [0]
        assert queue.malformed == 1
    (message,) = caplog.messages
    assert "must have the field 'event'" in message
    assert "of the stream 's' of Redis at redis://127.0.0.1" in message


def test_key_of_another_kind_is_reported(address, client):
    client.set("s", "text")
    with RedisStream(address) as queue:
        for use in (lambda: queue.append(events(0, 1)), lambda: queue.read(None, 1)):
            with pytest.raises(QueueError, match="refused: WRONGTYPE") as caught:
                use()
            shown = "".join(traceback.format_exception(None, caught.value, caught.tb))
            assert "i0" not in shown.replace("events(0, 1)", "")


def test_redis_address_opens_a_stream(redis_server):
    with open_queue(redis_server.address + "?stream=x", group="g", consumer="c") as queue:
        assert isinstance(queue, RedisStream)
        assert queue.stream == "x"
    with open_queue(redis_server.address) as queue:
        assert queue.stream == "events"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("?max_length=0", "max_length must be a whole number >= 1, got '0'"),
        ("?max_length=x", "got 'x'"),
        ("?strem=s", "got \\['strem'\\]"),
    ],
)
def test_other_options_are_refused(options, found):
    with pytest.raises(ValueError, match=found):
        RedisStream("redis://host" + options)


def test_consumer_must_have_a_plain_name():
    with pytest.raises(ValueError, match="consumer must have 1 to 100 letters"):
        RedisStream("redis://host", consumer="a b")
