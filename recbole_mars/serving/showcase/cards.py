"""Titles and pictures of items, as the main job writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

__all__ = ["Card", "read_cards"]


class Card(NamedTuple):
    """How an item is shown. picture: a file, None where there is none."""

    title: str
    picture: Path | None


def read_cards(file: str | Path) -> dict[str, Card]:
    """Read items.json: cards by item; the pictures of a moved or emptied folder are left out.

    Raises FileNotFoundError without the file, ValueError if it is damaged.
    """
    file = Path(file)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {item: _card(told, file.parent) for item, told in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {error!r}; run the main job again") from None


def _card(told: dict[str, str | None], folder: Path) -> Card:
    title, picture = told["title"], told["picture"]
    if not isinstance(title, str) or not isinstance(picture, (str, type(None))):
        raise TypeError(f"a card must hold a title and a picture, got {told}")
    place = None if picture is None else folder / picture
    return Card(title, place if place is not None and place.is_file() else None)
