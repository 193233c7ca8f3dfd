"""What only the Redis store does: its server goes away, comes back, fills up."""

from __future__ import annotations

import signal
import time
from contextlib import closing

import pytest

from recbole_mars.serving.stores import LMDBStore, RedisStore, StoreError, open_store


def test_prefixes_keep_stores_apart(redis_server):
    first = RedisStore(redis_server.address + "?prefix=a:")
    second = RedisStore(redis_server.address + "?prefix=b:")
    plain = RedisStore(redis_server.address)
    with first, second, plain:
        first.put_many({b"k": b"1"})
        second.put_many({b"k": b"2", b"l": b"3"})
        assert list(first.scan()) == [(b"k", b"1")]
        assert sorted(second.scan()) == [(b"k", b"2"), (b"l", b"3")]
        assert plain.get_many([b"a:k", b"b:k", b"k"]) == [b"1", b"2", None]
        second.delete_many([b"k"])
        assert first.get(b"k") == b"1"


def test_databases_are_apart(redis_server):
    other = redis_server.address[:-1] + "1"
    with RedisStore(redis_server.address) as first, RedisStore(other) as second:
        first.put_many({b"k": b"1"})
        assert second.get(b"k") is None


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_store_works_again_when_its_server_is_back(own_redis, how):
    with RedisStore(own_redis.address) as store:
        store.put_many({b"k": b"1"})
        own_redis.stop(how)
        for use in (
            lambda: store.get(b"k"),
            lambda: store.put_many({b"k": b"2"}),
            lambda: store.delete_many([b"k"]),
            lambda: list(store.scan()),
            store.ping,
        ):
            with pytest.raises(StoreError, match=r"127\.0\.0\.1:\d+/0 cannot be reached: .*start"):
                use()
        own_redis.start()
        store.ping()
        assert store.get(b"k") == b"1"
        store.put_many({b"k": b"3"})
        # nothing was noticed in between: a broken connection is replaced within the call
        own_redis.stop(how)
        own_redis.start()
        store.put_many({b"l": b"4"})
        assert dict(store.scan()) == {b"k": b"3", b"l": b"4"}


def test_store_may_be_opened_before_its_server(own_redis):
    own_redis.stop()
    with RedisStore(own_redis.address) as store:
        with pytest.raises(StoreError, match="cannot be reached"):
            store.ping()
        own_redis.start()
        store.ping()


def test_cluster_that_is_away_is_tried_again(own_redis):
    address = own_redis.address.replace("redis://", "redis+cluster://")[:-2]
    own_redis.stop()
    with RedisStore(address) as store:
        for _ in range(2):
            with pytest.raises(StoreError, match=r"redis\+cluster://\S+ cannot be reached"):
                store.get(b"k")


def test_server_that_hangs_is_left_after_the_timeout(own_redis):
    with RedisStore(own_redis.address + "?timeout=0.2") as store:
        store.put_many({b"k": b"1"})
        own_redis.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(StoreError, match="cannot be reached: Timeout"):
                store.get(b"k")
        finally:
            own_redis.process.send_signal(signal.SIGCONT)
        assert store.get(b"k") == b"1"


def test_who_only_reads_waits_for_one_timeout(own_redis):
    with RedisStore(own_redis.address) as store:
        store.put_many({b"k": b"1"})
    with RedisStore(own_redis.address, read_only=True, timeout=0.5) as store:
        assert store.get(b"k") == b"1"
        own_redis.process.send_signal(signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with pytest.raises(StoreError, match="cannot be reached: Timeout"):
                store.get(b"k")
            assert 0.4 < time.monotonic() - begun < 0.9
        finally:
            own_redis.process.send_signal(signal.SIGCONT)
        assert store.get(b"k") == b"1"
        # a connection that was closed meanwhile is replaced within the call
        own_redis.stop()
        own_redis.start()
        assert store.get(b"k") == b"1"


def test_full_server_takes_nothing_of_a_batch(own_redis):
    with closing(own_redis.client()) as client, RedisStore(own_redis.address) as store:
        store.put_many({b"k": b"1"})
        client.config_set("maxmemory", client.info("memory")["used_memory"] + (4 << 20))
        batch = {b"%d" % n: bytes(100) for n in range(60_000)}
        for _ in range(3):  # the first may still fit
            try:
                store.put_many(batch)
            except StoreError as error:
                message = str(error)
            batch = {b"x" + key: value for key, value in batch.items()}
        assert "refused" in message
        assert "\\x00" not in message
        assert "MSET" not in message
        assert "OOM" in message or "maxmemory" in message
        client.config_set("maxmemory", 0)
        assert store.get(b"k") == b"1"
        assert len(list(store.scan())) % 60_000 == 1


def test_refusal_of_the_server_is_reported(redis_server):
    store = RedisStore(redis_server.address + "99")
    with store, pytest.raises(StoreError, match=r"refused: .*out of range"):
        store.ping()


def test_password_is_sent_and_never_shown(own_redis):
    with closing(own_redis.client()) as client:
        client.config_set("requirepass", "se/cret@")
    place = own_redis.address.partition("//")[2]
    with RedisStore(f"redis://:se%2Fcret%40@{place}") as store:
        store.ping()
        assert "cret" not in repr(vars(store))
    with RedisStore(f"redis://default:se%2Fcret@{place}") as store:
        with pytest.raises(StoreError) as caught:
            store.ping()
        assert "cret" not in str(caught.value)
    with closing(own_redis.client()) as client:
        client.auth("se/cret@")
        client.config_set("requirepass", "")


@pytest.mark.parametrize("scheme", ["lmdb:", ""])
def test_path_opens_an_embedded_store(tmp_path, scheme):
    with open_store(f"{scheme}{tmp_path}/of/users") as store:
        assert isinstance(store, LMDBStore)
    assert (tmp_path / "of" / "users" / "data.mdb").exists()


@pytest.mark.parametrize(
    "address",
    ["", "lmdb:", "memcached://host:1", "http://host", "log:folder", "redis:host", "a\0b"],
)
def test_other_addresses_are_refused(address):
    with pytest.raises(ValueError, match="address must be lmdb:FOLDER, the path of a folder, or"):
        open_store(address)
