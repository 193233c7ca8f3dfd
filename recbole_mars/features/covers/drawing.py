"""Covers drawn from an item's title, year and genres, where real pictures cannot be had."""

from __future__ import annotations

import colorsys
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from recbole_mars.features.catalogue.ids import check_ids
from recbole_mars.features.covers.motifs import MOTIFS, Palette
from recbole_mars.features.stores.locking import writing_lock

__all__ = ["draw_cover", "draw_covers"]

VERSION = 1  # raised when the drawing changes; covers are then drawn anew
MARKER = "recbole_mars.cover"
SCALE = 3  # shapes are drawn larger and scaled down, for smooth edges

# Hue, saturation and motif by genre, in lower case; other genres get theirs from a hash.
GENRES = {
    "action": (0.04, 0.85, "burst"),
    "adventure": (0.09, 0.75, "sun"),
    "animation": (0.53, 0.70, "bubbles"),
    "children's": (0.14, 0.75, "bubbles"),
    "comedy": (0.12, 0.80, "bubbles"),
    "crime": (0.64, 0.45, "skyline"),
    "documentary": (0.45, 0.35, "rings"),
    "drama": (0.58, 0.50, "waves"),
    "fantasy": (0.78, 0.60, "stars"),
    "film-noir": (0.60, 0.12, "blinds"),
    "horror": (0.99, 0.90, "shards"),
    "musical": (0.87, 0.65, "rings"),
    "mystery": (0.73, 0.45, "blinds"),
    "romance": (0.94, 0.55, "waves"),
    "sci-fi": (0.67, 0.75, "stars"),
    "thriller": (0.49, 0.60, "skyline"),
    "war": (0.20, 0.45, "burst"),
    "western": (0.07, 0.65, "sun"),
}


def draw_cover(
    title: str, year: int | None, genres: Sequence[str], size: tuple[int, int] = (96, 144)
) -> Image.Image:
    """Draw a cover; the same arguments give the same picture.

    genres: the first gives motif and colours, the second the colour that the background runs into;
    empty for an item without any. year: old covers fade to sepia; None for unknown, not faded. The
    title sets where the shapes lie and is written below them. size: width and height in pixels, at
    least 32 each.
    """
    if min(size) < 32:
        raise ValueError(f"size must be at least 32 x 32 pixels, got {size}")
    width, height = size[0] * SCALE, size[1] * SCALE
    random = Random(_seed(title))
    first = _style(genres[0] if genres else "")
    second = _style(genres[1]) if len(genres) > 1 else first
    colours = Palette(
        dark=_rgb(first[0], first[1], 0.22),
        main=_rgb(first[0], first[1], 0.62),
        light=_rgb(first[0] + 0.03, first[1] * 0.3, 0.97),
        accent=_rgb(second[0] + 0.06, second[1], 0.8),
    )
    bottom = _rgb(second[0], second[1], 0.38)
    ramp = Image.linear_gradient("L").resize((width, height))
    image = Image.composite(
        Image.new("RGB", (width, height), bottom),
        Image.new("RGB", (width, height), colours.main),
        ramp,
    )
    MOTIFS[first[2]](ImageDraw.Draw(image, "RGBA"), width, height, colours, random)
    faded = ImageOps.colorize(image.convert("L"), "#1d120a", "#f6e7c8")
    image = Image.blend(image, faded, _fading(year))
    _write_title(image, title, year)
    return image.resize(size, Image.Resampling.LANCZOS)


def draw_covers(
    items: Iterable[tuple[str, str, int | None, Sequence[str]]],
    folder: str | Path,
    progress: bool = False,
) -> Path:
    """Draw `<id>.png` into a folder for every item, (id, title, year, genres); returns the folder.

    Each file is written as a whole and notes inside what it was drawn from, so that a second call
    draws only what is missing or changed, and a kill leaves no broken file.

    Raises ValueError if an id stands twice or cannot name a file, or if a file in the way was not
    drawn by us.
    """
    items = list(items)
    ids = [item for item, *_ in items]
    check_ids(ids, "items")
    for item in ids:
        if Path(f"{item}.png").stem != item or "\\" in item or "\0" in item:
            raise ValueError(f"an id must be usable as a file name, got {item!r}")
    folder = Path(folder)
    with writing_lock(folder):
        folder.mkdir(exist_ok=True)
        for item, title, year, genres in tqdm(items, "drawing covers", disable=not progress):
            source = json.dumps([VERSION, title, year, list(genres)])
            note = hashlib.sha256(source.encode()).hexdigest()
            path = folder / f"{item}.png"
            if path.exists() and _read_note(path) == note:
                continue
            info = PngInfo()
            info.add_text(MARKER, note)
            unfinished = folder / ".unfinished"
            draw_cover(title, year, genres).save(unfinished, "PNG", pnginfo=info)
            os.replace(unfinished, path)
    return folder


def _read_note(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return image.info[MARKER]
    except (OSError, SyntaxError, KeyError) as error:
        raise ValueError(
            f"{path} is not a cover that was drawn here, so it is not drawn over; "
            f"name another folder or remove the file"
        ) from error


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _style(genre: str) -> tuple[float, float, str]:
    """Hue, saturation and motif of a genre."""
    known = GENRES.get(genre.lower())
    if known:
        return known
    random = Random(_seed(genre.lower()))
    return random.random(), random.uniform(0.4, 0.8), random.choice(sorted(MOTIFS))


def _fading(year: int | None) -> float:
    """How much of the colour has gone to sepia: 0.75 up to 1930, none from 1990."""
    if year is None:
        return 0.0
    return 0.75 * min(max((1990 - year) / 60, 0.0), 1.0)


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def _write_title(image: Image.Image, title: str, year: int | None) -> None:
    """Write the title, as large as it fits, and the year on a darkened foot of the cover."""
    width, height = image.size
    foot = int(height * 0.36)
    shade = Image.linear_gradient("L").resize((width, foot)).point(lambda x: min(235, 2 * x))
    image.paste(Image.new("RGB", (width, foot), (12, 12, 18)), (0, height - foot), shade)
    draw = ImageDraw.Draw(image)
    room = width * 0.9
    for points in (0.125, 0.105, 0.09, 0.078):
        font = ImageFont.load_default(width * points)
        lines = _wrap(draw, title, font, room)
        spacing = width * points * 1.12
        most = int(foot * 0.72 / spacing)
        if len(lines) <= most and all(draw.textlength(line, font) <= room for line in lines):
            break
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]}…"]
    y = height - foot * 0.25 - len(lines) * spacing
    for line in lines:
        draw.text((width / 2, y), line, fill=(255, 252, 240), font=font, anchor="ma")
        y += spacing
    if year is not None:
        small = ImageFont.load_default(width * 0.075)
        place = (width / 2, height - foot * 0.22)
        draw.text(place, str(year), fill=(200, 196, 185), font=small, anchor="ma")


def _wrap(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    room: float,
) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and draw.textlength(f"{lines[-1]} {word}", font) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
