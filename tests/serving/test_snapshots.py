"""Versions: whole or absent, checked, pruned; whatever is killed or damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from recbole_mars.serving import DamagedFolder, NoSnapshot, Snapshots, read_manifest, whole_folder
from recbole_mars.serving.folders import link_folder


def writing(text: str) -> Any:
    def write(folder: Path) -> dict[str, Any]:
        (folder / "sub").mkdir()
        (folder / "a.txt").write_text(text)
        (folder / "sub" / "b.txt").write_text(text)
        return {"text": text}

    return write


def test_what_is_published_is_current(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "new" / "root")
    with pytest.raises(NoSnapshot, match="publish one first"):
        snapshots.current()
    first = snapshots.publish(writing("one"))
    second = snapshots.publish(writing("two"))
    assert [first.name, second.name] == ["00000001", "00000002"] == snapshots.names()
    current = snapshots.current()
    assert current == second
    assert (current.folder / "sub" / "b.txt").read_text() == "two"
    snapshots.choose("00000001")
    assert snapshots.current().notes == {"text": "one"}
    with pytest.raises(NoSnapshot, match="00000007 is not there; there are 00000001, 00000002"):
        snapshots.choose("00000007")


def test_old_versions_go_but_never_the_current_one(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    for text in "abc":
        snapshots.publish(writing(text), keep=2)
    assert snapshots.names() == ["00000002", "00000003"]
    snapshots.choose("00000002")
    snapshots.publish(writing("d"), keep=1, current=False)
    assert snapshots.names() == ["00000002", "00000004"]
    assert snapshots.current().notes == {"text": "b"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == [
        ".publish.lock"
    ]
    with pytest.raises(ValueError, match="keep must be >= 1, got 0"):
        snapshots.publish(writing("e"), keep=0)


def test_a_failure_while_writing_leaves_all_as_it_was(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.publish(writing("one"))

    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        snapshots.publish(fail)
    assert snapshots.names() == ["00000001"]
    assert snapshots.current().notes == {"text": "one"}
    assert not list(tmp_path.glob(".0*"))
    assert snapshots.publish(writing("two")).name == "00000002"


def test_a_short_write_of_numpy_is_told_as_a_full_disk(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)

    def write(folder: Path) -> dict[str, Any]:
        raise OSError("7650 requested and 7152 written")

    with pytest.raises(OSError, match="00000001 cannot be written, the disk may be full: 7650"):
        snapshots.publish(write)
    assert snapshots.names() == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "a.txt").write_text("onf"), "a.txt was changed"),
        (lambda f: (f / "a.txt").write_text("longer"), "a.txt must have 3 bytes, has 6"),
        (lambda f: (f / "sub" / "b.txt").unlink(), "sub/b.txt is missing"),
        (lambda f: (f / "c.txt").write_text(""), "c.txt does not belong there"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json is damaged"),
        (
            lambda f: (f / "manifest.json").write_text('{"format": 2, "files": {}, "notes": {}}'),
            "has format 2, this version reads 1",
        ),
    ],
)
def test_a_damaged_version_is_refused_with_the_reason(
    tmp_path: Path, spoil: Any, message: str
) -> None:
    snapshots = Snapshots(tmp_path)
    spoil(snapshots.publish(writing("one")).folder)
    with pytest.raises(DamagedFolder, match=message):
        snapshots.current()


def test_what_is_no_folder_of_snapshots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file must be a folder of snapshots, is a file"):
        Snapshots(tmp_path / "file")
    with pytest.raises(ValueError, match="is no folder of snapshots, file is in it"):
        Snapshots(tmp_path)
    (tmp_path / "volume" / "lost+found").mkdir(parents=True)
    assert Snapshots(tmp_path / "volume").names() == []


def test_a_version_without_its_manifest_is_damaged(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    for _ in range(2):
        snapshots.publish(lambda folder: {})
    (tmp_path / "00000002" / "manifest.json").unlink()
    for use in (snapshots.current, partial(snapshots.at, "00000002")):
        with pytest.raises(DamagedFolder, match=r"has no manifest.json.*take another version"):
            use()
    found = snapshots.newest_whole()
    assert found is not None
    assert found.name == "00000001"


def test_whoever_may_read_the_manifest_may_read_all(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            with whole_folder(tmp_path / f"{mask}", {}) as aside:
                (aside / "shared").write_text("")
                (aside / "private").touch(mode=0o600)
        finally:
            os.umask(before)
        for name in ("shared", "private", "manifest.json"):
            assert (tmp_path / f"{mask}" / name).stat().st_mode & 0o777 == mode


def test_a_folder_without_a_manifest_is_none_of_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no manifest.json"):
        read_manifest(tmp_path)
    with whole_folder(tmp_path / "x", {}) as aside:
        (aside / "f").write_text("f")
    assert read_manifest(tmp_path / "x") == {}
    with pytest.raises(FileExistsError, match="is there already"), whole_folder(tmp_path / "x", {}):
        pass


def test_a_current_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    Snapshots(tmp_path).publish(writing("one"))
    (tmp_path / "CURRENT").write_text("../../etc\n")
    with pytest.raises(DamagedFolder, match="CURRENT must name a version"):
        Snapshots(tmp_path).current()


def test_a_current_file_that_names_nothing_is_damage(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    for _ in range(2):
        snapshots.publish(lambda folder: {})
    assert snapshots.newest_whole().name == "00000002"
    (tmp_path / "CURRENT").write_text("00000007\n")
    with pytest.raises(DamagedFolder, match=r"names 00000007, which is not there; .*00000002"):
        snapshots.current()
    assert snapshots.newest_whole().name == "00000002"
    (tmp_path / "00000002" / "manifest.json").unlink()
    assert snapshots.newest_whole().name == "00000001"
    shutil.rmtree(tmp_path / "00000001")
    assert snapshots.newest_whole() is None
    with pytest.raises(NoSnapshot):
        Snapshots(tmp_path / "none").newest_whole()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"../x\n"])
def test_where_none_is_known_as_current_the_next_is_made_from_the_newest(
    tmp_path: Path, content: bytes
) -> None:
    snapshots = Snapshots(tmp_path)
    for text in "ab":
        snapshots.publish(writing(text))
    (tmp_path / "CURRENT").write_bytes(content)
    with pytest.raises(DamagedFolder, match=r"CURRENT must name .*choose one: 00000001, 00000002"):
        snapshots.current()
    assert snapshots.newest_whole().name == "00000002"
    (tmp_path / "00000002" / "a.txt").write_text("?")
    assert snapshots.newest_whole().name == "00000001"
    # Any may have been the current one: none is removed before one is known again.
    snapshots.publish(writing("c"), keep=1, current=False)
    assert snapshots.names() == ["00000001", "00000002", "00000003"]
    snapshots.publish(writing("d"), keep=1)
    assert snapshots.names() == [snapshots.current_name()] == ["00000004"]


def test_what_is_pruned_while_it_is_chosen_does_not_become_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = Snapshots(tmp_path)
    for text in "ab":
        snapshots.publish(writing(text))
    enter = FileLock.__enter__

    def publish_first(lock: FileLock) -> FileLock:
        monkeypatch.setattr(FileLock, "__enter__", enter)
        Snapshots(tmp_path).publish(writing("c"), keep=1)
        return enter(lock)

    monkeypatch.setattr(FileLock, "__enter__", publish_first)
    with pytest.raises(NoSnapshot, match="00000001 is not there"):
        snapshots.choose("00000001")
    assert snapshots.current().notes == {"text": "c"}


def test_links_share_files_and_copies_stand_in_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Snapshots(tmp_path / "s").publish(writing("one")).folder
    link_folder(source, tmp_path / "linked")
    assert (tmp_path / "linked" / "a.txt").samefile(source / "a.txt")

    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    link_folder(source, tmp_path / "copied")
    assert not (tmp_path / "copied" / "a.txt").samefile(source / "a.txt")
    assert (tmp_path / "copied" / "sub" / "b.txt").read_text() == "one"
    assert not (tmp_path / "copied" / "manifest.json").exists()


def test_readers_see_one_version_or_another_while_many_are_published(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.publish(writing("0"), keep=1)
    seen, problems, stop = set(), [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                current = Snapshots(tmp_path).current()
                seen.add(current.notes["text"])
            except Exception as error:  # any would be a mixture
                problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 40):
        snapshots.publish(writing(str(number)), keep=1)
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems
    assert len(seen) > 1


def publish_for_ever(root: Path, told: int) -> None:
    def write(number: int, folder: Path) -> dict[str, Any]:
        for name in range(20):
            (folder / str(name)).write_bytes(bytes([number % 256]) * 20000)
        return {"number": number}

    for number in range(10000):
        Snapshots(root).publish(partial(write, number), keep=2)
        os.write(told, b".")


def test_kills_leave_whole_versions_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    last = -1
    for kill in range(20):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            publish_for_ever(root, writer)
        os.read(reader, 1)
        time.sleep(0.013 * kill)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        snapshots = Snapshots(root)
        notes = snapshots.current().notes
        assert (snapshots.current().folder / "7").read_bytes()[0] == notes["number"] % 256
        for name in snapshots.names():
            read_manifest(root / name)
        number = int(snapshots.current().name)
        assert number > last
        last = number
    manifest = json.loads((snapshots.current().folder / "manifest.json").read_text())
    assert len(manifest["files"]) == 20
    snapshots.publish(writing("after"), keep=2)
    assert not [path for path in root.iterdir() if path.name.startswith(".0")]
