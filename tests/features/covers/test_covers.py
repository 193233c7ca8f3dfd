"""Drawn covers: the same for the same item, alike for alike items, never half-written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recbole_mars.features import PixelEncoder, draw_cover, draw_covers, find_images
from recbole_mars.features.covers import drawing
from recbole_mars.features.covers.motifs import MOTIFS

ITEMS = [
    ("1", "Toy Story", 1995, ["Animation", "Comedy"]),
    ("a b", "Psycho", 1960, ["Horror"]),
    ("ü", "A very long title that will not fit however small the letters are " * 3, None, []),
]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64)


def test_the_same_item_has_the_same_cover() -> None:
    first = draw_cover("Alien", 1979, ["Horror", "Sci-Fi"])
    assert (first.size, first.mode) == ((96, 144), "RGB")
    np.testing.assert_array_equal(pixels(first), draw_cover("Alien", 1979, ["Horror", "Sci-Fi"]))


@pytest.mark.parametrize(
    "other",
    [
        ("Aliens", 1979, ["Horror", "Sci-Fi"]),
        ("Alien", 1950, ["Horror", "Sci-Fi"]),
        ("Alien", 1979, ["Horror", "Comedy"]),
        ("Alien", 1979, ["Comedy", "Sci-Fi"]),
        ("Alien", None, ["Horror", "Sci-Fi"]),
    ],
)
def test_everything_shows(other: tuple) -> None:
    cover = pixels(draw_cover("Alien", 1979, ["Horror", "Sci-Fi"]))
    assert np.abs(cover - pixels(draw_cover(*other))).max() > 30


def test_shapes_follow_the_title_in_every_process() -> None:
    shapes = [pixels(draw_cover(title, None, ["Crime"]))[:90] for title in ("M", "Z")]
    assert np.abs(shapes[0] - shapes[1]).max() > 30
    assert drawing._seed("") == 0xE3B0C44298FC1C14  # the start of SHA-256 of nothing


def test_genres_decide_regardless_of_case_and_every_motif_is_used() -> None:
    np.testing.assert_array_equal(
        draw_cover("M", 1931, ["CRIME"]), draw_cover("M", 1931, ["crime"])
    )
    assert {motif for *_, motif in drawing.GENRES.values()} == set(MOTIFS)


def test_old_covers_have_less_colour() -> None:
    def colour(year: int | None) -> float:
        return np.ptp(pixels(draw_cover("Alien", year, ["Horror"])), axis=2).mean()

    assert colour(1930) < 0.5 * colour(1990)
    assert colour(1920) == pytest.approx(colour(1930), rel=0.02)
    assert colour(1930) < colour(1960) < colour(1985) < colour(1990)
    assert colour(1990) == pytest.approx(colour(2024), rel=0.02)


@pytest.mark.parametrize("size", [(32, 32), (33, 200), (300, 100)])
@pytest.mark.parametrize("title", ["", "A", "Supercalifragilisticexpialidocious", "x " * 300])
def test_any_size_and_title(size: tuple[int, int], title: str) -> None:
    assert draw_cover(title, 2000, ["toys"], size).size == size


def test_too_small() -> None:
    with pytest.raises(ValueError, match=r"at least 32 x 32 pixels, got \(96, 31\)"):
        draw_cover("x", None, [], (96, 31))


def test_covers_of_a_genre_are_alike(tmp_path) -> None:
    genres = ["Comedy", "Horror", "Western", "toys", "Crime"]
    items = [
        (f"{genre}{k}", f"Title {genre} {k}", 1990 + k, [genre])
        for genre in genres
        for k in range(5)
    ]
    folder = draw_covers(items, tmp_path / "covers")
    found = find_images([item for item, *_ in items], folder)
    vectors = PixelEncoder(16).encode(list(found.values()))
    cosines = vectors @ vectors.T
    group = np.repeat(np.arange(5), 5)
    same = (group[:, None] == group) & ~np.eye(25, dtype=bool)
    assert cosines[same].mean() > cosines[group[:, None] != group].mean() + 0.5
    np.fill_diagonal(cosines, -1)
    assert (group[cosines.argmax(axis=1)] == group).mean() > 0.9


def test_every_item_gets_a_file(tmp_path) -> None:
    folder = draw_covers(iter(ITEMS), tmp_path / "covers")
    assert folder == tmp_path / "covers"
    assert {path.name for path in folder.iterdir()} == {"1.png", "a b.png", "ü.png"}
    np.testing.assert_array_equal(Image.open(folder / "1.png"), draw_cover(*ITEMS[0][1:]))


def test_the_working_folder(tmp_path, monkeypatch) -> None:
    (tmp_path / "covers").mkdir()
    monkeypatch.chdir(tmp_path / "covers")
    draw_covers(ITEMS[:1], ".")
    assert {path.name for path in tmp_path.iterdir()} == {"covers", ".covers.lock"}


def test_only_changes_are_drawn_again(tmp_path, monkeypatch) -> None:
    drawn = []

    def counting(title, year, genres):
        drawn.append(title)
        return draw_cover(title, year, genres)

    monkeypatch.setattr(drawing, "draw_cover", counting)
    draw_covers(ITEMS, tmp_path)
    assert len(drawn) == 3
    drawn.clear()
    draw_covers(ITEMS, tmp_path)
    assert drawn == []
    (tmp_path / "ü.png").unlink()
    draw_covers([("1", "Toy Story", 1996, ["Animation", "Comedy"]), *ITEMS[1:]], tmp_path)
    assert drawn == ["Toy Story", ITEMS[2][1]]
    drawn.clear()
    monkeypatch.setattr(drawing, "VERSION", drawing.VERSION + 1)
    draw_covers(ITEMS, tmp_path)
    assert len(drawn) == 3


def test_a_kill_leaves_no_broken_file(tmp_path, monkeypatch) -> None:
    def killed(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    draw_covers(ITEMS[:1], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            draw_covers(ITEMS, tmp_path)
    assert not (tmp_path / "a b.png").exists()
    draw_covers(ITEMS, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"1.png", "a b.png", "ü.png"}


def test_real_pictures_are_not_drawn_over(tmp_path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    before = (tmp_path / "1.png").read_bytes()
    with pytest.raises(ValueError, match=r"1\.png is not a cover that was drawn here"):
        draw_covers(ITEMS, tmp_path)
    assert (tmp_path / "1.png").read_bytes() == before
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="is not a cover"):
        draw_covers(ITEMS, tmp_path)


@pytest.mark.parametrize("item", ["../x", "a/b", "a\\b", "", "/", "\0"])
def test_ids_that_cannot_name_a_file(tmp_path, item: str) -> None:
    with pytest.raises(ValueError, match="usable as a file name"):
        draw_covers([(item, "x", None, [])], tmp_path / "covers")
    assert not (tmp_path / "covers").exists()


def test_repeated_ids(tmp_path) -> None:
    with pytest.raises(ValueError, match="items must name an item once, found again: '1'"):
        draw_covers([ITEMS[0], ITEMS[0]], tmp_path / "covers")
