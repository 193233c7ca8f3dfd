"""Item text and image features in the order of RecBole's internal item ids."""

from __future__ import annotations

import csv
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recbole.config import Config

from recbole_mars.features import (
    FeatureTable,
    build_image_features,
    build_text_features,
    check_against_catalogue,
    draw_covers,
    find_images,
    import_features,
)
from recbole_mars.plugin.distributed import first_process_first
from recbole_mars.plugin.settings import feature_settings

__all__ = ["ItemCatalogue", "ItemFeatures"]

_KIND_OF = {"tfidf": "text", "text_model": "text", "pixels": "image", "image_model": "image"}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ItemFeatures:
    """Frozen features by internal item id; row 0 is padding.

    text: (I, Dt), image: (I, Di) float32, or None if the modality is not used.
    text_present, image_present: (I,) bool, False where the item lacks the modality.
    """

    text: np.ndarray | None
    text_present: np.ndarray | None
    image: np.ndarray | None
    image_present: np.ndarray | None

    def fingerprint(self) -> str:
        """Hash of everything that a model reads."""
        digest = hashlib.sha256()
        for part in (self.text, self.text_present, self.image, self.image_present):
            digest.update(b"none" if part is None else np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


class ItemCatalogue:
    """Where the text and pictures of a data set's items are, and the features made of them.

    config: RecBole's, with our keys. folder: of the data set's atomic files. name: the data set's.

    Raises ValueError, before anything long runs, if the features that the configuration asks for
    cannot be had: names the key, the file or the column that is missing.
    """

    def __init__(self, config: Config, folder: str | Path, name: str) -> None:
        self._config = config
        self._item_file = Path(folder) / f"{name}.item"
        self._store = Path(config["checkpoint_dir"]) / "features" / name
        self._settings = feature_settings(config)
        self._drawn: Path | None = None
        self._check_sources()

    @staticmethod
    def is_asked_for(config: Config) -> bool:
        """Whether the configuration names text or images, and does not rule them out."""
        text = ("text_features", "text_fields", "text_prompt")
        image = ("image_features", "image_dir", "draw_covers")
        return any(
            config[f"mars_use_{kind}"] and any(config[key] for key in keys)
            for kind, keys in (("text", text), ("image", image))
        )

    def _check_sources(self) -> None:
        config = self._config
        use_text, use_image = config["mars_use_text"], config["mars_use_image"]
        if not (use_text or use_image):
            raise ValueError(
                "mars_use_text and mars_use_image are both False; "
                f"{config['model']} needs one of them"
            )
        pictured = config["image_features"] or config["image_dir"]
        has_text = config["text_features"] or self._settings.text_columns()
        has_image = pictured or config["draw_covers"]
        if use_text and not has_text:
            without = ", or mars_use_text: False to do without" * bool(use_image and has_image)
            raise ValueError(
                "item text is needed: set text_fields to columns of the .item file, or "
                f"text_features to ready features{without}"
            )
        if use_image and not has_image:
            without = ", or mars_use_image: False to do without" * use_text
            raise ValueError(
                "item images are needed: set image_dir to a folder of <item_id>.jpg, .png or "
                f".webp, or image_features to ready features{without}"
            )
        for key in ("text_features", "image_features"):
            if config[key] and not Path(config[key]).exists():
                raise ValueError(f"{key}: there is no file or folder {config[key]}")
            if str(config[key] or "").endswith(".npy") and not config["feature_ids"]:
                raise ValueError(
                    f"feature_ids must name the file with the item ids of {key} ({config[key]}): "
                    "a CSV with an item_id column, one id a line, or 'rows' for 0, 1, 2, ..."
                )
        if use_text and not config["text_features"]:
            key = "text_prompt" if config["text_prompt"] else "text_fields"
            self._columns(key, self._settings.text_columns(), rows=0)
        if use_image and not pictured:
            self._columns("draw_covers", self._cover_fields(), rows=0)

    def features(self, tokens: list[str]) -> ItemFeatures:
        """Read or compute the features of these items, in this order.

        Computed features are kept under checkpoint_dir/features and reused while nothing changed.
        """
        # A run that computes them goes on with the same random numbers as one that finds them.
        with first_process_first(), torch.random.fork_rng(devices=[]):
            text = self._text(tokens) if self._config["mars_use_text"] else None
            image = self._image(tokens) if self._config["mars_use_image"] else None
        return ItemFeatures(*_padded(text, tokens), *_padded(image, tokens))

    def titles(self) -> dict[str, str]:
        """What people call the items of the .item file, by token.

        Title and year where draw_covers names the columns, else the first text; {} without either.
        """
        text = self._settings.text_columns()
        if self._config["draw_covers"]:
            table = self._columns("draw_covers", self._cover_fields()[:2])
            named = zip(table.index, *(table[name] for name in table))
            return {item: f"{title} ({year})" if year else title for item, title, year in named}
        if text and self._item_file.is_file():
            return self._columns("text_fields", text[:1])[text[0]].to_dict()
        return {}

    def pictures(self) -> dict[str, Path]:
        """Pictures of the items of the .item file, given or drawn, by token."""
        if not self._item_file.is_file():
            return {}
        items = self._columns("image_dir", []).index.tolist()
        if self._config["image_dir"]:
            return find_images(items, self._config["image_dir"], self._config["image_list"])
        return find_images(items, self._covers()) if self._config["draw_covers"] else {}

    def _text(self, tokens: list[str]) -> FeatureTable:
        if self._config["text_features"]:
            return self._imported("text", tokens)
        columns = self._columns("text_fields", self._settings.text_columns())
        columns = columns.reindex(tokens, fill_value="")
        folder, full = self._places("text", "text")
        built = build_text_features(
            tokens,
            {name: columns[name].tolist() for name in columns},
            self._settings,
            folder,
            full_folder=full,
            progress=bool(self._config["show_progress"]),
        )
        return built.store

    def _image(self, tokens: list[str]) -> FeatureTable:
        if self._config["image_features"]:
            return self._imported("image", tokens)
        source = "image" if self._config["image_dir"] else "cover"
        folder, full = self._places(source, "image")
        built = build_image_features(
            tokens,
            self._config["image_dir"] or self._covers(),
            self._settings,
            folder,
            full_folder=full,
            progress=bool(self._config["show_progress"]),
        )
        return built.store

    def _places(self, source: str, kind: str) -> tuple[Path, Path]:
        """Folders of the features and of the vectors that they may be reduced from.

        Each encoder with its settings has its own, and each width: none undoes another's work.
        """
        full = self._store / f"{source}-{self._settings.label(kind)}"
        width = getattr(self._settings, f"{kind}_width")
        if width is None:
            return full, full
        whitened = "-white" if self._settings.feature_whiten else ""
        return full.with_name(f"{full.name}-{width}{whitened}"), full

    def _covers(self) -> Path:
        """The folder of drawn covers, up to date; looked through once."""
        if self._drawn is None:
            self._drawn = self._draw()
        return self._drawn

    def _draw(self) -> Path:
        columns = self._columns("draw_covers", self._cover_fields())
        folder = self._store / "covers"
        _logger.warning(
            "no image_dir given: %d covers are drawn from the items' metadata into %s",
            len(columns),
            folder,
        )
        items = (
            (item, title, int(year) if year.isdigit() else None, genres.split())
            for item, title, year, genres in columns.itertuples(name=None)
        )
        return draw_covers(items, folder, progress=bool(self._config["show_progress"]))

    def _imported(self, kind: str, tokens: list[str]) -> FeatureTable:
        key = f"{kind}_features"
        source, ids = Path(self._config[key]), self._config["feature_ids"]
        if source.suffix == ".npy":
            table = import_features(source, ids, name=key)
        else:  # a store and RecBole's own files hold their ids; a folder may hold both kinds
            folder = source.is_dir() and not (source / "manifest.json").is_file()
            table = import_features(source, name=key, kind=kind if folder else None)
        if _KIND_OF.get(table.name, kind) != kind:
            raise ValueError(
                f"{key} must be features of {'text' if kind == 'text' else 'pictures'}, "
                f"but {source} was made of the other by {table.name!r}; name the other store"
            )
        catalogue = list(tokens)
        if self._item_file.is_file():
            # Items that no interaction names, or that a filter took out, may well have features.
            catalogue = list(dict.fromkeys(catalogue + self._columns(key, []).index.tolist()))
        allow = self._config["allow_unknown_features"]
        try:
            check_against_catalogue(table, catalogue, allow_unknown=allow)
        except ValueError as error:
            raise ValueError(f"{error} (here: allow_unknown_features: True)") from None
        return table

    def _cover_fields(self) -> list[str]:
        fields = self._config["draw_covers"]
        if not isinstance(fields, dict) or set(fields) != {"title", "year", "genres"}:
            raise ValueError(
                f"draw_covers must name the columns of title, year and genres, got {fields!r}"
            )
        return [fields["title"], fields["year"], fields["genres"]]

    def _columns(self, key: str, fields: list[str], rows: int | None = None) -> pd.DataFrame:
        """Columns of the .item file as strings, indexed by item id; of the first rows, or all."""
        file = self._item_file
        if not file.is_file():
            raise ValueError(
                f"{key} needs {file}, which does not exist; give the file or unset {key}"
            )
        table = pd.read_csv(
            file,
            sep=self._config["field_separator"],
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            encoding=self._config["encoding"] or "utf-8",
            nrows=rows,
        )
        table.columns = [column.split(":")[0] for column in table.columns]
        id_field = self._config["ITEM_ID_FIELD"]
        missing = [field for field in [id_field, *fields] if field not in table]
        if missing:
            raise ValueError(f"{key}: {file} has no column {missing[0]!r}, only {list(table)}")
        return table.drop_duplicates(id_field).set_index(id_field, drop=False)[fields]


def _padded(
    store: FeatureTable | None, tokens: list[str]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if store is None:
        return None, None
    matrix, present = store.select(tokens)
    return np.pad(matrix, ((1, 0), (0, 0))), np.pad(present, (1, 0))
