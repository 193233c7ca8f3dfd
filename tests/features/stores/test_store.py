"""A store is whole or not there."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from recbole_mars.features import CorruptStoreError, FeatureStore, write_store
from recbole_mars.features.stores.locking import writing_lock

IDS = ["1", "b\tü", "\u2028", "\r", ""]
PRESENT = np.array([True, True, False, True, True])
MATRIX = np.where(PRESENT[:, None], np.arange(1, 11).reshape(5, 2) / 4, 0.0)

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked here"
)


def write(folder: Path, ids=IDS, matrix=MATRIX, present=PRESENT, **changes) -> FeatureStore:
    described = {"encoder": "test", "settings": {"k": [1]}, "fingerprint": "f", **changes}
    return write_store(folder, ids, matrix, present, **described)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_written_is_read(tmp_path, dtype: str) -> None:
    write(tmp_path / "deep" / "store", dtype=dtype)
    store = FeatureStore.open(tmp_path / "deep" / "store")
    assert store.ids == tuple(IDS)
    assert store.name == "test"
    assert store.matrix.dtype == dtype
    assert isinstance(store.matrix, np.memmap)
    assert not store.matrix.flags.writeable
    assert store.matrix.flags.c_contiguous
    np.testing.assert_array_equal(store.matrix, MATRIX)
    np.testing.assert_array_equal(store.present, PRESENT)
    matrix, present = store.select(["\r", "\n", "1"])
    np.testing.assert_array_equal(matrix, [MATRIX[3], [0, 0], MATRIX[0]])
    np.testing.assert_array_equal(present, [True, False, True])


def test_manifest(tmp_path) -> None:
    manifest = write(tmp_path / "s").manifest
    assert manifest == json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert (manifest["format"], manifest["encoder"], manifest["settings"]) == (
        2,
        "test",
        {"k": [1]},
    )
    assert (manifest["rows"], manifest["dimensions"], manifest["dtype"]) == (5, 2, "float16")
    assert (manifest["fingerprint"], manifest["broken"]) == ("f", 0)
    assert set(manifest["files"]) == {
        "features.npy",
        "present.npy",
        "ids.txt",
        "sources.npy",
        "truncated.npy",
    }
    assert manifest["created_by"].startswith("recbole_mars ")


def test_broken_pictures_are_listed(tmp_path) -> None:
    store = write(tmp_path / "s", broken={"1": "cut short", "9": "no picture"})
    assert store.manifest["broken"] == 2
    assert (store.folder / "broken.txt").read_text() == "1\tcut short\n9\tno picture\n"


def test_fortran_order_is_stored_as_c_order(tmp_path) -> None:
    store = write(tmp_path / "s", matrix=np.asfortranarray(MATRIX))
    assert store.matrix.flags.c_contiguous
    np.testing.assert_array_equal(store.matrix, MATRIX)


def test_replacing_a_store(tmp_path) -> None:
    old = write(tmp_path / "s", broken={"1": "cut short"})
    new = write(tmp_path / "s", ids=["x"], matrix=np.ones((1, 3)), present=np.array([True]))
    assert (new.ids, new.dimensions) == (("x",), 3)
    assert "broken.txt" not in names(tmp_path / "s")
    assert names(tmp_path) == {"s", ".s.lock"}
    np.testing.assert_array_equal(old.matrix, MATRIX)  # a reader keeps what it has open


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dtype": "float64"}, "dtype must be one of 'float16', 'float32', 'int8', got 'float64'"),
        ({"ids": ["a", "b", "c", "a", "b"]}, "found again: 'a', 'b'"),
        ({"ids": ["a", "b", "c", "d", "e\n"]}, r"no newlines, found 'e\\n'"),
        ({"ids": [1, 2, 3, 4, 5]}, "got 1 of type int"),
        ({"ids": IDS[:4]}, r"must have shape \(4, D\)"),
        ({"matrix": MATRIX[:, 0]}, r"got \(5,\)"),
        ({"present": PRESENT[:4]}, r"must be bool of shape \(5,\)"),
        ({"present": np.zeros(5, dtype=bool)}, "zero where present is False.*items '1'"),
        ({"matrix": np.where(MATRIX == 2.0, np.nan, MATRIX)}, r"finite.*items '\\r'$"),
        ({"matrix": np.where(MATRIX == 0.25, -np.inf, MATRIX)}, "finite.*items '1'$"),
        ({"matrix": MATRIX * 65600}, "too large or too small for float16; use dtype='float32'"),
        ({"matrix": MATRIX * 1e-9}, "too large or too small for float16"),
        ({"matrix": MATRIX * 1e39, "dtype": "float32"}, "for float32; rescale the features"),
    ],
)
def test_refused_at_write(tmp_path, changes: dict, complaint: str) -> None:
    write(tmp_path / "s")
    with pytest.raises(ValueError, match=complaint):
        write(tmp_path / "s", **changes)
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").matrix, MATRIX)
    assert names(tmp_path) == {"s", ".s.lock"}


def test_float16_limit(tmp_path) -> None:
    write(tmp_path / "s", matrix=np.where(MATRIX == 1.0, 65504.0, MATRIX))
    with pytest.raises(ValueError, match=r"items 'b\\tü'$"):
        write(tmp_path / "s", matrix=np.where(MATRIX == 1.0, 65520.0, MATRIX))


def test_settings_that_are_no_json_leave_nothing(tmp_path) -> None:
    with pytest.raises(TypeError):
        write(tmp_path / "s", settings={"k": object()})
    assert names(tmp_path) == {".s.lock"}


def test_other_peoples_folders_are_left_alone(tmp_path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds other files: 'thesis\.tex'; name a new"):
        write(tmp_path / "home")
    assert names(tmp_path / "home") == {"thesis.tex"}
    with pytest.raises(ValueError, match=r"needs a folder, found a file: .*thesis\.tex"):
        write(tmp_path / "home" / "thesis.tex")
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty").dimensions == 2


FOREIGN = {name: {} for name in ("features.npy", "present.npy", "ids.txt", "../x")}


def damage(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(bytes(content))


def edit(folder: Path, **changes) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda f: damage(f, "features.npy"), "features.npy was changed"),
        (lambda f: damage(f, "present.npy"), "present.npy was changed"),
        (lambda f: damage(f, "ids.txt"), "ids.txt was changed"),
        (lambda f: damage(f, "broken.txt"), "broken.txt was changed"),
        (lambda f: os.truncate(f / "features.npy", 130), "features.npy was changed"),
        (lambda f: (f / "present.npy").unlink(), "present.npy is missing"),
        (lambda f: (f / "manifest.json").unlink(), "has no manifest.json"),
        (lambda f: os.truncate(f / "manifest.json", 40), "is corrupt"),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff"), "is corrupt"),
        (lambda f: (f / "manifest.json").write_text("[]"), r"must be of format 2, found \[\]"),
        (lambda f: edit(f, format=1), "must be of format 2, found 1"),
        (lambda f: edit(f, rows=None), "must hold 'rows' as int"),
        (lambda f: edit(f, rows=4), "the manifest says"),
        (lambda f: edit(f, dtype="float32"), "the manifest says"),
        (lambda f: edit(f, dimensions=3), "the manifest says"),
        (lambda f: edit(f, files={}), r"must describe a store's files, found \[\]"),
        (lambda f: edit(f, files=FOREIGN), r"must describe a store's files, found \['\.\./x'"),
    ],
)
def test_corrupt_stores_say_so_and_can_be_replaced(tmp_path, harm, complaint: str) -> None:
    write(tmp_path / "s", broken={"1": "cut short"})
    harm(tmp_path / "s")
    with pytest.raises(CorruptStoreError, match=f"(?s){complaint}.*deleting the folder"):
        FeatureStore.open(tmp_path / "s")
    np.testing.assert_array_equal(write(tmp_path / "s").matrix, MATRIX)


def test_no_store(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no feature store in"):
        FeatureStore.open(tmp_path / "s")


def in_fork(action) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=action)
    process.start()
    process.join(20)
    return process.exitcode


@needs_fork
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("call", "count"), [("save", 1), ("save", 2), ("dumps", 1), ("rename", 1), ("rename", 2)]
)
def test_a_kill_at_any_step(tmp_path, old: bool, call: str, count: int) -> None:
    if old:
        write(tmp_path / "s")
    owner = {"save": np, "dumps": json, "rename": Path}[call]
    real = getattr(owner, call)

    def killed() -> None:
        calls = []

        def step(*args, **kwargs):
            calls.append(1)
            result = real(*args, **kwargs)
            if len(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, call, step)
        write(tmp_path / "s", matrix=MATRIX * 2)

    exit_code = in_fork(killed)
    last_rename = 2 if old else 1
    if (call, count) == ("rename", 2) and not old:
        assert exit_code == 0  # with nothing to replace there is one rename
    else:
        assert exit_code == -signal.SIGKILL
    try:
        found = FeatureStore.open(tmp_path / "s").matrix
    except FileNotFoundError:
        assert not old or (call, count) == ("rename", 1)
    else:
        new = call == "rename" and count >= last_rename
        np.testing.assert_array_equal(found, MATRIX * (2 if new else 1))
    write(tmp_path / "s", matrix=MATRIX * 3)
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").matrix, MATRIX * 3)
    assert names(tmp_path) == {"s", ".s.lock"}


@needs_fork
def test_processes_writing_at_once(tmp_path) -> None:
    def write_often(factor: int) -> None:
        for _ in range(5):
            write(tmp_path / "s", matrix=MATRIX * factor)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_often, args=(k,)) for k in (1, 2, 3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    factor = FeatureStore.open(tmp_path / "s").matrix[0, 0] / MATRIX[0, 0]
    assert factor in (1, 2, 3)
    assert names(tmp_path) == {"s", ".s.lock"}


def test_threads_writing_at_once(tmp_path) -> None:
    failures = []

    def write_often(factor: int) -> None:
        for _ in range(5):
            store = write(tmp_path / "s", matrix=MATRIX * factor)
            if not np.array_equal(store.matrix, MATRIX * factor):
                failures.append(factor)

    threads = [threading.Thread(target=write_often, args=(k,)) for k in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert FeatureStore.open(tmp_path / "s").matrix[0, 0] in MATRIX[0, 0] * np.arange(1, 4)


def test_the_lock_can_be_taken_again_by_its_holder(tmp_path) -> None:
    with writing_lock(tmp_path / "s"):
        assert write(tmp_path / "s").dimensions == 2


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_linked_folder_stays_a_link(tmp_path) -> None:
    write(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", matrix=MATRIX * 2)
    assert (tmp_path / "link").is_symlink()
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "real").matrix, MATRIX * 2)


def test_a_store_can_be_moved(tmp_path) -> None:
    write(tmp_path / "s")
    shutil.move(str(tmp_path / "s"), str(tmp_path / "t"))
    assert FeatureStore.open(tmp_path / "t").folder == (tmp_path / "t").resolve()
