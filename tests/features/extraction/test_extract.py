"""Extraction encodes once, reuses what still fits, and says what it leaves out."""

from __future__ import annotations

import logging
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recbole_mars.features import (
    CorruptStoreError,
    FeatureStore,
    extract_images,
    extract_text,
    join_text,
)

IDS = ["a", "b", "c", "d"]
TEXTS = ["one", " \n", "three", ""]


class Lengths:
    """Encodes a text by its length and a picture by its width; counts what it is given."""

    name = "lengths"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.seen: list = []

    def settings(self) -> dict:
        return {"scale": self.scale}

    def encode(self, inputs, progress: bool = False) -> np.ndarray:
        self.seen.append(list(inputs))
        sizes = [len(x) if isinstance(x, str) else Image.open(x).width for x in inputs]
        return np.array([[size, -size] for size in sizes], dtype=np.float32) * self.scale


@pytest.fixture
def images(tmp_path) -> dict[str, Path]:
    (tmp_path / "pictures").mkdir()
    paths = {item: tmp_path / "pictures" / f"{item}.png" for item in "abd"}
    for width, path in enumerate(paths.values(), start=3):
        Image.new("RGB", (width, 2)).save(path)
    return paths


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="recbole_mars.features")
    return caplog


def test_text(tmp_path) -> None:
    encoder = Lengths()
    store = extract_text(IDS, TEXTS, encoder, tmp_path / "text").store
    assert encoder.seen == [["one", "three"]]
    np.testing.assert_array_equal(store.matrix, [[3, -3], [0, 0], [5, -5], [0, 0]])
    np.testing.assert_array_equal(store.present, [True, False, True, False])
    assert store.ids == tuple(IDS)
    assert store.matrix.dtype == np.float16
    assert store.manifest["settings"] == {"scale": 1.0}


def test_text_is_reused(tmp_path, log) -> None:
    extract_text(IDS, TEXTS, Lengths(), tmp_path / "text")
    assert "there were none" in log.text
    log.clear()
    encoder = Lengths()
    store = extract_text(np.array(IDS), list(TEXTS), encoder, tmp_path / "text").store
    assert encoder.seen == []
    assert "reused features 'lengths'" in log.text
    np.testing.assert_array_equal(store.matrix[2], [5, -5])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"texts": ["one", " \n", "three!", ""]}, "what they are described by changed"),
        ({"texts": ["one", "two", "three", ""]}, "what they are described by changed"),
        ({"ids": ["a", "b", "d", "c"]}, "what they are described by changed"),
        ({"encoder": Lengths(2.0)}, r"settings was {'scale': 1.0}, is {'scale': 2.0}"),
        ({"dtype": "float32"}, "dtype was 'float16', is 'float32'"),
    ],
)
def test_changes_rebuild(tmp_path, log, changes: dict, reason: str) -> None:
    extract_text(IDS, TEXTS, Lengths(), tmp_path / "text")
    call = {"ids": IDS, "texts": TEXTS, "encoder": Lengths(), "folder": tmp_path / "text"}
    call.update(changes)
    log.clear()
    store = extract_text(**call).store
    assert reason in log.text
    assert len(call["encoder"].seen) == 1
    assert store.ids == tuple(call["ids"])


def test_another_encoder_rebuilds(tmp_path, log) -> None:
    extract_text(IDS, TEXTS, Lengths(), tmp_path / "text")
    other = Lengths()
    other.name = "others"
    assert extract_text(IDS, TEXTS, other, tmp_path / "text").store.name == "others"
    assert "encoder was 'lengths', is 'others'" in log.text


def test_moving_text_between_items_is_a_change(tmp_path) -> None:
    extract_text(["a", "b"], ["x y", "z"], Lengths(), tmp_path / "text")
    encoder = Lengths()
    extract_text(["a", "b"], ["x", "y z"], encoder, tmp_path / "text")
    extract_text(["a", "bx"], ["x", "y z"], encoder, tmp_path / "text")
    extract_text(["a", "b"], ["x", "xy z"], encoder, tmp_path / "text")
    assert len(encoder.seen) == 3


def test_a_corrupt_store_is_rebuilt(tmp_path, log) -> None:
    extract_text(IDS, TEXTS, Lengths(), tmp_path / "text")
    (tmp_path / "text" / "features.npy").write_bytes(b"x")
    log.clear()
    encoder = Lengths()
    store = extract_text(IDS, TEXTS, encoder, tmp_path / "text").store
    assert len(encoder.seen) == 1
    assert "is corrupt: features.npy was changed" in log.text
    np.testing.assert_array_equal(store.present, [True, False, True, False])


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked here"
)
def test_processes_at_once_encode_once(tmp_path) -> None:
    class Slow(Lengths):
        def encode(self, inputs, progress: bool = False) -> np.ndarray:
            with open(tmp_path / "calls.txt", "a") as file:
                file.write("x")
            time.sleep(0.1)
            return super().encode(inputs)

    context = multiprocessing.get_context("fork")
    call = (IDS, TEXTS, Slow(), tmp_path / "text")
    processes = [context.Process(target=extract_text, args=call) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "calls.txt").read_text() == "x"


def test_text_errors(tmp_path) -> None:
    with pytest.raises(ValueError, match="one of 4 items must have a text, all are blank"):
        extract_text(IDS, [""] * 4, Lengths(), tmp_path / "text")
    with pytest.raises(ValueError, match="one per id, got 3 for 4"):
        extract_text(IDS, TEXTS[:3], Lengths(), tmp_path / "text")
    with pytest.raises(ValueError, match="text of item 'c' must be a string, got nan; use ''"):
        extract_text(IDS, ["x", "", float("nan"), ""], Lengths(), tmp_path / "text")
    with pytest.raises(ValueError, match="found again: 'a'"):
        extract_text(["a", "a"], ["x", "y"], Lengths(), tmp_path / "text")
    assert not (tmp_path / "text").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"folder": "pictures"}, "holds other files"),
        ({"dtype": "float64"}, "dtype must be"),
    ],
)
def test_errors_come_before_encoding(tmp_path, images, change: dict, complaint: str) -> None:
    encoder = Lengths()
    folder = tmp_path / change.pop("folder", "text")
    with pytest.raises(ValueError, match=complaint):
        extract_text(IDS, TEXTS, encoder, folder, **change)
    assert encoder.seen == []


@pytest.mark.parametrize("shape", [(1, 2), (3, 2), (2,), (2, 0)])
def test_encoders_that_return_something_else(tmp_path, shape: tuple[int, ...]) -> None:
    encoder = Lengths()
    encoder.encode = lambda inputs, progress=False: np.ones(shape)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"'lengths' must return shape \(2, D\)"):
        extract_text(IDS, TEXTS, encoder, tmp_path / "text")
    assert not (tmp_path / "text").exists()


def test_encoders_that_return_nan(tmp_path) -> None:
    encoder = Lengths()
    encoder.encode = lambda inputs, progress=False: np.full((2, 3), np.nan)  # type: ignore
    with pytest.raises(ValueError, match=r"must be finite.*for items 'a', 'c'"):
        extract_text(IDS, TEXTS, encoder, tmp_path / "text")


def test_items_the_encoder_can_say_nothing_of(tmp_path, log) -> None:
    encoder = Lengths()
    encoder.encode = lambda inputs, progress=False: np.array([[0, 0], [1, 2]])  # type: ignore
    store = extract_text(IDS, TEXTS, encoder, tmp_path / "text").store
    np.testing.assert_array_equal(store.present, [False, False, True, False])
    assert "can say nothing of 1 items, they count as missing: 'a'" in log.text


def test_images(tmp_path, images) -> None:
    store = extract_images(IDS, images, Lengths(), tmp_path / "image").store
    np.testing.assert_array_equal(store.matrix[:, 0], [3, 4, 0, 5])
    np.testing.assert_array_equal(store.present, [True, True, False, True])
    assert not (store.folder / "broken.txt").exists()


def test_images_are_reused_and_their_bytes_count(tmp_path, images, log) -> None:
    extract_images(IDS, images, Lengths(), tmp_path / "image")
    encoder = Lengths()
    extract_images(IDS, images, encoder, tmp_path / "image")
    assert encoder.seen == []
    Image.new("RGB", (9, 2)).save(images["b"])
    store = extract_images(IDS, images, encoder, tmp_path / "image").store
    np.testing.assert_array_equal(store.matrix[:, 0], [3, 9, 0, 5])
    del images["a"]
    store = extract_images(IDS, images, encoder, tmp_path / "image").store
    np.testing.assert_array_equal(store.present, [False, True, False, True])


def test_broken_pictures_count_as_missing(tmp_path, images, log) -> None:
    images["b"].write_bytes(images["b"].read_bytes()[:40])
    encoder = Lengths()
    store = extract_images(IDS, images, encoder, tmp_path / "image", max_broken_share=0.34).store
    assert encoder.seen == [[images["a"], images["d"]]]
    np.testing.assert_array_equal(store.matrix[:, 0], [3, 0, 0, 5])
    np.testing.assert_array_equal(store.present, [True, False, False, True])
    lines = (store.folder / "broken.txt").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("b\tcannot decode")
    assert "1 of 3 pictures are broken and count as missing: 'b'; see" in log.text
    extract_images(IDS, images, encoder, tmp_path / "image", max_broken_share=0.34)
    assert len(encoder.seen) == 1
    with pytest.raises(ValueError, match=r"at most 5\.0% .* found 1 of 3, named in .*broken\.txt"):
        extract_images(IDS, images, encoder, tmp_path / "image")


def test_too_many_broken_pictures(tmp_path, images) -> None:
    images["b"].unlink()
    with pytest.raises(ValueError, match=r"at most 5\.0% .* found 1 of 3: cannot decode .*b\.png"):
        extract_images(IDS, images, Lengths(), tmp_path / "image")
    for path in images.values():
        path.write_bytes(b"no")
    with pytest.raises(ValueError, match="never all, found 3 of 3"):
        extract_images(IDS, images, Lengths(), tmp_path / "image", max_broken_share=1.0)
    assert not (tmp_path / "image").exists()


def test_image_errors(tmp_path, images) -> None:
    with pytest.raises(ValueError, match="one of 4 items must have a picture, none has"):
        extract_images(IDS, {}, Lengths(), tmp_path / "image")
    with pytest.raises(ValueError, match="items among ids, found 'd'"):
        extract_images(IDS[:3], images, Lengths(), tmp_path / "image")
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"max_broken_share must lie in 0\.\.1"):
            extract_images(IDS, images, Lengths(), tmp_path / "image", max_broken_share=share)


def test_a_failed_rebuild_keeps_the_old_store(tmp_path) -> None:
    extract_text(IDS, TEXTS, Lengths(), tmp_path / "text")
    with pytest.raises(ValueError, match="too large or too small for float16"):
        extract_text(IDS, TEXTS, Lengths(1e9), tmp_path / "text")
    assert FeatureStore.open(tmp_path / "text").manifest["settings"] == {"scale": 1.0}


def test_corruption_is_a_value_error() -> None:
    assert issubclass(CorruptStoreError, ValueError)


def test_joining_text() -> None:
    columns = [
        ["Toy Story", " ", None, "Why?"],
        ["Comedy", "", float("nan"), "Drama "],
        ["A doll is jealous.", "", "", "So!"],
    ]
    assert join_text(columns) == [
        "Toy Story. Comedy. A doll is jealous.",
        "",
        "",
        "Why? Drama. So!",
    ]
    assert join_text([["a"]]) == ["a."]
    assert join_text([[], []]) == []


def test_joining_errors() -> None:
    with pytest.raises(ValueError, match=r"one length, got \[1, 2\]"):
        join_text([["a"], ["b", "c"]])
    with pytest.raises(ValueError, match=r"one length, got \[\]"):
        join_text([])
    with pytest.raises(ValueError, match="got 1995 in row 1; convert"):
        join_text([["a", 1995]])
