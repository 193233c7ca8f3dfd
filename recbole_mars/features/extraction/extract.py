"""From the texts and pictures of a catalogue to a feature store, encoded once and reused."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np

from recbole_mars.features.catalogue.ids import name_few
from recbole_mars.features.catalogue.image import load_image, map_images
from recbole_mars.features.encoders import BatchEncoder, Encoder
from recbole_mars.features.extraction.assembly import assemble
from recbole_mars.features.extraction.execution import Execution
from recbole_mars.features.extraction.resumable import Work
from recbole_mars.features.extraction.sources import Sources
from recbole_mars.features.stores.locking import writing_lock
from recbole_mars.features.stores.store import FORMAT, MANIFEST, CorruptStoreError, FeatureStore
from recbole_mars.features.stores.writer import check_target, restore_replaced, write_store

__all__ = ["Extraction", "extract_images", "extract_text"]

logger = logging.getLogger(__name__)

AnyEncoder = Union[Encoder[Any], BatchEncoder[Any]]

DEFAULTS = Execution()


@dataclass(frozen=True)
class Extraction:
    """What an extraction came to.

    encoded, seconds: inputs that this run encoded, and how long that took without loading the
    model; equal inputs are encoded once. shards_left: of work that is shared between jobs, what
    the others have not finished yet.
    """

    result: FeatureStore | None
    encoded: int
    seconds: float
    shards_left: int = 0

    @property
    def store(self) -> FeatureStore:
        """The store; ValueError if other jobs that share the work have not finished."""
        if self.result is None:
            raise ValueError(
                f"the store is written by the last of the jobs that share the work; "
                f"{self.shards_left} shards are still to do"
            )
        return self.result


def extract_text(
    ids: Sequence[str],
    texts: Sequence[str],
    encoder: Encoder[str] | BatchEncoder[str],
    folder: str | Path,
    *,
    dtype: str = "float16",
    execution: Execution = DEFAULTS,
    progress: bool = False,
) -> Extraction:
    """Encode the texts of a catalogue into the store in `folder`, or reuse what it holds.

    ids, texts: one an item; a blank text is a missing one. dtype: "float16", "float32", or "int8"
    with a scale a row. The store is reused if it is intact and was made by the same encoder from
    the same ids and texts; the log says what was done. A pretrained encoder is asked only for
    texts that the store does not hold yet, and an interrupted extraction is taken up again.

    Raises ValueError if no item has a text, or a vector is not finite or does not fit the dtype.
    """
    sources = Sources.of_texts(ids, texts)
    return _Extractor(sources, encoder, Path(folder), dtype, 1.0, execution, progress).run()


def extract_images(
    ids: Sequence[str],
    images: Mapping[str, Path],
    encoder: Encoder[Path] | BatchEncoder[Path],
    folder: str | Path,
    *,
    max_broken_share: float = 0.05,
    dtype: str = "float16",
    execution: Execution = DEFAULTS,
    progress: bool = False,
) -> Extraction:
    """Encode the pictures of a catalogue into the store in `folder`, or reuse what it holds.

    ids: all items. images: the picture file of each item that has one, see `find_images`. The
    store is reused as `extract_text` does, by the contents of the files.

    A picture that does not decode counts as missing; the store's broken.txt and the log name it.

    Raises ValueError if no item has a picture, or if more than `max_broken_share` of the pictures
    do not decode.
    """
    if not 0.0 <= max_broken_share <= 1.0:
        raise ValueError(f"max_broken_share must lie in 0..1, got {max_broken_share}")
    sources = Sources.of_images(ids, images, progress)
    extractor = _Extractor(
        sources, encoder, Path(folder), dtype, max_broken_share, execution, progress
    )
    return extractor.run()


class _Extractor:
    """One extraction of one catalogue into one folder."""

    def __init__(
        self,
        sources: Sources,
        encoder: AnyEncoder,
        folder: Path,
        dtype: str,
        max_broken_share: float,
        execution: Execution,
        progress: bool,
    ) -> None:
        self.sources = sources
        self.encoder = encoder
        self.folder = folder
        self.dtype = dtype
        self.max_broken_share = max_broken_share
        self.execution = execution
        self.progress = progress
        self.settings = json.loads(json.dumps(encoder.settings(), allow_nan=False))
        self.made_from = {
            "format": FORMAT,
            "encoder": encoder.name,
            "settings": self.settings,
            "dtype": dtype,
        }
        self.fingerprint = sources.fingerprint(self.made_from)
        self._known_as_damaged = -1  # when the manifest of a damaged store was written

    def run(self) -> Extraction:
        restore_replaced(self.folder)
        store, why_not = self._stored()
        if store is not None and store.manifest["fingerprint"] == self.fingerprint:
            logger.info("reused features %r in %s", self.encoder.name, self.folder)
            extraction = Extraction(store, 0, 0.0)
        else:
            check_target(self.folder, self.dtype)
            logger.info("building features %r in %s: %s", self.encoder.name, self.folder, why_not)
            if isinstance(self.encoder, BatchEncoder):
                extraction = self._encode_batches(self.encoder, store)
            else:
                extraction = self._encode_whole(self.encoder)
        if extraction.result is not None:
            broken = extraction.store.manifest["broken"]
            self._check_broken(broken, f", named in {self.folder / 'broken.txt'}")
        return extraction

    def _is_written(self) -> bool:
        """Whether the folder holds the store that is wanted; asked often, so a glance first."""
        file, written = self.folder / MANIFEST, 0
        try:
            written = file.stat().st_mtime_ns
            if json.loads(file.read_bytes())["fingerprint"] != self.fingerprint:
                return False
            if self._known_as_damaged != written:
                FeatureStore.open(self.folder)
                return True
        except CorruptStoreError:
            self._known_as_damaged = written
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return False

    def _stored(self) -> tuple[FeatureStore | None, str]:
        """The intact store in the folder, and how it differs from the one that is asked for."""
        try:
            store = FeatureStore.open(self.folder)
        except FileNotFoundError:
            return None, "there were none"
        except CorruptStoreError as error:
            return None, str(error)
        for field, now in self.made_from.items():
            if store.manifest[field] != now:
                return store, f"{field} was {store.manifest[field]!r}, is {now!r}"
        return store, "the items or what they are described by changed"

    def _encode_batches(self, encoder: BatchEncoder[Any], store: FeatureStore | None) -> Extraction:
        precision = "float32" if self.dtype == "float32" else "float16"
        if store is not None and not self._of_use(store):
            store = None
        work = Work(
            self.sources,
            encoder,
            self.folder,
            precision,
            store,
            self.execution,
            self._note_broken,
            self._is_written,
        )
        work.run(self.progress)
        with writing_lock(self.folder):
            if self._is_written():  # by another job that waited for the same shards
                finished = FeatureStore.open(self.folder)
            else:
                left = len(work.unfinished())
                if left and self.execution.shard is None:
                    raise ValueError(
                        f"{left} shards in {work.parts.path} have been removed meanwhile, by a run "
                        f"for another catalogue; run the extraction again, it does what is missing"
                    )
                if left:
                    return Extraction(None, work.encoded, work.seconds, left)
                finished = assemble(
                    self.folder,
                    self.sources,
                    work.results(),
                    store,
                    self._note_broken,
                    encoder=encoder.name,
                    dtype=self.dtype,
                    settings=self.settings,
                    provenance=encoder.provenance(),
                    fingerprint=self.fingerprint,
                )
            work.clean_up()
        self._log_coverage(finished)
        return Extraction(finished, work.encoded, work.seconds)

    def _of_use(self, store: FeatureStore) -> bool:
        """Whether the store's vectors are what the encoder would give, precisely enough."""
        same = all(
            store.manifest[field] == self.made_from[field] for field in ("encoder", "settings")
        )
        precise = {
            "float32": ("float32",),
            "float16": ("float16", "float32"),
            "int8": ("int8", "float16", "float32"),
        }
        return same and store.manifest["dtype"] in precise[self.dtype]

    def _encode_whole(self, encoder: Encoder[Any]) -> Extraction:
        """With an encoder that fits itself to the catalogue."""
        with writing_lock(self.folder):  # two runs never encode the same catalogue at once
            store, _ = self._stored()
            if store is not None and store.manifest["fingerprint"] == self.fingerprint:
                return Extraction(store, 0, 0.0)
            begun = time.perf_counter()
            rows, inputs, broken = self._whole_inputs()
            encoded = np.asarray(encoder.encode(inputs, self.progress))
            if encoded.ndim != 2 or len(encoded) != len(inputs) or not encoded.shape[1]:
                raise ValueError(
                    f"encoder {encoder.name!r} must return shape ({len(inputs)}, D) with D >= 1, "
                    f"got {encoded.shape}"
                )
            matrix = np.zeros((len(self.sources.ids), encoded.shape[1]), dtype=np.float32)
            matrix[rows] = encoded
            store = write_store(
                self.folder,
                self.sources.ids,
                matrix,
                matrix.any(axis=1),
                encoder=encoder.name,
                settings=self.settings,
                fingerprint=self.fingerprint,
                dtype=self.dtype,
                sources=self.sources.by_row,
                broken=broken,
            )
        self._log_coverage(store)
        return Extraction(store, len(inputs), time.perf_counter() - begun)

    def _whole_inputs(self) -> tuple[np.ndarray, list[Any], dict[str, str]]:
        """The inputs that are not broken, their rows, and why the others are."""
        rows, inputs = self.sources.rows, self.sources.inputs
        if self._kind == "texts":
            return rows, inputs, {}
        complaints = map_images(_complaint, inputs, self.progress, "checking pictures")
        broken = {self.sources.ids[row]: why for row, why in zip(rows, complaints) if why}
        self._check_broken(len(broken), f": {'; '.join(list(broken.values())[:3])}")
        whole = [k for k, why in enumerate(complaints) if not why]
        return rows[whole], [inputs[k] for k in whole], broken

    def _note_broken(self, reasons: list[str]) -> None:
        self._check_broken(len(reasons), f": {'; '.join(reasons[:3])}; the rest is kept")

    @property
    def _kind(self) -> str:
        return "pictures" if isinstance(self.sources.inputs[0], Path) else "texts"

    def _check_broken(self, count: int, example: str) -> None:
        total = len(self.sources.inputs)
        if count and (count > self.max_broken_share * total or count == total):
            raise ValueError(
                f"at most {self.max_broken_share:.1%} of the {self._kind} may be broken, and never "
                f"all, found {count} of {total}{example}; repair or remove them, or raise "
                f"max_broken_share"
            )

    def _log_coverage(self, store: FeatureStore) -> None:
        name, broken = self.encoder.name, store.broken
        if broken:
            logger.warning(
                "%d of %d %s are broken and count as missing: %s; see %s",
                len(broken),
                len(self.sources.inputs),
                self._kind,
                name_few(list(broken)),
                store.folder / "broken.txt",
            )
        silent = [store.ids[row] for row in self.sources.rows[~store.present[self.sources.rows]]]
        mute = [item for item in silent if item not in broken]
        if mute:
            logger.warning(
                "encoder %r can say nothing of %d items, they count as missing: %s",
                name,
                len(mute),
                name_few(mute),
            )
        logger.info("%d of %d items have features %r", store.present.sum(), len(store), name)


def _complaint(path: Path) -> str:
    try:
        load_image(path)
    except ValueError as error:
        return str(error)
    return ""
