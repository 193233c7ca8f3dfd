"""How a data set's items are shown to people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from recbole.config import Config

from recbole_mars.plugin.catalogue import ItemCatalogue
from recbole_mars.plugin.config import data_folder

__all__ = ["ItemCard", "item_cards"]


class ItemCard(NamedTuple):
    """A title, and the file of a picture, None where there is none."""

    title: str
    picture: Path | None


def item_cards(dataset: str, settings: Mapping[str, Any]) -> dict[str, ItemCard]:
    """Cards of the items of the .item file, by token; covers are drawn where the settings say so.

    settings: as of a MARS run. Raises ValueError for what its features cannot be read from.
    """
    config = Config(model="MARS", dataset=dataset, config_dict=dict(settings))
    catalogue = ItemCatalogue(config, data_folder(config), dataset)
    titles, pictures = catalogue.titles(), catalogue.pictures()
    return {
        item: ItemCard(titles.get(item) or item, pictures.get(item))
        for item in {**titles, **pictures}
    }
