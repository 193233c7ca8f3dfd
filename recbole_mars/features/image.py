"""Item pictures: finding them, decoding them safely, and vectors without any download."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, TypeVar

import numpy as np
from PIL import Image, ImageOps
from sklearn.decomposition import PCA
from tqdm import tqdm

from recbole_mars.features.ids import check_ids, name_few, read_csv

__all__ = ["PixelEncoder", "find_images", "load_image", "map_images"]

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 89_478_485  # Pillow's own limit, at which it only warns: 256 MiB of RGB
CELLS = 4
ORIENTATIONS = 9

Result = TypeVar("Result")


def find_images(
    ids: Sequence[str], image_dir: str | Path, image_list: str | Path | None = None
) -> dict[str, Path]:
    """The picture file of every item that has one.

    Without `image_list`: `<item id>.jpg`, `.jpeg`, `.png` or `.webp`, in any case, in `image_dir`.
    With it: a CSV file with the columns `item_id` and `image_file`, a path relative to
    `image_dir`, empty for none. Pictures of items not among `ids` are not looked at.

    Raises ValueError if the folder is missing, ids are not unique, an item has two pictures, or
    the list lacks a column or names a file that is not there.
    """
    check_ids(ids, "ids")
    folder = Path(image_dir)
    if not folder.is_dir():
        raise ValueError(f"image_dir must be a folder with pictures, found none: {folder}")
    if image_list is None:
        found = _scan(set(ids), folder)
    else:
        found = _read_list(set(ids), folder, Path(image_list))
    logger.info("%d of %d items have a picture in %s", len(found), len(ids), folder)
    return {item: found[item] for item in ids if item in found}


def load_image(path: str | Path) -> Image.Image:
    """Decode a picture to RGB, upright by its EXIF orientation, see-through parts over white.

    Raises ValueError, with the file's name, if it is no picture, cut short, or so large that it
    could fill the memory.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}"
                )
            return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # on bad bytes, decoders raise whatever they stumble on
        raise ValueError(
            f"cannot decode {path} as a picture: {error}; replace or remove the file"
        ) from error


class PixelEncoder:
    """Colours, layout and contours of a picture, reduced by a principal component analysis.

    A picture is scaled to size x size pixels and described by an 8 x 8 RGB thumbnail, an HSV
    histogram of 8 x 4 x 4 bins, and, on 4 x 4 cells, gradients by orientation in 9 bins. Columns
    are standardised, the three parts weigh the same, rows of the result are unit vectors.

    dimensions: columns at most; there are no more than pictures, less one.
    size: at least 8. seed: of the randomised decomposition; a seed gives one result.
    """

    name = "pixels"

    def __init__(self, dimensions: int = 64, size: int = 32, seed: int = 0) -> None:
        if dimensions < 1:
            raise ValueError(f"dimensions must be >= 1, got {dimensions}")
        if size < 8 or size % 8:
            raise ValueError(f"size must be a multiple of 8, got {size}; 32 suits covers")
        self.dimensions = dimensions
        self.size = size
        self.seed = seed

    def settings(self) -> dict[str, Any]:
        # version: raise it when this file computes something else
        return {
            "version": 1,
            "dimensions": self.dimensions,
            "size": self.size,
            "seed": self.seed,
        }

    def encode(self, inputs: Sequence[Path], progress: bool = False) -> np.ndarray:
        """Encode picture files, (n, D) float32.

        D is less than `dimensions` if there are few pictures, and the log says so. Raises
        ValueError if a file does not decode, or if the pictures do not differ.
        """
        described = map_images(self._describe, inputs, progress, "pixels")
        parts = [np.stack(part) for part in zip(*described)]
        if not any(np.ptp(part, axis=0).any() for part in parts):
            raise ValueError(
                f"encoder {self.name!r} needs at least two different pictures, "
                f"got {len(inputs)} that do not differ; check the picture files"
            )
        columns = np.concatenate([_standardise(part) for part in parts], axis=1)
        dimensions = min(self.dimensions, len(columns) - 1, columns.shape[1])
        if dimensions < self.dimensions:
            logger.info(
                "%d pictures admit %d dimensions, not %d",
                len(columns),
                dimensions,
                self.dimensions,
            )
        pca = PCA(dimensions, svd_solver="randomized", random_state=self.seed)
        vectors = pca.fit_transform(columns)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-6)

    def _describe(self, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        small = load_image(path).resize((self.size, self.size), Image.Resampling.BOX)
        thumbnail = np.asarray(small.resize((8, 8), Image.Resampling.BOX), dtype=np.float32)
        return thumbnail.ravel(), _colour_histogram(small), _gradient_histogram(small)


def map_images(
    function: Callable[[Path], Result], paths: Sequence[Path], progress: bool, description: str
) -> list[Result]:
    """Apply a function to files in a pool of threads; results come in the order of the files."""
    with ThreadPoolExecutor() as pool:  # decoding and hashing release the interpreter lock
        results = pool.map(function, paths)
        return list(tqdm(results, description, total=len(paths), disable=not progress))


def _scan(wanted: set[str], folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.stem not in wanted or path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in found:
            raise ValueError(
                f"item {path.stem!r} must have one picture, found {found[path.stem].name} and "
                f"{path.name} in {folder}; remove one"
            )
        found[path.stem] = path
    return found


def _read_list(wanted: set[str], folder: Path, image_list: Path) -> dict[str, Path]:
    rows = read_csv(image_list, ["item_id", "image_file"])
    check_ids([row["item_id"] for row in rows], str(image_list))
    listed = {row["item_id"]: folder / row["image_file"] for row in rows if row["image_file"]}
    found = {item: path for item, path in listed.items() if item in wanted}
    lost = [item for item, path in found.items() if not path.is_file()]
    if lost:
        raise ValueError(
            f"{image_list} names pictures that do not exist under {folder}, for items "
            f"{name_few(lost)}, the first {found[lost[0]]}; "
            f"leave image_file empty for an item without a picture"
        )
    return found


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _colour_histogram(image: Image.Image) -> np.ndarray:
    """Square roots of shares, so that rare colours count, 8 hues x 4 saturations x 4 values."""
    hue, saturation, value = np.moveaxis(np.asarray(image.convert("HSV"), dtype=np.int64), 2, 0)
    bins = (hue // 32) * 16 + (saturation // 64) * 4 + value // 64
    counts = np.bincount(bins.ravel(), minlength=128)
    return np.sqrt(counts / counts.sum()).astype(np.float32)


def _gradient_histogram(image: Image.Image) -> np.ndarray:
    """Gradient strength by orientation, modulo a half turn, in every cell."""
    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
    down, right = np.gradient(grey)
    turn = np.arctan2(down, right) / np.pi % 1.0
    orientation = np.minimum((turn * ORIENTATIONS).astype(np.int64), ORIENTATIONS - 1)
    cell = np.arange(len(grey)) * CELLS // len(grey)
    bins = (cell[:, None] * CELLS + cell) * ORIENTATIONS + orientation
    strength = np.bincount(
        bins.ravel(), weights=np.hypot(down, right).ravel(), minlength=CELLS**2 * ORIENTATIONS
    )
    return np.sqrt(strength).astype(np.float32)


def _standardise(columns: np.ndarray) -> np.ndarray:
    """Columns to mean 0 and deviation 1, then scaled so that every part has variance 1."""
    centred = columns - columns.mean(axis=0)
    deviation = centred.std(axis=0)
    scaled = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-6)
    return scaled / np.sqrt(columns.shape[1])
