"""What only the local log does: it is torn by crashes, damaged, filled, pruned, locked."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading

import pytest
from event_numbers import events, numbers

from recbole_mars.serving.events import EventsLost, LocalLog, QueueError, open_queue
from recbole_mars.serving.events.records import append_follows, frame


def segments(folder):
    return sorted(folder.glob("*.log"))


def write_log(folder, appends, **options):
    """A log of appends of three events each; returns their offsets."""
    with LocalLog(folder, **options) as log:
        return [log.append(events(3 * n, 3 * n + 3)) for n in range(appends)]


def begin_at_zero(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{0:020d}.log").touch()


@pytest.fixture
def torn(tmp_path):
    """A log of two appends in one file, where its records end, and the file's bytes."""
    begin_at_zero(tmp_path)
    write_log(tmp_path, 2)
    with LocalLog(tmp_path) as log:
        ends = [0, *(int(offset) for offset, _ in log.read(None, 10))]
    (file,) = segments(tmp_path)
    content = file.read_bytes()
    assert ends[-1] == len(content)
    return tmp_path, file, ends, content


def test_torn_end_is_never_read_and_cut_by_the_next_append(torn, caplog):
    folder, file, ends, content = torn
    for length in [*range(0, ends[5], 13), *range(ends[5] - 1, len(content), 3), len(content) - 1]:
        file.write_bytes(content[:length])
        whole = sum(end <= length for end in ends) - 1
        with LocalLog(folder) as log:
            assert numbers(log.read(None, 10)) == list(range(whole))
            assert file.stat().st_size == length
            log.append(events(7, 9))
            assert numbers(log.read(None, 10)) == [*range(whole), 7, 8]
    assert f"Cut {ends[6] - 1 - ends[5]} bytes of an unfinished append" in caplog.messages[-1]


@pytest.mark.parametrize("rest", [bytes(100), b"\xff" * 100, b"{" * 3000])
def test_garbage_behind_the_last_append_is_cut(torn, rest):
    """A power cut may leave a file its new length without its new content."""
    folder, file, _, content = torn
    file.write_bytes(content + rest)
    with LocalLog(folder) as log:
        assert numbers(log.read(None, 10)) == list(range(6))
        log.append(events(6, 7))
        assert numbers(log.read(None, 10)) == list(range(7))


def test_last_append_that_is_broken_anywhere_is_cut_there(torn):
    folder, file, ends, content = torn
    broken = bytearray(content)
    broken[ends[3] + 20] ^= 1  # its first record; its other two are whole
    file.write_bytes(broken)
    with LocalLog(folder) as log:
        assert numbers(log.read(None, 10)) == [0, 1, 2]
        log.append(events(7, 8))
        assert numbers(log.read(None, 10)) == [0, 1, 2, 7]


def test_damage_before_an_append_is_an_error(torn):
    folder, file, ends, content = torn
    header = 12
    for place in [*range(ends[1], ends[1] + header), *range(0, ends[3], 9)]:  # of the first append
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        before = max(end for end in ends if end <= place)
        expected = re.escape(f"{file} is damaged at byte {before}, offset {before:020d}: ")
        with LocalLog(folder) as log:
            with pytest.raises(QueueError, match=expected):
                log.read(None, 10)
            with pytest.raises(QueueError, match=expected):
                log.append(events(7, 8))
            assert numbers(log.read(None, 1)) == [0] if before else True
            assert file.read_bytes() == damaged
            # behind the damage it can be read
            assert numbers(log.read(f"{ends[3]:020d}", 10)) == [3, 4, 5]


def test_appends_between_two_looks_of_a_reader_are_no_damage(torn, monkeypatch):
    folder, file, ends, content = torn
    file.write_bytes(content[: ends[2] + 5])

    def finish_first(descriptor, position):
        file.write_bytes(content)
        return append_follows(descriptor, position)

    monkeypatch.setattr("recbole_mars.serving.events.segments.append_follows", finish_first)
    with LocalLog(folder) as log:
        assert numbers(log.read(None, 10)) == [0, 1, 2, 3, 4, 5]


def test_segment_that_ends_early_is_an_error(tmp_path):
    offsets = write_log(tmp_path, 5, segment_bytes=1)
    files = segments(tmp_path)
    assert len(files) == 5
    assert [int(file.stem) for file in files[1:]] == [int(offset) for offset in offsets[:-1]]
    content = files[1].read_bytes()
    files[1].write_bytes(content[:-1])
    with LocalLog(tmp_path) as log:
        assert numbers(log.read(None, 5)) == [0, 1, 2, 3, 4]
        with pytest.raises(QueueError, match=rf"{files[1]} is damaged at byte"):
            log.read(None, 10)
        assert numbers(log.read(offsets[1], 10)) == list(range(6, 15))
        files[1].unlink()
        with pytest.raises(QueueError, match=rf"{files[0]} is damaged at byte \d+, .*more follows"):
            log.read(None, 10)


def test_offset_behind_the_end_is_an_error(tmp_path):
    with LocalLog(tmp_path) as log:
        with pytest.raises(EventsLost, match=r"is empty, got the offset 0+9 "):
            log.read("9".zfill(20), 1)
        offset = log.append(events(0, 3))
        with pytest.raises(EventsLost, match=rf"ends at {offset}, before the offset"):
            log.read(f"{int(offset) + 1:020d}", 1)
        assert log.read(offset, 1) == []


def test_offset_of_a_log_that_was_here_before_is_an_error(tmp_path):
    """Whatever was appended since, and by whom: a process may hold the old log open."""
    folder = tmp_path / "log"
    with LocalLog(folder) as old:
        offset = old.append(events(0, 10))
        shutil.rmtree(folder)
        with LocalLog(folder) as new:
            new.append(events(20, 70))
            old.append(events(70, 75))
            assert numbers(new.read(None, 100)) == list(range(20, 75))
            for log in (old, new):
                with pytest.raises(EventsLost, match="begins at"):
                    log.read(offset, 1)


def test_pruning_removes_what_all_groups_have_committed(tmp_path):
    offsets = write_log(tmp_path, 6, segment_bytes=1)
    with LocalLog(tmp_path, group="a") as first, LocalLog(tmp_path, group="b") as second:
        first.commit(offsets[4])
        second.commit(offsets[1])
        assert first.prune(offsets[5]) == 2
        assert [int(file.stem) for file in segments(tmp_path)] == [int(o) for o in offsets[1:5]]
        assert numbers(second.read(offsets[1], 100)) == list(range(6, 18))
        assert numbers(first.read(None, 100)) == list(range(6, 18))
        with pytest.raises(EventsLost, match=rf"begins at {offsets[1]}, behind .*{offsets[0]}"):
            first.read(offsets[0], 1)
        second.commit(offsets[5])
        assert first.prune(offsets[3]) == 2
        assert first.prune(offsets[3]) == 0
        first.commit(offsets[5])
        assert first.prune(offsets[5]) == 1  # the last one stays
        assert numbers(first.read(offsets[4], 100)) == [15, 16, 17]
        first.append(events(18, 19))
        assert numbers(first.read(offsets[4], 100)) == [15, 16, 17, 18]


@pytest.mark.parametrize("place", [None, 2])
def test_pruning_keeps_what_a_group_has_only_read(tmp_path, place):
    offsets = write_log(tmp_path, 6, segment_bytes=1)
    after = None if place is None else offsets[place]
    with LocalLog(tmp_path, group="a") as first, LocalLog(tmp_path, group="b") as second:
        seen = second.read(after, 1)
        first.commit(offsets[5])
        assert first.prune(offsets[5]) == (0 if place is None else place + 1)
        assert second.read(after, 1) == seen


def test_segment_that_is_pruned_under_a_reader_is_no_damage(tmp_path, monkeypatch):
    offsets = write_log(tmp_path, 4, segment_bytes=1)
    real_open = os.open

    def prune_first(path, *arguments):
        if str(path) == str(segments(tmp_path)[0]):
            monkeypatch.setattr(os, "open", real_open)
            log.prune(offsets[1])
        return real_open(path, *arguments)

    with LocalLog(tmp_path) as log:
        log.commit(offsets[1])
        monkeypatch.setattr(os, "open", prune_first)
        assert numbers(log.read(None, 100)) == list(range(6, 12))
        assert len(segments(tmp_path)) == 2


def fill(say, folder):
    import resource

    with LocalLog(folder) as log:
        log.append(events(0, 3))
        limit = segments(folder)[0].stat().st_size + 400
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(QueueError, match=r"cannot be appended to: .*File too large"):
            log.append(events(3, 100))
        kept = numbers(log.read(None, 1000))
        assert kept == list(range(len(kept)))
        say(len(kept))
        with pytest.raises(QueueError, match="File too large"):
            log.append(events(0, 100))
        threading.Event().wait()


def test_full_disk_leaves_whole_records_only(tmp_path, child):
    """Those of the append that failed stay, for a reader may already have them."""
    writer = child(fill, tmp_path)
    kept = writer.hear()
    writer.kill()
    assert 3 < kept < 100
    with LocalLog(tmp_path) as log:
        before = numbers(log.read(None, 1000))
        assert before[:kept] == list(range(kept))
        log.append(events(500, 502))
        assert numbers(log.read(None, 1000)) == [*before, 500, 501]


def test_failed_sync_is_reported_and_the_end_read_anew(tmp_path, monkeypatch):
    with LocalLog(tmp_path) as log:
        log.append(events(0, 3))

        def fail(descriptor):
            raise OSError(errno.EIO, "input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(QueueError, match=r"cannot be appended to: .*input/output error"):
                log.append(events(3, 5))
        log.append(events(5, 6))
        assert numbers(log.read(None, 10)) == [0, 1, 2, 3, 4, 5]


def test_each_append_is_synced_once_before_it_returns(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def count(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    begin_at_zero(tmp_path)
    with LocalLog(tmp_path) as log:
        log.append(events(0, 3))
        monkeypatch.setattr(os, "fsync", count)
        end = int(log.append(events(3, 300)))
        assert synced == [end]


def test_waiting_for_a_hanging_writer_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_mars.serving.events.local_log._LOCK_SECONDS", 0.2)
    with LocalLog(tmp_path) as one, LocalLog(tmp_path) as other:
        one.append(events(0, 1))
        with one._alone(), pytest.raises(QueueError, match="has been held by another process"):
            other.append(events(1, 2))
        other.append(events(1, 2))
        one.append(events(2, 3))
        assert numbers(one.read(None, 10)) == [0, 1, 2]


def test_threads_may_share_a_log(tmp_path):
    with LocalLog(tmp_path, segment_bytes=2000) as log:
        threads = [threading.Thread(target=log.append, args=(events(k, k + 1),)) for k in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(numbers(log.read(None, 100))) == list(range(40))


def test_what_cannot_be_a_log_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueError, match="file cannot be opened"):
        LocalLog(tmp_path / "file")
    with pytest.raises(ValueError, match="segment_bytes must be >= 1, got 0"):
        LocalLog(tmp_path, segment_bytes=0)
    with pytest.raises(ValueError, match="a record must have at most"):
        frame(bytes(1 << 20), is_first=True)


@pytest.mark.parametrize("scheme", ["log:", ""])
def test_path_opens_a_local_log(tmp_path, scheme):
    begin_at_zero(tmp_path / "of" / "events")
    with open_queue(f"{scheme}{tmp_path}/of/events", group="g") as log:
        assert isinstance(log, LocalLog)
        log.commit(log.append(events(0, 1)))
    assert (tmp_path / "of" / "events" / "committed" / "g").read_text() == f"{59:020d}"


@pytest.mark.parametrize("address", ["", "log:", "kafka://host:1", "lmdb:folder", "redis:host"])
def test_other_addresses_are_refused(address):
    with pytest.raises(ValueError, match="address must be log:FOLDER, the path of a folder, or"):
        open_queue(address)
