"""Item text and image features in the order of RecBole's internal item ids."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from recbole.config import Config

from recbole_mars.features import (
    FeatureTable,
    PixelEncoder,
    TfidfEncoder,
    check_against_catalogue,
    draw_covers,
    extract_images,
    extract_text,
    find_images,
    import_features,
    join_text,
)

if TYPE_CHECKING:
    from recbole_mars.plugin.dataset import MultimodalDataset

__all__ = ["ItemFeatures", "check_sources", "item_features"]


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


def check_sources(config: Config, dataset_path: str, name: str) -> None:
    """Refuse a configuration whose features cannot be had, before anything long runs.

    Raises ValueError naming the key, the file or the column that is missing.
    """
    use_text, use_image = config["mars_use_text"], config["mars_use_image"]
    if not (use_text or use_image):
        raise ValueError("mars_use_text and mars_use_image are both False; MARS needs one of them")
    if use_text and not (config["text_features"] or config["text_fields"]):
        raise ValueError(
            "item text is needed: set text_fields to columns of the .item file, or text_features "
            "and feature_ids to ready features, or mars_use_text: False to do without"
        )
    drawn = config["draw_covers"] if not config["image_dir"] else None
    if use_image and not (config["image_features"] or config["image_dir"] or drawn):
        raise ValueError(
            "item images are needed: set image_dir to a folder of <item_id>.jpg, .png or .webp, "
            "or image_features and feature_ids to ready features, or mars_use_image: False to do "
            "without"
        )
    for key in ("text_features", "image_features"):
        if config[key] and not config["feature_ids"]:
            raise ValueError(
                f"feature_ids must name the file with the item ids of {key} ({config[key]}): a "
                "CSV with an item_id column, or one id a line"
            )
    if use_text and not config["text_features"]:
        _item_columns(dataset_path, name, config, "text_fields", _text_fields(config))
    if use_image and not config["image_features"] and drawn:
        _item_columns(dataset_path, name, config, "draw_covers", _cover_fields(config))


def _text_fields(config: Config) -> list[str]:
    fields = config["text_fields"]
    return [fields] if isinstance(fields, str) else list(fields)


def _cover_fields(config: Config) -> list[str]:
    fields = config["draw_covers"]
    if not isinstance(fields, dict) or set(fields) != {"title", "year", "genres"}:
        raise ValueError(
            f"draw_covers must name the columns of title, year and genres, got {fields!r}"
        )
    return [fields["title"], fields["year"], fields["genres"]]


def _item_columns(
    dataset_path: str, name: str, config: Config, key: str, fields: list[str]
) -> pd.DataFrame:
    """Columns of the .item file as strings, indexed by item id."""
    file = Path(dataset_path) / f"{name}.item"
    if not file.is_file():
        raise ValueError(f"{key} needs {file}, which does not exist; give the file or unset {key}")
    table = pd.read_csv(
        file,
        sep=config["field_separator"],
        dtype=str,
        keep_default_na=False,
        quoting=csv.QUOTE_NONE,
        encoding=config["encoding"] or "utf-8",
    )
    table.columns = [column.split(":")[0] for column in table.columns]
    id_field = config["ITEM_ID_FIELD"]
    missing = [field for field in [id_field, *fields] if field not in table]
    if missing:
        raise ValueError(f"{key}: {file} has no column {missing[0]!r}, only {list(table)}")
    return table.drop_duplicates(id_field).set_index(id_field)[fields]


def item_features(dataset: MultimodalDataset, config: Config) -> ItemFeatures:
    """Read or compute the features of every item of the data set.

    Computed features are kept under checkpoint_dir/features and reused while nothing changed.
    """
    check_sources(config, dataset.dataset_path, dataset.dataset_name)
    tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field][1:]]
    folder = Path(config["checkpoint_dir"]) / "features" / dataset.dataset_name
    where = (dataset.dataset_path, dataset.dataset_name, config)
    progress = bool(config["show_progress"])
    text = image = None
    if config["mars_use_text"]:
        if config["text_features"]:
            text = _imported(dataset, config, "text_features", tokens)
        else:
            columns = _item_columns(*where, "text_fields", _text_fields(config))
            columns = columns.reindex(tokens, fill_value="")
            joined = join_text([columns[name].tolist() for name in columns])
            text = extract_text(tokens, joined, TfidfEncoder(), folder / "text")
    if config["mars_use_image"]:
        if config["image_features"]:
            image = _imported(dataset, config, "image_features", tokens)
        else:
            image_dir = config["image_dir"] or _drawn_covers(
                _item_columns(*where, "draw_covers", _cover_fields(config)), folder, dataset
            )
            image = extract_images(
                tokens,
                find_images(tokens, image_dir, config["image_list"]),
                PixelEncoder(),
                folder / "image",
                max_broken_share=config["max_broken_images"],
                progress=progress,
            )
    parts = {"text": _padded(text, tokens), "image": _padded(image, tokens)}
    for name, (_, present) in parts.items():
        if present is not None:
            dataset.logger.info(f"{name} features: {int(present.sum())} of {len(tokens)} items")
    return ItemFeatures(*parts["text"], *parts["image"])


def _drawn_covers(columns: pd.DataFrame, folder: Path, dataset: MultimodalDataset) -> Path:
    dataset.logger.warning(
        f"no image_dir given: {len(columns)} covers are drawn from the items' metadata into "
        f"{folder / 'covers'}"
    )
    films = (
        (item, title, int(year) if year.isdigit() else None, genres.split())
        for item, title, year, genres in columns.itertuples(name=None)
    )
    return draw_covers(films, folder / "covers", progress=bool(dataset.config["show_progress"]))


def _imported(
    dataset: MultimodalDataset, config: Config, key: str, tokens: list[str]
) -> FeatureTable:
    store = import_features(config[key], config["feature_ids"], name=key)
    catalogue = list(tokens)
    if (Path(dataset.dataset_path) / f"{dataset.dataset_name}.item").is_file():
        # Items that no interaction names, or that a filter took out, may well have features.
        listed = _item_columns(dataset.dataset_path, dataset.dataset_name, config, key, [])
        catalogue += listed.index.tolist()
    try:
        check_against_catalogue(store, catalogue, allow_unknown=config["allow_unknown_features"])
    except ValueError as error:
        raise ValueError(f"{key}: {error} (here: allow_unknown_features: True)") from None
    return store


def _padded(
    store: FeatureTable | None, tokens: list[str]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if store is None:
        return None, None
    matrix, present = store.select(tokens)
    return np.pad(matrix, ((1, 0), (0, 0))), np.pad(present, (1, 0))
