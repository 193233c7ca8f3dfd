"""The shapes that drawn covers are made of, one function a motif."""

from __future__ import annotations

import math
from random import Random
from typing import Callable, NamedTuple

from PIL import ImageDraw

__all__ = ["MOTIFS", "Palette"]

Colour = tuple[int, ...]  # red, green, blue and perhaps opacity, 0 to 255


class Palette(NamedTuple):
    """The colours of a cover, from its genres."""

    dark: Colour
    main: Colour
    light: Colour
    accent: Colour


Draw = ImageDraw.ImageDraw


def _fade(colour: Colour, alpha: int) -> Colour:
    return (*colour, alpha)


def _disc(draw: Draw, x: float, y: float, radius: float, fill: Colour) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _sun(draw: Draw, width: int, height: int, colours: Palette, random: Random) -> None:
    """A low sun behind two lines of hills."""
    x, radius = width * random.uniform(0.3, 0.7), width * random.uniform(0.2, 0.3)
    y = height * random.uniform(0.28, 0.4)
    _disc(draw, x, y, radius * 1.5, _fade(colours.light, 50))
    _disc(draw, x, y, radius, colours.light)
    for base, colour in ((0.5, colours.accent), (0.6, colours.dark)):
        peaks = [(0.0, height * base)]
        for step in range(1, 6):
            rise = random.uniform(-0.09, 0.06)
            peaks.append((width * step / 5, height * (base + rise)))
        draw.polygon([*peaks, (width, height), (0, height)], fill=colour)


def _stars(draw: Draw, width: int, height: int, colours: Palette, random: Random) -> None:
    """A planet with a ring among stars."""
    for _ in range(70):
        x, y = width * random.random(), height * random.random() * 0.8
        _disc(draw, x, y, width * random.choice((0.004, 0.006, 0.011)), colours.light)
    x, y = width * random.uniform(0.35, 0.65), height * random.uniform(0.25, 0.42)
    radius = width * random.uniform(0.18, 0.28)
    _disc(draw, x, y, radius * 1.25, _fade(colours.accent, 60))
    _disc(draw, x, y, radius, colours.accent)
    _disc(draw, x - radius * 0.25, y - radius * 0.25, radius * 0.6, _fade(colours.light, 90))
    ring = (x - radius * 1.7, y - radius * 0.3, x + radius * 1.7, y + radius * 0.3)
    draw.arc(ring, -25, 205, fill=colours.light, width=max(1, int(width * 0.02)))


def _burst(draw: Draw, width: int, height: int, colours: Palette, random: Random) -> None:
    """Rays from a point."""
    x, y = width * random.uniform(0.25, 0.75), height * random.uniform(0.25, 0.5)
    rays, turn = random.choice((9, 11, 13)), random.random() * math.tau
    for ray in range(rays):
        start = turn + math.tau * ray / rays
        edges = [
            (x + 2 * height * math.cos(a), y + 2 * height * math.sin(a))
            for a in (start, start + math.pi / rays)
        ]
        draw.polygon([(x, y), *edges], fill=_fade(colours.accent, 150))
    _disc(draw, x, y, width * 0.16, _fade(colours.light, 110))
    _disc(draw, x, y, width * 0.1, colours.light)


def _bubbles(draw: Draw, width: int, height: int, colours: Palette, random: Random) -> None:
    """Overlapping see-through discs."""
    for k in range(14):
        x, y = width * random.random(), height * random.uniform(0.0, 0.75)
        fill = (colours.light, colours.accent, colours.main)[k % 3]
        _disc(draw, x, y, width * random.uniform(0.08, 0.26), _fade(fill, 130))


def _waves(draw: Draw, width: int, height: int, colours: Palette, random: Random) -> None:
    """A pale moon over layers of waves."""
    _disc(
        draw,
        width * random.uniform(0.2, 0.8),
        height * 0.18,
        width * 0.11,
        _fade(colours.light, 200),
    )
    layers = 5
    for layer in range(layers):
        phase, length = random.random() * math.tau, random.uniform(0.7, 1.3)
        base = height * (0.3 + 0.09 * layer)
        crest = [
            (x, base + height * 0.035 * math.sin(phase + math.tau * length * x / width))
            for x in range(0, width + 4, 4)
        ]
        share = layer / (layers - 1)
        fill = tuple(int(a + (b - a) * share) for a, b in zip(colours.accent, colours.dark))
        draw.polygon([*crest, (width, height), (0, height)], fill=_fade(fill, 210))


def _blinds(draw: Draw, width: int, height: int, colours: Palette, random: Random) -> None:
    """Light through window blinds."""
    slope = height * random.choice((-0.12, -0.08, 0.08, 0.12))
    slats = random.choice((8, 9, 10))
    left, right = width * random.uniform(0.05, 0.2), width * random.uniform(0.8, 0.95)
    for slat in range(slats):
        y = height * (0.08 + 0.62 * slat / slats)
        thick = height * 0.62 / slats * 0.5
        corners = [(left, y), (right, y + slope), (right, y + slope + thick), (left, y + thick)]
        draw.polygon(corners, fill=_fade(colours.light, 60 + 110 * slat // slats))
    x = width * random.uniform(0.35, 0.65)
    draw.ellipse((x - width * 0.1, height * 0.3, x + width * 0.1, height * 0.46), fill=colours.dark)
    shoulders = (x - width * 0.22, height * 0.44, x + width * 0.22, height * 1.1)
    draw.ellipse(shoulders, fill=colours.dark)


def _skyline(draw: Draw, width: int, height: int, colours: Palette, random: Random) -> None:
    """Towers with some windows lit."""
    for base, colour, lit in ((0.3, colours.accent, 0.0), (0.45, colours.dark, 0.45)):
        x = 0.0
        while x < width:
            tower = width * random.uniform(0.13, 0.22)
            top = height * (base + random.uniform(-0.12, 0.1))
            draw.rectangle((x, top, x + tower, height), fill=colour)
            pane = tower / 7
            for row in range(1, 9):
                for column in (1, 3, 5):
                    if random.random() < lit:
                        left, upper = x + column * pane, top + row * pane * 2
                        draw.rectangle((left, upper, left + pane, upper + pane), fill=colours.light)
            x += tower


def _shards(draw: Draw, width: int, height: int, colours: Palette, random: Random) -> None:
    """Jagged teeth from both edges around a pale glow."""
    x, y = width * random.uniform(0.4, 0.6), height * 0.36
    for radius, alpha in ((0.42, 45), (0.3, 70), (0.18, 150)):
        _disc(draw, x, y, width * radius, _fade(colours.light, alpha))
    teeth = random.choice((5, 6, 7))
    for edge, colour in ((0.0, colours.dark), (0.72, colours.accent)):
        for tooth in range(teeth):
            left, right = width * tooth / teeth, width * (tooth + 1) / teeth
            reach = height * random.uniform(0.1, 0.3) * (1 if edge == 0.0 else -1)
            tip = ((left + right) / 2 + width * random.uniform(-0.08, 0.08), height * edge + reach)
            draw.polygon([(left, height * edge), tip, (right, height * edge)], fill=colour)
    draw.rectangle((0, height * 0.72, width, height), fill=colours.accent)


def _rings(draw: Draw, width: int, height: int, colours: Palette, random: Random) -> None:
    """Concentric rings, like a record or an echo."""
    x, y = width * random.uniform(0.3, 0.7), height * random.uniform(0.3, 0.42)
    rings = random.choice((6, 7, 8))
    for ring in range(rings, 0, -1):
        fill = colours.accent if ring % 2 else colours.main
        _disc(draw, x, y, width * 0.6 * ring / rings, _fade(fill, 230))
    _disc(draw, x, y, width * 0.06, colours.light)


MOTIFS: dict[str, Callable[[Draw, int, int, Palette, Random], None]] = {
    "sun": _sun,
    "stars": _stars,
    "burst": _burst,
    "bubbles": _bubbles,
    "waves": _waves,
    "blinds": _blinds,
    "skyline": _skyline,
    "shards": _shards,
    "rings": _rings,
}
