"""Long extractions: each input once, and the same bytes however they were interrupted."""

from __future__ import annotations

import gc
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from fake_encoders import FakeModel
from PIL import Image

from recbole_mars.features import (
    BatchEncoder,
    Execution,
    FeatureStore,
    extract_images,
    extract_text,
)
from recbole_mars.features.extraction import plan
from recbole_mars.features.extraction.parts import find_digests
from recbole_mars.features.stores.writer import StoreWriter

IDS = [f"i{k}" for k in range(100)]
TEXTS = [f"text {k} {'x' * (k * 7 % 31)}" for k in range(100)]
SMALL = Execution(batch_size=4)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(plan, "SHARD_ITEMS", 12)
    monkeypatch.setattr(plan, "SHARDS", 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def extract(folder: Path, texts=TEXTS, ids=IDS, encoder=None, execution=SMALL, **others):
    return extract_text(ids, texts, encoder or FakeModel(), folder, execution=execution, **others)


class Stop(Exception):
    pass


def stopping_after(batches: int) -> FakeModel:
    encoder = FakeModel()
    encode = encoder.encode_batch

    def encode_or_stop(batch):
        if len(encoder.seen) == batches:
            raise Stop
        return encode(batch)

    encoder.encode_batch = encode_or_stop
    return encoder


def test_vectors_by_hand(tmp_path) -> None:
    assert isinstance(FakeModel(), BatchEncoder)
    texts = ["", "bb", "a", " "]
    extraction = extract_text(list("wxyz"), texts, FakeModel(), tmp_path / "s", dtype="float32")
    b, a = FakeModel._hash("bb"), FakeModel._hash("a")
    expected = [[0] * 5, [*b, b[0] + a[0]], [*a, b[0] + a[0]], [0] * 5]
    np.testing.assert_array_equal(extraction.store.matrix, expected)
    np.testing.assert_array_equal(extraction.store.present, [False, True, True, False])
    assert extraction.store.manifest["provenance"] == {"model": "fake"}
    assert (extraction.encoded, extraction.shards_left) == (2, 0)
    assert names(tmp_path) == {"s", ".s.lock"}


def test_longest_first_in_full_batches(tmp_path) -> None:
    encoder = FakeModel()
    extract(tmp_path / "s", encoder=encoder)
    assert [len(batch) for batch in encoder.seen] == [4] * 25
    lengths = [len(text) for batch in encoder.seen for text in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(encoder.inputs) == sorted(TEXTS)


def test_equal_inputs_are_encoded_once(tmp_path) -> None:
    encoder = FakeModel()
    extraction = extract(tmp_path / "s", ["same", "other", "same"], list("abc"), encoder)
    assert sorted(encoder.inputs) == ["other", "same"]
    assert extraction.encoded == 2
    np.testing.assert_array_equal(extraction.store.matrix[0], extraction.store.matrix[2])
    assert extraction.store.present.all()


def test_reused_without_loading_the_model(tmp_path) -> None:
    extract(tmp_path / "s")
    encoder = FakeModel()
    assert extract(tmp_path / "s", encoder=encoder).encoded == 0
    assert (encoder.loads, encoder.seen) == (0, [])


@pytest.mark.parametrize("batches", [0, 1, 2, 3, 7, 24])
def test_interrupted_and_resumed_gives_the_same_bytes(tmp_path, batches: int) -> None:
    extract(tmp_path / "whole")
    with pytest.raises(Stop):
        extract(tmp_path / "s", encoder=stopping_after(batches))
    assert "s" not in names(tmp_path)
    encoder = FakeModel()
    extraction = extract(tmp_path / "s", encoder=encoder)
    assert len(encoder.seen) == 25 - batches
    assert extraction.encoded == 4 * (25 - batches)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
    assert names(tmp_path) == {"whole", ".whole.lock", "s", ".s.lock"}


def test_interrupted_many_times(tmp_path) -> None:
    extract(tmp_path / "whole")
    for batches in (3, 1, 4, 1, 5, 9):
        with pytest.raises(Stop):
            extract(tmp_path / "s", encoder=stopping_after(batches))
    encoder = FakeModel()
    extract(tmp_path / "s", encoder=encoder)
    assert len(encoder.seen) == 2
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_interrupted_while_the_store_is_written(tmp_path, monkeypatch) -> None:
    extract(tmp_path / "whole")
    extract(tmp_path / "s", TEXTS[:50], IDS[:50])
    old = contents(tmp_path / "s")

    def stop(*arguments, **others) -> None:
        raise Stop

    for name in ("put", "commit"):
        with monkeypatch.context() as patch:
            patch.setattr(StoreWriter, name, stop)
            with pytest.raises(Stop):
                extract(tmp_path / "s")
        assert contents(tmp_path / "s") == old
    encoder = FakeModel()
    store = extract(tmp_path / "s", encoder=encoder).store
    assert encoder.seen == []
    assert store.present.all()
    assert names(tmp_path) == {"whole", ".whole.lock", "s", ".s.lock"}


@pytest.mark.parametrize("harm", [b"", b"PK", None])
@pytest.mark.parametrize(("which", "batches"), [(0, 3), (1, 1)], ids=["shard", "batch"])
def test_a_damaged_part_is_done_again(tmp_path, harm, which: int, batches: int) -> None:
    extract(tmp_path / "whole")
    with pytest.raises(Stop):
        extract(tmp_path / "s", encoder=stopping_after(5))
    parts = next(tmp_path.glob(".s.parts-*"))
    part = sorted(parts.glob("*.npz"), key=lambda path: len(path.name))[which]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content if harm is None else harm)
    encoder = FakeModel()
    extract(tmp_path / "s", encoder=encoder)
    assert len(encoder.seen) == 20 + batches
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_only_what_changed_is_encoded(tmp_path) -> None:
    old = extract(tmp_path / "s").store
    texts = ["changed", *TEXTS[1:50], "", *TEXTS[51:], "added"]
    encoder = FakeModel()
    new = extract(tmp_path / "s", texts, [*IDS, "new"], encoder).store
    assert sorted(encoder.inputs) == ["added", "changed"]
    same = np.r_[1:50, 51:100]
    np.testing.assert_array_equal(new.matrix[same], old.matrix[same])
    np.testing.assert_array_equal(np.flatnonzero(~new.present), [50])


def test_reordering_the_items_encodes_nothing(tmp_path) -> None:
    old = extract(tmp_path / "s").store
    encoder = FakeModel()
    new = extract(tmp_path / "s", TEXTS[::-1], IDS[::-1], encoder).store
    assert encoder.seen == []
    np.testing.assert_array_equal(new.matrix, old.matrix[::-1])


def test_what_is_done_is_kept_when_the_catalogue_or_the_batch_size_changes(tmp_path) -> None:
    with pytest.raises(Stop):
        extract(tmp_path / "s", encoder=stopping_after(10))
    encoder = stopping_after(3)
    with pytest.raises(Stop):
        extract(tmp_path / "s", ["changed", *TEXTS[1:]], encoder=encoder)
    done = 40 + 12
    encoder = FakeModel()
    bigger = Execution(batch_size=6)
    store = extract(tmp_path / "s", ["changed", *TEXTS[1:]], encoder=encoder, execution=bigger)
    assert len(encoder.inputs) == 100 - done
    reference = FakeModel()
    expected = [reference._hash(text) for text in ["changed", *TEXTS[1:]]]
    np.testing.assert_allclose(store.store.matrix[:, :4], expected, rtol=1e-3)


def test_other_settings_encode_all_anew_and_leave_what_was_begun(tmp_path) -> None:
    with pytest.raises(Stop):
        extract(tmp_path / "s", encoder=stopping_after(20))
    encoder = FakeModel(scale=2.0)
    extract(tmp_path / "s", encoder=encoder)
    assert len(encoder.seen) == 25
    encoder = FakeModel()
    extract(tmp_path / "s", encoder=encoder)
    assert len(encoder.seen) == 5
    assert names(tmp_path) == {"s", ".s.lock"}


@pytest.mark.parametrize(
    ("before", "after", "batches"),
    [
        ("float32", "float16", 0),
        ("float32", "int8", 0),
        ("float16", "int8", 0),
        ("float16", "float32", 25),
        ("int8", "float16", 25),
    ],
)
def test_a_store_in_a_lesser_dtype_needs_no_model(
    tmp_path, before: str, after: str, batches: int
) -> None:
    extract(tmp_path / "s", dtype=before)
    extract(tmp_path / "fresh", dtype=after)
    encoder = FakeModel()
    store = extract(tmp_path / "s", encoder=encoder, dtype=after).store
    assert len(encoder.seen) == batches
    np.testing.assert_array_equal(store.matrix[:], FeatureStore.open(tmp_path / "fresh").matrix[:])
    assert contents(tmp_path / "s") == contents(tmp_path / "fresh")


def test_int8_rows_are_kept_as_they_are(tmp_path) -> None:
    old = extract(tmp_path / "s", dtype="int8").store
    encoder = FakeModel()
    new = extract(tmp_path / "s", ["changed", *TEXTS[1:]], encoder=encoder, dtype="int8").store
    assert encoder.seen == [["changed"]]
    np.testing.assert_array_equal(new.matrix.quantised[1:], old.matrix.quantised[1:])
    np.testing.assert_array_equal(new.cosine_error[1:], old.cosine_error[1:])
    assert 0 < new.cosine_error.max() < 1e-3


@pytest.mark.filterwarnings("ignore:a batch of [24]")
def test_batches_that_do_not_fit_are_halved(tmp_path) -> None:
    encoder = FakeModel(largest=3)
    with pytest.warns(RuntimeWarning, match="a batch of 4 does not fit into memory"):
        store = extract(tmp_path / "s", encoder=encoder).store
    assert store.present.all()
    assert {len(batch) for batch in encoder.seen} == {2}
    with pytest.raises(ValueError, match="out of memory on a single input, 'text"):
        extract(tmp_path / "t", encoder=FakeModel(largest=0))


@pytest.mark.filterwarnings("ignore:a batch of")
@pytest.mark.parametrize(
    ("scale", "complaint"),
    [(np.nan, "that are not finite for 4 inputs"), (1e6, "beyond float16 for"), (1e-12, "beyond")],
)
def test_unfit_vectors_stop_the_run_at_once(tmp_path, scale: float, complaint: str) -> None:
    encoder = FakeModel(scale=scale)
    encoder.settings = lambda: {}
    with pytest.raises(ValueError, match=f"{complaint}.*the first 'text .*float32"):
        extract(tmp_path / "s", encoder=encoder)
    assert len(encoder.seen) == 1


def test_texts_that_cannot_be_read_are_listed(tmp_path) -> None:
    encoder = FakeModel(broken=["bad"])
    store = extract(tmp_path / "s", ["bad", "good", "bad"], list("abc"), encoder).store
    assert store.broken == {"a": "bad is broken", "c": "bad is broken"}
    with pytest.raises(ValueError, match=r"of the texts may be broken, and never all"):
        extract(tmp_path / "t", ["bad"], ["a"], encoder)


def test_truncated_inputs_are_told(tmp_path) -> None:
    store = extract(tmp_path / "s", ["short", "long" * 60, "long" * 60], list("abc")).store
    np.testing.assert_array_equal(store.truncated, [False, True, True])
    store = extract(tmp_path / "s", ["new", "long" * 60], list("ab")).store
    np.testing.assert_array_equal(store.truncated, [False, True])


def test_vectors_that_say_nothing_are_refused(tmp_path) -> None:
    encoder = FakeModel()
    for value, complaint in ((0.0, "must give vectors, found none for 100"), (2.0, "tell inputs")):
        encoder.encode_batch = lambda batch, value=value: np.full((batch.size, 3), value)
        with pytest.raises(ValueError, match=complaint):
            extract(tmp_path / "s", encoder=encoder)
        assert "s" not in names(tmp_path)
        for parts in tmp_path.glob(".s.parts-*"):
            shutil.rmtree(parts)


def test_a_shard_of_broken_inputs_only(tmp_path) -> None:
    encoder = FakeModel(broken=TEXTS[:2])
    one = Execution(batch_size=1)
    texts = sorted(TEXTS, key=len)
    store = extract(tmp_path / "s", texts, encoder=encoder, execution=one).store
    assert set(store.broken) == {IDS[texts.index(text)] for text in TEXTS[:2]}
    assert store.present.sum() == 98


def test_many_items_of_one_input_take_their_rows_and_no_more(tmp_path) -> None:
    n, width = 3000, 256

    class Wide(FakeModel):
        def encode_batch(self, batch) -> np.ndarray:
            return np.tile(super().encode_batch(batch), (1, width))

    ids, texts = [f"i{k}" for k in range(n)], ["the same"] * (n - 1) + ["other"]
    extract(tmp_path / "s", texts, ids, Wide())
    tracemalloc.start()
    store = extract(tmp_path / "s", [*texts[:-1], "changed"], ids, Wide()).store
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert store.present.all()
    np.testing.assert_array_equal(store.matrix[0], store.matrix[n - 2])
    assert peak < 20 * n * 5 * width  # in bytes; every row for every row would be 3,000 times more


def test_a_kill_between_the_renames_loses_nothing(tmp_path, monkeypatch) -> None:
    extract(tmp_path / "s", TEXTS[:50], IDS[:50])
    rename = Path.rename

    def rename_or_stop(path: Path, target: Path) -> Path:
        if path.name == ".s.writing":
            raise Stop
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_or_stop)
        with pytest.raises(Stop):
            extract(tmp_path / "s")
    assert "s" not in names(tmp_path)
    for parts in tmp_path.glob(".s.parts-*"):
        shutil.rmtree(parts)
    encoder = FakeModel()
    store = extract(tmp_path / "s", encoder=encoder).store
    assert len(encoder.inputs) == 50
    assert store.present.all()


def test_too_many_broken_never_replace_a_good_store(tmp_path, pictures, monkeypatch) -> None:
    monkeypatch.setattr(plan, "SHARD_ITEMS", 1)
    extract_images(IDS, pictures, FakeModel(), tmp_path / "s")
    good = contents(tmp_path / "s")
    for k, path in enumerate(list(pictures.values())[:6]):
        path.write_bytes(f"broken {k}".encode())
    for i in (1, 2, 3):  # each finds two broken, fewer than are allowed; together they are more
        shard = Execution(batch_size=1, shard=(i, 3))
        call = {"max_broken_share": 0.1, "execution": shard}
        if i < 3:
            extract_images(IDS, pictures, FakeModel(), tmp_path / "s", **call)
    with pytest.raises(ValueError, match="6 of 30"):
        extract_images(IDS, pictures, FakeModel(), tmp_path / "s", **call)
    assert contents(tmp_path / "s") == good


def test_a_run_leaves_the_parts_of_another_catalogue(tmp_path) -> None:
    with pytest.raises(Stop):
        extract(tmp_path / "s", encoder=stopping_after(3))
    late = FakeModel()
    encode = late.encode_batch

    def begin_another_run(batch):
        if not late.seen:
            with pytest.raises(Stop):
                extract(tmp_path / "s", ["changed", *TEXTS[1:]], encoder=stopping_after(6))
        return encode(batch)

    late.encode_batch = begin_another_run
    extract(tmp_path / "s", encoder=late)
    assert len(list(tmp_path.glob(".s.parts-*/*.npz"))) >= 2
    extract(tmp_path / "s", ["changed", *TEXTS[1:]])
    assert names(tmp_path) == {"s", ".s.lock"}


def test_what_a_store_holds_is_of_the_files_that_were_opened(tmp_path) -> None:
    long = ["long " * 60, *TEXTS[1:]]
    old = extract(tmp_path / "s", long, dtype="int8").store
    extract(tmp_path / "s", ["short"], ["a"], dtype="int8")
    assert old.truncated.tolist() == [True] + [False] * 99
    assert (len(old.sources), len(old.cosine_error)) == (100, 100)


def test_the_memory_of_a_failed_step_is_free_before_the_next(tmp_path) -> None:
    """A GPU that is full of the first try has no room for the second."""

    class Activations:
        pass

    alive: list[weakref.ref] = []

    class Hungry(FakeModel):
        def encode_batch(self, batch) -> np.ndarray:
            gc.collect()
            assert not any(reference() for reference in alive)
            held = Activations()
            alive.append(weakref.ref(held))
            return super().encode_batch(batch)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        store = extract(tmp_path / "s", encoder=Hungry(largest=1)).store
    assert store.present.all()


@pytest.fixture
def pictures(tmp_path) -> dict[str, Path]:
    (tmp_path / "p").mkdir()
    paths = {item: tmp_path / "p" / f"{item}.png" for item in IDS[:30]}
    for k, path in enumerate(paths.values()):
        Image.new("RGB", (k + 1, 2)).save(path)
    return paths


def test_broken_pictures_are_listed_and_tried_again(tmp_path, pictures) -> None:
    good = pictures["i3"].read_bytes()
    pictures["i3"].write_bytes(good[:30])
    encoder = FakeModel()
    store = extract_images(IDS, pictures, encoder, tmp_path / "s", execution=SMALL).store
    assert list(store.broken) == ["i3"]
    assert "i3.png" in store.broken["i3"]
    assert store.present.sum() == 29
    assert [len(batch) for batch in encoder.seen].count(3) == 1
    pictures["i3"].write_bytes(good)
    encoder = FakeModel()
    store = extract_images(IDS, pictures, encoder, tmp_path / "s", execution=SMALL).store
    assert encoder.seen == [[str(pictures["i3"])]]
    assert (store.broken, store.present.sum()) == ({}, 30)


def test_too_many_broken_pictures_stop_the_run_early(tmp_path, pictures) -> None:
    for path in list(pictures.values())[:8]:
        path.write_bytes(b"")
        path.write_bytes(path.name.encode())  # different ones: equal files count once
    encoder = FakeModel()
    with pytest.raises(ValueError, match=r"5.0%.*[234] of 30: cannot decode .*the rest is kept"):
        extract_images(IDS, pictures, encoder, tmp_path / "s", execution=SMALL)
    call = {"max_broken_share": 0.3, "execution": SMALL}
    store = extract_images(IDS, pictures, encoder, tmp_path / "s", **call).store
    assert len(store.broken) == 8


@pytest.mark.parametrize("n", [2, 3, 20])
def test_shards_of_several_jobs_are_one(tmp_path, n: int) -> None:
    extract(tmp_path / "whole")
    encoders = [FakeModel() for _ in range(n)]
    for i, encoder in enumerate(encoders, start=1):
        execution = Execution(batch_size=4, shard=(i, n))
        extraction = extract(tmp_path / "s", encoder=encoder, execution=execution)
        if i < min(n, 9):  # there are nine shards
            assert extraction.shards_left > 0
            with pytest.raises(ValueError, match=f"{extraction.shards_left} shards are still"):
                _ = extraction.store
    assert extraction.store.present.all()
    assert sum(len(encoder.seen) for encoder in encoders) == 25
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def run(folder: Path, delay: float, *more: str) -> subprocess.Popen:
    script = f"""
    import sys
    sys.path[:0] = {sys.path!r}
    from test_resumable import *
    plan.SHARD_ITEMS, plan.SHARDS = 12, 1
    shard = tuple(map(int, sys.argv[1].split("/"))) if len(sys.argv) > 1 else None
    execution = Execution(batch_size=4, shard=shard)
    extraction = extract(Path({str(folder)!r}), encoder=FakeModel({delay}), execution=execution)
    print(extraction.encoded, extraction.shards_left)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)


def parts_of(folder: Path) -> int:
    return sum(1 for _ in folder.parent.glob(f".{folder.name}.parts-*/*.npz"))


def test_kill_9_at_any_moment(tmp_path) -> None:
    extract(tmp_path / "whole")
    folder = tmp_path / "s"
    for kill in range(4):
        process = run(folder, 0.05)
        wanted = parts_of(folder) + 1 + kill % 2
        while parts_of(folder) < wanted and process.poll() is None:
            time.sleep(0.002)
        time.sleep(0.013 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finishing = run(folder, 0.0)
    encoded = int(finishing.communicate()[0].split()[0])
    assert finishing.returncode == 0
    assert 0 < encoded < 100
    assert contents(folder) == contents(tmp_path / "whole")
    assert names(tmp_path) == {"whole", ".whole.lock", "s", ".s.lock"}


def test_small_catalogues_have_a_share_for_every_job(monkeypatch) -> None:
    monkeypatch.undo()
    inputs, none = list(range(1000)), np.zeros((1000, 32), np.uint8)
    for size, shards in ((8, 125), (16, 63), (32, 32)):
        assert plan.Plan(inputs, none, size).shards == shards
    many = plan.Plan(range(200_000), np.zeros((200_000, 32), np.uint8), 32)
    assert many.shards == -(-200_000 // 1024)
    assert [k for s in range(many.shards) for b in many.batches(s) for k in many.inputs[b]] == list(
        range(200_000)
    )


def test_jobs_at_the_same_time(tmp_path) -> None:
    extract(tmp_path / "whole")
    jobs = [run(tmp_path / "s", 0.02, f"{i}/3") for i in (1, 2, 3)]
    outputs = [job.communicate()[0].split() for job in jobs]
    assert sum(int(encoded) for encoded, _ in outputs) == 100
    assert "0" in [left for _, left in outputs]
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_the_same_job_twice_shares_the_work(tmp_path) -> None:
    extract(tmp_path / "whole")
    jobs = [run(tmp_path / "s", 0.05) for _ in range(2)]
    outputs = [job.communicate()[0].split() for job in jobs]
    assert [left for _, left in outputs] == ["0", "0"]
    assert sum(int(encoded) for encoded, _ in outputs) == 100
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"workers": 0}, "workers must be >= 1"),
        ({"shard": (0, 4)}, "1 <= i <= n, got 0/4"),
        ({"shard": (5, 4)}, "1 <= i <= n, got 5/4"),
        ({"shard": (1, 2), "ray_address": "auto"}, "exclude each other"),
    ],
)
def test_execution_is_checked(settings: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Execution(**settings)


def test_a_digest_that_ends_in_zeros_is_found() -> None:
    digests = np.zeros((3, 32), dtype=np.uint8)
    digests[0, 0], digests[1, :2], digests[2, 31] = 1, (1, 2), 3
    np.testing.assert_array_equal(find_digests(digests, digests[[2, 0, 1]]), [2, 0, 1])
    np.testing.assert_array_equal(find_digests(digests, np.full((1, 32), 9, np.uint8)), [-1])
