"""What a user can say about item features: the names of flags and of YAML keys alike."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from recbole_mars.features.catalogue.prompts import PromptTemplate
from recbole_mars.features.encoders import (
    BatchEncoder,
    Encoder,
    ImageEncoder,
    PixelEncoder,
    TextEncoder,
    TfidfEncoder,
)
from recbole_mars.features.extraction.execution import Execution
from recbole_mars.features.stores.writer import DTYPES

__all__ = ["FeatureSettings"]


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class FeatureSettings:
    """How text and pictures become features. Each field's help stands beside it.

    Raises ValueError for values that are out of range or exclude each other.
    """

    text_fields: list | None = _option(None, "columns of the catalogue that make an item's text")
    text_prompt: str | None = _option(None, "template instead, such as '{title} ({year}). {plot}'")
    text_encoder: str = _option("tfidf", "'tfidf', or a language model: a folder or hub name")
    text_revision: str | None = _option(None, "branch, tag or commit of the model on the hub")
    text_pooling: str = _option("auto", "tokens to a vector: mean, cls, last, max, ...")
    text_max_length: int | None = _option(None, "tokens that are read; the rest is cut off")
    text_normalize: bool | None = _option(None, "unit vectors; by default as the model says")
    text_dtype: str = _option("auto", "computing in float32, bfloat16, float16; auto: the model's")
    text_batch_size: int = _option(32, "texts that the model reads at a time")
    text_width: int | None = _option(None, "principal components that are kept; by default all")
    image_dir: str | None = _option(None, "folder of pictures named <item id>.jpg, .png or .webp")
    image_list: str | None = _option(None, "CSV with item_id, image_file if named otherwise")
    image_encoder: str = _option("pixels", "'pixels', or a vision model: a folder or hub name")
    image_revision: str | None = _option(None, "branch, tag or commit of the model on the hub")
    image_pooling: str = _option("auto", "patches to a vector: cls, mean, model (its own)")
    image_min_pixels: int | None = _option(None, "least size, of models that take any (Qwen-VL)")
    image_max_pixels: int | None = _option(None, "largest size, of models that take any (Qwen-VL)")
    image_normalize: bool = _option(False, "unit vectors")
    image_dtype: str = _option("auto", "computing in float32, bfloat16, float16; auto: the model's")
    image_batch_size: int = _option(32, "pictures that the model sees at a time")
    image_width: int | None = _option(None, "principal components that are kept; by default all")
    max_broken_images: float = _option(0.05, "largest share of unreadable pictures accepted")
    encoder_device: str = _option("auto", "cpu, cuda, cuda:1, ...; auto: a GPU if there is one")
    encoder_device_map: str | None = _option(None, "auto: spread a large model over all GPUs")
    encoder_8bit: bool = _option(False, "hold a large model in 8 bits, on a GPU")
    encoder_workers: int | None = _option(None, "threads that tokenize and decode")
    encoder_remote_code: bool = _option(False, "run the Python code that a model brings along")
    feature_dtype: str = _option("float16", "on disk: float16, float32, or int8 (a scale a row)")
    feature_whiten: bool = _option(False, "scale the principal components to variance 1")
    ray_address: str | None = _option(None, "encode on a Ray cluster: auto, local, or its address")
    ray_workers: int | None = _option(None, "copies of the model there")

    def __post_init__(self) -> None:
        if self.feature_dtype not in DTYPES:
            raise ValueError(
                f"feature_dtype must be one of {', '.join(DTYPES)}, got {self.feature_dtype!r}"
            )
        for name in ("text_width", "image_width"):
            width = getattr(self, name)
            if width is not None and width < 1:
                raise ValueError(f"{name} must be >= 1, got {width}; leave it out to keep all")
        for name in ("text_batch_size", "image_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0.0 <= self.max_broken_images <= 1.0:
            raise ValueError(f"max_broken_images must lie in 0..1, got {self.max_broken_images}")
        if self.feature_whiten and self.text_width is None and self.image_width is None:
            raise ValueError("feature_whiten needs text_width or image_width")
        if self.text_prompt is not None:
            PromptTemplate(self.text_prompt)

    @classmethod
    def options(cls) -> tuple[Field[Any], ...]:
        """The settings with their defaults, and what they are in `metadata["help"]`."""
        return fields(cls)

    @classmethod
    def from_keys(cls, given: Mapping[str, Any]) -> FeatureSettings:
        """The settings among the keys of a configuration; those of other purposes are left out.

        Raises ValueError for a key that differs from a setting's by a letter or two, and for a
        value of another kind than the setting's.
        """
        known = {option.name: option for option in fields(cls)}
        for key in given:
            close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.9)
            if key not in known and close:
                raise ValueError(f"unknown key {key}. Did you mean {close[0]}?")
        return cls(
            **{
                key: _checked(known[key], value)
                for key, value in given.items()
                if key in known and value is not None
            }
        )

    def without_effect(self, given: Iterable[str]) -> list[str]:
        """Which of the given settings change nothing, as what they belong to is not used."""
        unused = set()
        if self.text_prompt is not None:
            unused.add("text_fields")
        models = {
            "text": self.text_encoder.lower() != "tfidf",
            "image": self.image_encoder.lower() != "pixels",
        }
        used = {"text": bool(self.text_columns()), "image": self.image_dir is not None}
        for option in fields(self):
            kind, _, name = option.name.partition("_")
            if kind not in models:
                continue
            if not used[kind] or (not models[kind] and name not in _OF_ANY_ENCODER):
                unused.add(option.name)
        if not any(models[kind] and used[kind] for kind in models):
            unused |= {option.name for option in fields(self) if option.name.startswith("encoder_")}
            unused |= {"ray_address", "ray_workers"}
        return [name for name in given if name in unused]

    def label(self, kind: str) -> str:
        """Names what encodes text or images (`kind`): the encoder and a hash of its settings.

        Settings that move no vector beyond rounding, that say where files are or what becomes of
        the vectors do not count.
        """
        uncounted = ("batch_size", "dir", "list", "width")
        counts = {
            option.name: getattr(self, option.name)
            for option in fields(self)
            if option.name == "encoder_8bit"
            or (option.name.startswith(f"{kind}_") and not option.name.endswith(uncounted))
        }
        digest = hashlib.sha256(json.dumps(counts, sort_keys=True).encode()).hexdigest()
        encoder = re.sub(r"[^\w.-]+", "-", Path(counts[f"{kind}_encoder"]).name)
        return f"{encoder}-{digest[:8]}"

    def text_columns(self) -> list[str]:
        """The columns that an item's text is made of."""
        if self.text_prompt is not None:
            return list(PromptTemplate(self.text_prompt).fields)
        given = [self.text_fields] if isinstance(self.text_fields, str) else self.text_fields
        return list(dict.fromkeys(given or ()))

    def make_text_encoder(self) -> Encoder[str] | BatchEncoder[str]:
        """The text encoder; a model is not loaded yet."""
        if self.text_encoder.lower() == "tfidf":
            return TfidfEncoder()
        if self.text_encoder.lower() == "pixels":
            raise ValueError("text_encoder 'pixels' is for pictures; use 'tfidf' or a text model")
        return TextEncoder(
            self.text_encoder,
            revision=self.text_revision,
            pooling=self.text_pooling,
            max_length=self.text_max_length,
            normalize=self.text_normalize,
            dtype=self.text_dtype,
            **self._placement(),
        )

    def make_image_encoder(self) -> Encoder[Any] | BatchEncoder[Any]:
        """The image encoder; a model is not loaded yet."""
        if self.image_encoder.lower() == "pixels":
            return PixelEncoder()
        if self.image_encoder.lower() == "tfidf":
            raise ValueError("image_encoder 'tfidf' is for text; use 'pixels' or a vision model")
        return ImageEncoder(
            self.image_encoder,
            revision=self.image_revision,
            pooling=self.image_pooling,
            min_pixels=self.image_min_pixels,
            max_pixels=self.image_max_pixels,
            normalize=self.image_normalize,
            dtype=self.image_dtype,
            **self._placement(),
        )

    def _placement(self) -> dict[str, Any]:
        return {
            "device": self.encoder_device,
            "device_map": self.encoder_device_map,
            "load_in_8bit": self.encoder_8bit,
            "trust_remote_code": self.encoder_remote_code,
        }

    def execution(self, batch_size: int, shard: tuple[int, int] | None = None) -> Execution:
        """How an extraction with these settings runs."""
        return Execution(
            batch_size, self.encoder_workers, shard, self.ray_address, self.ray_workers
        )


_OF_ANY_ENCODER = ("fields", "prompt", "encoder", "width", "dir", "list")

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "True or False"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a word"),
    "list": ((list, tuple, str), "a list of columns"),
}


def _checked(option: Field[Any], value: Any) -> Any:
    allowed, needed = _KINDS[str(option.type).split(" ")[0]]
    if isinstance(value, (list, tuple)) and not all(isinstance(item, str) for item in value):
        raise ValueError(f"{option.name} must be {needed}, all words, got {value!r}; quote numbers")
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        remedy = "; put quotes around it" if isinstance(value, dict) else ""  # YAML's {title}
        raise ValueError(f"{option.name} must be {needed}, got {value!r}{remedy}")
    return value
