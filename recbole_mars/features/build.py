"""From a catalogue and settings to feature stores: what the command and the data set share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from recbole_mars.features.catalogue.image import find_images
from recbole_mars.features.catalogue.joining import join_text
from recbole_mars.features.catalogue.prompts import PromptTemplate
from recbole_mars.features.extraction.extract import Extraction, extract_images, extract_text
from recbole_mars.features.settings import FeatureSettings
from recbole_mars.features.stores.locking import writing_lock
from recbole_mars.features.stores.reduced import reduce_store
from recbole_mars.features.stores.store import MANIFEST, FeatureStore
from recbole_mars.features.stores.writer import check_target, put_in_place, restore_replaced

__all__ = ["Built", "build_image_features", "build_text_features"]


@dataclass(frozen=True)
class Built:
    """What was made, and how.

    extraction: the encoder's vectors. result: the store to use, which may hold their principal
    components; None while other jobs that share the work have not finished. inputs: n texts, or
    the picture files by item id.
    """

    extraction: Extraction
    result: FeatureStore | None
    inputs: Any

    @property
    def store(self) -> FeatureStore:
        """The store to use; ValueError if there is none yet."""
        return self.result or self.extraction.store


def _item_texts(columns: Mapping[str, Sequence[str]], settings: FeatureSettings) -> list[str]:
    """The text of each item, as the settings make it of its columns; '' for none."""
    if settings.text_prompt is not None:
        return PromptTemplate(settings.text_prompt).render(columns)
    return join_text([columns[name] for name in settings.text_columns()])


def build_text_features(
    ids: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    settings: FeatureSettings,
    folder: str | Path,
    *,
    full_folder: str | Path | None = None,
    shard: tuple[int, int] | None = None,
    progress: bool = False,
) -> Built:
    """Features of the items' text in the store `folder`, made or reused.

    ids: n items. columns: name → n strings, '' for a missing one; those of
    `settings.text_columns()` are looked at. full_folder: of the vectors that a store of fewer
    dimensions is made from, "<folder>-full" if not given. shard: see `Execution`.

    Raises ValueError as `extract_text` and `PromptTemplate` do.
    """
    texts = _item_texts(columns, settings)
    extract = partial(extract_text, ids, texts, progress=progress)
    return _build("text", settings, folder, full_folder, shard, extract, texts)


def build_image_features(
    ids: Sequence[str],
    image_dir: str | Path,
    settings: FeatureSettings,
    folder: str | Path,
    *,
    full_folder: str | Path | None = None,
    shard: tuple[int, int] | None = None,
    progress: bool = False,
) -> Built:
    """Features of the items' pictures in the store `folder`, made or reused.

    image_dir: the folder of the pictures; `settings.image_list` may say which is whose.
    full_folder, shard: as for `build_text_features`.

    Raises ValueError as `find_images` and `extract_images` do.
    """
    images = find_images(ids, image_dir, settings.image_list)
    share = settings.max_broken_images
    extract = partial(extract_images, ids, images, max_broken_share=share, progress=progress)
    return _build("image", settings, folder, full_folder, shard, extract, images)


def _build(
    kind: str,
    settings: FeatureSettings,
    folder: str | Path,
    full_folder: str | Path | None,
    shard: tuple[int, int] | None,
    extract: Callable[..., Extraction],
    inputs: Any,
) -> Built:
    width = getattr(settings, f"{kind}_width")
    with _errors_name_settings(kind):
        execution = settings.execution(getattr(settings, f"{kind}_batch_size"), shard)
        encoder: Any
        encoder = settings.make_text_encoder() if kind == "text" else settings.make_image_encoder()
        encoder.settings()  # fails before anything is moved
        full, dtype = _full(folder, full_folder, width, settings.feature_dtype)
        extraction = extract(encoder, full, dtype=dtype, execution=execution)
        result = extraction.result
        if width is not None and result is not None:
            result = reduce_store(
                result,
                folder,
                width,
                whiten=settings.feature_whiten,
                dtype=settings.feature_dtype,
            )
        return Built(extraction, result, inputs)


def _full(
    folder: str | Path, full_folder: str | Path | None, width: int | None, dtype: str
) -> tuple[Path, str]:
    """Where the encoder's vectors go, and in which dtype: beside those that are reduced.

    So another width asks for no encoding, and a changed item for that item's only. Vectors from
    before a width was asked for, or given up, are moved to their place, unless they have one.
    """
    folder = Path(folder).resolve()
    precise = "float32" if dtype == "float32" else "float16"
    if full_folder is not None:
        return (folder, dtype) if width is None else (Path(full_folder).resolve(), precise)
    full = folder.with_name(f"{folder.name}-full")
    with writing_lock(folder), writing_lock(full):
        for place in (folder, full):
            restore_replaced(place)
        reduced = _is_reduced(folder)
        if width is not None and reduced is False and not full.exists():
            folder.rename(full)
        elif width is None and reduced is not False and _is_reduced(full) is False:
            check_target(folder, dtype)
            put_in_place(full, folder)
    return (folder, dtype) if width is None else (full, precise)


def _is_reduced(folder: Path) -> bool | None:
    """Whether the store in a folder holds principal components; None if there is no store."""
    try:
        return "reduction" in json.loads((folder / MANIFEST).read_bytes())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _errors_name_settings(kind: str) -> Iterator[None]:
    """What the parts call their arguments, an error calls as the user did."""
    names = {
        r"\bload_in_8bit\b": "encoder_8bit",
        r"\bdevice_map\b": "encoder_device_map",
        r"\btrust_remote_code\b": "encoder_remote_code",
        r"\bmax_broken_share\b": "max_broken_images",
        r"\b(max_length|min_pixels|max_pixels|batch_size)\b": rf"{kind}_\1",
        r"\bdtype=": "feature_dtype=",
        r"\b(dtype|pooling|revision|normalize)(?= (must|to|'))": rf"{kind}_\1",
        r"\b(device|workers)(?= (must|to|'))": r"encoder_\1",
        r"\bwidth(?= must)": f"{kind}_width",
    }
    try:
        yield
    except ValueError as error:
        message = str(error)
        for pattern, name in names.items():
            message = re.sub(pattern, name, message)
        raise ValueError(message) from error
