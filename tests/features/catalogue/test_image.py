"""Finding and decoding pictures."""

from __future__ import annotations

import errno
import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from recbole_mars.features import find_images, load_image
from recbole_mars.features.catalogue import image as image_module

ORIENTATION = 0x0112


def noise(seed: int, size: tuple[int, int] = (40, 24)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def test_rgb_comes_as_it_is(tmp_path) -> None:
    noise(0).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(noise(0)))


def test_orientation_is_applied(tmp_path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be shown turned clockwise by a quarter
    noise(0).save(tmp_path / "a.png", exif=exif)
    expected = np.rot90(np.asarray(noise(0)), -1)
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.png")), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_see_through_is_over_white(tmp_path, mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    image.putpixel((0, 0), (0, 0, 0, 255) if mode == "RGBA" else (0, 255))
    image.putpixel((1, 0), (0, 0, 0, 51) if mode == "RGBA" else (0, 51))
    image.save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (204,) * 3, (255,) * 3]


def test_palette_with_a_see_through_colour(tmp_path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 0, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=1)
    loaded = load_image(tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in range(2)] == [(200, 10, 20), (255, 255, 255)]


@pytest.mark.parametrize("marked", [True, False])
def test_cmyk(tmp_path, marked: bool) -> None:
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=95)
    content = path.read_bytes()
    start = content.index(b"Adobe") - 4  # the segment by which inks are known to be inverted
    if not marked:  # inverted all the same, as programs write them
        path.write_bytes(content[:start] + content[start + 16 :])
    red, green, blue = load_image(path).getpixel((8, 8))
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_are_their_first_frame(tmp_path, suffix: str) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=[second], lossless=True)
    assert load_image(path).getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_one_colour_that_is_see_through(tmp_path, mode: str) -> None:
    colour = (1, 2, 3) if mode == "RGB" else 1
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), (0, 0, 0) if mode == "RGB" else 0)
    image.save(tmp_path / "a.png", transparency=colour)
    loaded = load_image(tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (0, 0, 0)]


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation(tmp_path, turn: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    noise(0).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        expected = ImageOps.exif_transpose(stored)
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.png")), np.asarray(expected))


@pytest.mark.parametrize(
    ("exif", "size"),
    [
        (b"Exif\0\0no such thing", (40, 24)),
        # tells of 5 entries, and ends in the first, the orientation
        (b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\0\0\0\x01\0\x06", (40, 24)),
        # turned, and the camera's data lie outside the file
        (
            b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
            b"\x87\x69\0\x04\0\0\0\x01\xff\xff\xff\xff\0\0\0\0",
            (24, 40),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_does_not_lose_the_picture(tmp_path, exif: bytes, size) -> None:
    noise(0).save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").size == size


def test_sixteen_bits_with_alpha(tmp_path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 2, 1, 16, 4, 0, 0, 0)  # grey and alpha, 16 bits each
    row = b"\0" + struct.pack(">HHHH", 100 * 257, 65535, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    loaded = load_image(tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in range(2)] == [(100,) * 3, (255,) * 3]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path) -> None:
    grey = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (100,) * 3, (255,) * 3]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9])
def test_truncated_files_are_errors(tmp_path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    noise(0).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=rf"cannot decode .*a\.{suffix} as a picture.*replace"):
        load_image(path)


def test_damaged_bytes_never_raise_anything_else(tmp_path) -> None:
    random = np.random.default_rng(0)
    for suffix in ("jpg", "png", "webp"):
        path = tmp_path / f"a.{suffix}"
        noise(0).save(path)
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        for _ in range(60):
            damaged = content.copy()
            damaged[random.integers(0, len(damaged), 4)] = random.integers(0, 256, 4)
            path.write_bytes(damaged.tobytes())
            try:
                assert load_image(path).mode == "RGB"
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017


def test_no_pictures(tmp_path) -> None:
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    for path in (tmp_path / "a.jpg", tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(ValueError, match="cannot decode"):
            load_image(path)


def test_too_large(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(image_module, "MAX_PIXELS", 40 * 24 - 1)
    noise(0).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="40 x 24 pixels are more than 959"):
        load_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb(tmp_path) -> None:
    Image.new("1", (9460, 9460)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="9460 x 9460 pixels are more than 89478485"):
        load_image(tmp_path / "a.png")


def test_finding_by_name(tmp_path, caplog) -> None:
    for name in ("1.jpg", "01.JPEG", "a b.Png", "ü.webp", "2.gif", "other.jpg", "3.txt", "4"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.INFO):
        found = find_images(["ü", "1", "2", "01", "a b", "3", "4", "none"], tmp_path)
    assert {item: path.name for item, path in found.items()} == {
        "ü": "ü.webp",
        "1": "1.jpg",
        "01": "01.JPEG",
        "a b": "a b.Png",
    }
    assert list(found) == ["ü", "1", "01", "a b"]
    assert "4 of 8 items have a picture" in caplog.text


def test_finding_by_list(tmp_path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "x.jpg").touch()
    listing = tmp_path / "list.csv"
    listing.write_text("row,item_id,image_file\n0,1,../pictures/x.jpg\n1,2,\n2,9,no.jpg\n")
    found = find_images(["1", "2", "3"], tmp_path / "set", listing)
    assert {item: path.resolve() for item, path in found.items()} == {
        "1": (tmp_path / "pictures" / "x.jpg").resolve()
    }
    with pytest.raises(
        ValueError, match=r"do not exist under .*for items '9', the first .*no\.jpg"
    ):
        find_images(["1", "9"], tmp_path / "set", listing)


def test_finding_errors(tmp_path) -> None:
    listing = tmp_path / "list.csv"
    with pytest.raises(ValueError, match="image_dir must be a folder"):
        find_images(["1"], tmp_path / "no")
    with pytest.raises(ValueError, match="ids must name an item once, found again: '1'"):
        find_images(["1", "1"], tmp_path)
    with pytest.raises(ValueError, match=r"cannot read .*list\.csv"):
        find_images(["1"], tmp_path, listing)
    listing.write_text("item_id,picture\n1,x.jpg\n")
    with pytest.raises(ValueError, match=r"must have the columns \['image_file'\]"):
        find_images(["1"], tmp_path, listing)
    listing.write_text("item_id,image_file\n1,\n1,\n")
    with pytest.raises(ValueError, match=r"list\.csv must name an item once, found again: '1'"):
        find_images(["1"], tmp_path, listing)
    (tmp_path / "1.jpg").touch()
    (tmp_path / "1.png").touch()
    with pytest.raises(ValueError, match=r"found two of '1' in .*1\.jpg and 1\.png of the first"):
        find_images(["1"], tmp_path)


def test_only_files_are_pictures(tmp_path) -> None:
    (tmp_path / "1.jpg").mkdir()
    os.mkfifo(tmp_path / "2.jpg")  # reading it would wait for ever
    (tmp_path / "3.jpg").symlink_to(tmp_path / "gone.jpg")
    noise(0).save(tmp_path / "real.png")
    (tmp_path / "4.png").symlink_to(tmp_path / "real.png")
    found = find_images(["1", "2", "3", "4"], tmp_path)
    assert set(found) == {"3", "4"}
    with pytest.raises(ValueError, match=r"cannot decode .*3\.jpg"):
        load_image(found["3"])


def test_letters_that_a_system_took_apart(tmp_path) -> None:
    noise(0).save(tmp_path / "cafe\u0301.png")
    assert find_images(["caf\u00e9"], tmp_path) == {"caf\u00e9": tmp_path / "cafe\u0301.png"}


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "too many open files"), MemoryError()])
def test_what_passes_is_no_broken_picture(tmp_path, monkeypatch, error) -> None:
    def fail(path) -> None:
        raise error

    noise(0).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(type(error)):
        load_image(tmp_path / "a.png")


def test_many_files_in_their_order(monkeypatch) -> None:
    monkeypatch.setattr(image_module, "AT_ONCE", 3)
    paths = [Path(str(k)) for k in range(10)]
    assert image_module.map_images(lambda p: int(p.name), paths, False, "") == list(range(10))
