"""What only the embedded store does: its map grows, its disk fills, its files break."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import subprocess
import threading

import lmdb
import pytest

from recbole_mars.serving.stores import LMDBStore, StoreError, open_store

MB = 1 << 20
FULL = 1000


def batch(version: int, count: int = 100, size: int = 5000) -> dict[bytes, bytes]:
    return {b"k%04d" % n: (b"%d:%d;" % (version, n)).ljust(size, b".") for n in range(count)}


def test_map_grows_by_itself(tmp_path):
    with LMDBStore(tmp_path, map_size=64 << 10) as store:
        for version in range(5):
            store.put_many({b"%d-" % version + key: v for key, v in batch(version).items()})
        store.put_many({b"big": bytes(20 * MB)})
        assert store.get_many([b"%d-k0099" % n for n in range(5)]) == [
            batch(n)[b"k0099"] for n in range(5)
        ]
        assert len(store.get(b"big")) == 20 * MB
    # a map smaller than the content is made large enough
    with LMDBStore(tmp_path, map_size=64 << 10) as store:
        store.put_many({b"more": bytes(MB)})
        assert len(list(store.scan())) == 502


def test_map_grows_while_threads_read_and_scan(tmp_path):
    stop = threading.Event()
    failures = []

    def read(store):
        while not stop.is_set():
            try:
                values = store.get_many(batch(0))
                if len({value[:2] for value in values}) != 1:
                    failures.append(values)
                list(itertools.islice(store.scan(), 50))
            except Exception as error:
                failures.append(error)

    with LMDBStore(tmp_path, map_size=MB) as store:
        store.put_many(batch(0))
        threads = [threading.Thread(target=read, args=(store,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        open_scan = store.scan()
        next(open_scan)
        for version in range(9):
            store.put_many(batch(version))
            store.put_many({b"x%d" % version: bytes(4 * MB)})
        assert len(list(open_scan)) >= 99
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def read_all_the_time(say, folder):
    with LMDBStore(folder, map_size=64 << 10, read_only=True) as store:
        while True:
            values = store.get_many(batch(0))
            assert len({value.split(b":")[0] for value in values}) == 1
            say(int(values[0].split(b":")[0]))


def test_readers_of_other_processes_follow_a_growing_map(tmp_path, child):
    with LMDBStore(tmp_path, map_size=MB) as store:
        store.put_many(batch(0))
    readers = [child(read_all_the_time, tmp_path) for _ in range(2)]
    for reader in readers:
        assert reader.hear() == 0
    with LMDBStore(tmp_path, map_size=MB) as store:
        for version in range(1, 8):
            store.put_many({b"x%d" % version: bytes(4 * MB)})
            store.put_many(batch(version))
            for reader in readers:
                while reader.hear() < version:
                    pass
        for reader in readers:
            assert reader.kill() == 7


def write_and_grow(say, folder, name):
    with LMDBStore(folder, map_size=64 << 10) as store:
        for version in range(30):
            store.put_many({b"%d-%d" % (name, version): bytes(200_000)})
        say(name)


def test_writers_take_turns_and_follow_each_others_map(tmp_path, child):
    writers = [child(write_and_grow, tmp_path, name) for name in range(3)]
    assert [writer.hear() for writer in writers] == [0, 1, 2]
    with LMDBStore(tmp_path, read_only=True) as store:
        assert len(list(store.scan())) == 90


def hold_a_transaction(say, folder):
    environment = lmdb.open(folder, readonly=True)
    with environment.begin() as transaction:
        transaction.get(b"k0000")
        say(0)
        threading.Event().wait()


def test_killed_reader_does_not_make_the_file_grow(tmp_path, child):
    with LMDBStore(tmp_path, map_size=4 * MB) as store:
        store.put_many(batch(0))
    reader = child(hold_a_transaction, str(tmp_path))
    reader.hear()
    with LMDBStore(tmp_path, map_size=4 * MB) as store:
        reader.kill()
        for version in range(40):  # 20 MB, of which half a MB is alive
            store.put_many(batch(version))
    assert (tmp_path / "data.mdb").stat().st_size <= 4 * MB


def fill_until_full(say, folder, limit):
    if limit:  # the disk is as good as full when the file may not grow
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with LMDBStore(folder, map_size=MB) as store:
        store.put_many(batch(7))
        for n in itertools.count(1):
            try:
                store.put_many({b"x%d-%d" % (n, k): bytes(5000) for k in range(100)})
            except StoreError:
                break
            say(n)
        with pytest.raises(StoreError, match="nothing of the batch was written"):
            store.put_many({b"x": bytes(8 * MB)})
        store.put_many({b"k0000": b"small"})
        store.put_many({b"k0000": batch(7)[b"k0000"]})
        say(FULL)
        threading.Event().wait()


@pytest.fixture(params=["limit", "tmpfs"])
def small_disk(request, tmp_path):
    """A folder where files may have 4 MB, and the limit that the process must set for it."""
    if request.param == "limit":
        yield tmp_path, 4 * MB
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount on this machine")
    if done.returncode:
        pytest.skip("a small disk cannot be mounted without root")
    yield tmp_path, 0
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_full_disk_leaves_what_was_there(small_disk, child):
    folder, limit = small_disk
    writer = child(fill_until_full, folder / "store", limit)
    kept = 0
    while (said := writer.hear()) < FULL:
        kept = said
    writer.kill()
    with LMDBStore(folder / "store", read_only=True) as store:
        assert store.get_many(batch(7)) == list(batch(7).values())
        assert len(list(store.scan(b"x"))) == 100 * kept
    assert kept > 0


def test_missing_store_is_not_made_to_be_read(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere is not there; let its writer make it first"):
        LMDBStore(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()


def test_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file cannot be opened"):
        LMDBStore(tmp_path / "file")


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_was_cut_off_is_an_error_before_it_is_read(tmp_path, read_only):
    with LMDBStore(tmp_path) as store:
        store.put_many({b"k%d" % number: b"x" * 1000 for number in range(500)})
    with open(tmp_path / "data.mdb", "r+b") as file:
        file.truncate(100_000)
    with pytest.raises(StoreError, match=r"cut off: data.mdb must have \d+ bytes, has 100000"):
        LMDBStore(tmp_path, read_only=read_only)


def test_damaged_file_is_an_error(tmp_path):
    with LMDBStore(tmp_path) as store:
        store.put_many(batch(0))
    (tmp_path / "data.mdb").write_bytes(os.urandom(1 << 16))
    with pytest.raises(StoreError, match="cannot be opened"):
        LMDBStore(tmp_path)


def test_store_opens_once_in_a_process(tmp_path):
    with LMDBStore(tmp_path), pytest.raises(StoreError, match="already open in this process"):
        LMDBStore(tmp_path)


def test_store_error_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="is not there") as caught:
        open_store(str(tmp_path / "none"), read_only=True)
    assert caught.value.errno not in (errno.ENOSPC, errno.ENOENT)
