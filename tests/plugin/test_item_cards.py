"""Titles and pictures of a data set's items, as its configuration names them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from recbole_mars.plugin.item_cards import ItemCard, item_cards


def test_ml_100k_has_titles_with_years_and_drawn_covers(empty_cwd):
    cards = item_cards("ml-100k", {"checkpoint_dir": "saved"})
    assert len(cards) == 1682
    assert cards["1"].title == "Toy Story (1995)"
    with Image.open(cards["1"].picture) as cover:
        assert cover.size == (96, 144)


@pytest.fixture
def films(empty_cwd):
    folder = Path("films")
    folder.mkdir()
    (folder / "films.inter").write_text("user_id:token\titem_id:token\trating:float\n1\ta\t5\n")
    (folder / "films.item").write_text(
        "item_id:token\tname:token_seq\tplot:token_seq\na\tAlpha\tshort\nb\t\tlong\nc\tGamma\t\n"
    )
    Path("pictures").mkdir()
    for name in ("a.png", "stranger.png"):
        Image.new("RGB", (2, 2)).save(Path("pictures", name))
    return {"data_path": ".", "text_fields": ["name", "plot"], "image_dir": "pictures"}


def test_given_pictures_and_the_first_text(films):
    assert item_cards("films", films) == {
        "a": ItemCard("Alpha", Path("pictures/a.png")),
        "b": ItemCard("b", None),  # which has no name
        "c": ItemCard("Gamma", None),
    }


def test_without_pictures(films):
    cards = item_cards("films", {**films, "image_dir": None, "mars_use_image": False})
    assert [card.picture for card in cards.values()] == [None] * 3


def test_without_item_table_there_is_nothing_to_show(films):
    ready = Path("ready.npy")
    ready.touch()
    Path("films/films.item").unlink()
    settings = {"data_path": ".", "text_features": str(ready), "feature_ids": "rows"}
    assert item_cards("films", {**settings, "mars_use_image": False}) == {}
