"""Finding, decoding and describing pictures."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recbole_mars.features import PixelEncoder, find_images, load_image
from recbole_mars.features import image as image_module
from recbole_mars.features.image import _colour_histogram, _gradient_histogram, _standardise

ORIENTATION = 0x0112


def noise(seed: int, size: tuple[int, int] = (40, 24)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{k}.png" for k in range(6)]
    for seed, path in enumerate(paths):
        noise(seed).save(path)
    return paths


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


def test_cmyk(tmp_path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = load_image(tmp_path / "a.jpg").getpixel((8, 8))
    assert red > 240
    assert max(green, blue) < 15


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
    with pytest.raises(ValueError, match=r"'1' must have one picture, found 1\.jpg and 1\.png"):
        find_images(["1"], tmp_path)


def test_colour_histogram_by_hand() -> None:
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    image.paste((0, 0, 0), (0, 0, 8, 2))
    expected = np.zeros(128)
    expected[15] = np.sqrt(0.75)  # hue 0, highest saturation and value
    expected[0] = np.sqrt(0.25)
    np.testing.assert_allclose(_colour_histogram(image), expected, rtol=1e-6)


@pytest.mark.parametrize(("axis", "orientation"), [(1, 0), (0, 4)])
def test_gradient_histogram_by_hand(axis: int, orientation: int) -> None:
    ramp = np.arange(8, dtype=np.uint8) * 10
    grey = np.broadcast_to(ramp if axis else ramp[:, None], (8, 8)).copy()
    histogram = _gradient_histogram(Image.fromarray(grey).convert("RGB")).reshape(16, 9)
    expected = np.zeros((16, 9))
    expected[:, orientation] = np.sqrt(4 * 10 / 255)  # a cell has 4 pixels
    np.testing.assert_allclose(histogram, expected, rtol=1e-5)


def test_standardised_parts_weigh_the_same() -> None:
    random = np.random.default_rng(0)
    columns = random.normal(3.0, 50.0, (20, 7)).astype(np.float32)
    scaled = _standardise(columns)
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(scaled.var(axis=0).sum(), 1.0, rtol=1e-5)
    columns[:, 3] = 5.0
    assert not _standardise(columns)[:, 3].any()


def test_encoder_against_a_full_decomposition(pictures) -> None:
    encoder = PixelEncoder(3)
    parts = [np.stack(part) for part in zip(*map(encoder._describe, pictures))]
    columns = np.concatenate([_standardise(part) for part in parts], axis=1)
    left, values, _ = np.linalg.svd(columns.astype(np.float64), full_matrices=False)
    expected = left[:, :3] * values[:3]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = encoder.encode(pictures)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=1e-4)
    np.testing.assert_array_equal(vectors, encoder.encode(pictures))


def test_few_pictures_get_fewer_dimensions(pictures, caplog) -> None:
    with caplog.at_level(logging.INFO):
        vectors = PixelEncoder(64).encode(pictures)
    assert vectors.shape == (6, 5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert "6 pictures admit 5 dimensions, not 64" in caplog.text


def test_a_scaled_copy_is_nearest(pictures, tmp_path) -> None:
    noise(2).resize((120, 72), Image.Resampling.BICUBIC).save(tmp_path / "copy.webp", quality=90)
    vectors = PixelEncoder().encode([*pictures, tmp_path / "copy.webp"])
    assert np.argmax(vectors[:6] @ vectors[6]) == 2


def test_pictures_must_differ(pictures) -> None:
    for same in ([], pictures[:1], [pictures[0]] * 3):
        with pytest.raises(ValueError, match=f"two different pictures, got {len(same)} that"):
            PixelEncoder().encode(same)


def test_a_broken_picture_is_named(pictures) -> None:
    pictures[3].write_bytes(b"no")
    with pytest.raises(ValueError, match=r"cannot decode .*3\.png"):
        PixelEncoder().encode(pictures)


def test_settings() -> None:
    settings = PixelEncoder(7, size=16, seed=3).settings()
    assert settings == {"version": 1, "dimensions": 7, "size": 16, "seed": 3}
    assert json.loads(json.dumps(settings)) == settings
    with pytest.raises(ValueError, match="dimensions must be >= 1, got 0"):
        PixelEncoder(0)
    for size in (0, 7, 33):
        with pytest.raises(ValueError, match=f"size must be a multiple of 8, got {size}"):
            PixelEncoder(size=size)
