"""Item pictures: finding them and decoding them safely."""

from __future__ import annotations

import errno
import logging
import unicodedata
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from recbole_mars.features.catalogue.ids import check_ids, name_few, read_csv

__all__ = ["find_images", "load_image", "map_images"]

logger = logging.getLogger(__name__)

# Pillow would warn from half of its own limit on; we have one, and refuse.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Other errors of the system, too many open files or a network that is down, pass.
OF_THE_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.EINVAL)
AT_ONCE = 4096
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 89_478_485  # Pillow's own limit, at which it only warns: 256 MiB of RGB
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

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

    Of an animation, the first frame. Damaged EXIF data do not matter: the picture comes as stored.

    Raises ValueError, with the file's name, if it is no picture, cut short, or so large that it
    could fill the memory.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}"
                )
            image.load()
            return _to_rgb(_upright(image))
    except MemoryError:
        raise  # the picture may well be whole
    except Exception as error:  # on bad bytes, decoders raise whatever they stumble on
        if isinstance(error, OSError) and error.errno not in (None, *OF_THE_FILE):
            raise
        raise ValueError(
            f"cannot decode {path} as a picture: {error}; replace or remove the file"
        ) from error


def map_images(
    function: Callable[[Path], Result], paths: Sequence[Path], progress: bool, description: str
) -> list[Result]:
    """Apply a function to files in a pool of threads; results come in the order of the files."""
    with ThreadPoolExecutor() as pool:  # decoding and hashing release the interpreter lock
        with tqdm(total=len(paths), desc=description, disable=not progress) as bar:
            results: list[Result] = []
            for start in range(0, len(paths), AT_ONCE):  # a task waiting takes memory, too
                for result in pool.map(function, paths[start : start + AT_ONCE]):
                    results.append(result)
                    bar.update()
        return results


def _scan(wanted: set[str], folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    twice: dict[str, str] = {}
    # Some systems take "é" apart in file names, some do not.
    by_name = {unicodedata.normalize("NFC", item): item for item in wanted}
    for path in sorted(folder.iterdir()):
        item = by_name.get(unicodedata.normalize("NFC", path.stem))
        if item is None or path.suffix.lower() not in SUFFIXES:
            continue
        if path.exists() and not path.is_file():  # a folder, a pipe; a dangling link is a picture
            continue
        if item in found:
            twice.setdefault(item, f"{found[item].name} and {path.name}")
        found[item] = path
    if twice:
        files = next(iter(twice.values()))
        raise ValueError(
            f"an item must have one picture, found two of {name_few(list(twice))} in {folder}, "
            f"{files} of the first; remove one of each"
        )
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


def _upright(image: Image.Image) -> Image.Image:
    # Pillow's own exif_transpose also writes the EXIF data anew, which fails on much that is
    # found in pictures of the web.
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # on bad bytes, it raises whatever it stumbles on
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        levels = np.asarray(image).clip(0, 65535)
        alpha = np.where(levels == image.info.get("transparency", -1), 0, 255)
        image = Image.fromarray((levels // 257).astype(np.uint8))
        image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
