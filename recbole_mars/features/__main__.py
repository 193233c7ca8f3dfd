"""python -m recbole_mars.features: from a table of items and a folder of pictures to features."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from recbole_mars.features.build import build_image_features, build_text_features
from recbole_mars.features.catalogue.catalogue_file import read_catalogue
from recbole_mars.features.neighbours_page import write_neighbours_page
from recbole_mars.features.report import describe_built, side_by_side
from recbole_mars.features.settings import FeatureSettings

__all__ = ["main"]

NUMBERS = ("bool", "int", "float")  # read as in YAML; a word may well look like one: 2024, no
DESCRIPTION = """\
Turns the texts and pictures of a catalogue into feature stores, <output>/text and <output>/image.

    python -m recbole_mars.features --table items.csv --text_fields title plot --output features
    python -m recbole_mars.features --table items.csv --image_dir posters --output features \\
        --image_encoder openai/clip-vit-base-patch32

Text is encoded if text_fields or text_prompt is given, pictures if image_dir is. Every flag below
"settings" is also a key of the YAML files, which RecBole runs read, too; so are table, id_field
and output. Stopped, or with changed
items, the same command does what is missing.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 2 for input that cannot be used."""
    given = _parser().parse_args(arguments)
    level = logging.INFO if given.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s")
    try:
        print(_run(given))
    except (ValueError, OSError) as error:  # the latter of a full disk, a folder without rights
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m recbole_mars.features",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--table", type=Path, help="the items: .item, .tsv, .csv or .jsonl")
    add("--id_field", "--id-field", help="column with the ids; by default item_id or id")
    add("--output", type=Path, help="folder that gets text/ and image/")
    add("--config_files", "--config-files", nargs="+", default=[], help="YAML files with settings")
    add("--shard", type=_shard, help="i/n: do the i-th of n parts, as one of n jobs")
    add("--verbose", action="store_true", help="say what is reused and why not")
    group = parser.add_argument_group("settings")
    for option in FeatureSettings.options():
        names = dict.fromkeys([f"--{option.name}", f"--{option.name.replace('_', '-')}"])
        shown = "" if option.default is None else f" ({option.default})"
        name = str(option.type).split(" ")[0]
        kind: dict[str, Any] = {"type": _value if name in NUMBERS else str, "metavar": name}
        if name == "bool":
            kind.update(nargs="?", const=True)
        elif name == "list":
            kind.update(nargs="+")
        group.add_argument(*names, help=str(option.metadata["help"]) + shown, **kind)
    return parser


def _value(text: str) -> Any:
    """A flag's value, read as it would be in YAML, so that 8 is a number and ~ is nothing."""
    value = yaml.safe_load(text) if re.fullmatch(r"[\w.+~-]+", text) else text
    return value if isinstance(value, (bool, int, float, type(None))) else text


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"must be i/n, as in 1/4 ... 4/4, got {text!r}")
    return int(match[1]), int(match[2])


def _run(given: argparse.Namespace) -> str:
    keys: dict[str, Any] = {}
    for file in given.config_files:
        keys.update(_read_yaml(Path(file)))
    flags = {option.name: getattr(given, option.name) for option in FeatureSettings.options()}
    keys.update({key: value for key, value in flags.items() if value is not None})
    settings = FeatureSettings.from_keys(keys)
    names = settings.text_columns()
    if not names and settings.image_dir is None:
        raise ValueError(
            "nothing to encode: name the columns of the items' text with --text_fields or "
            "--text_prompt, the folder of their pictures with --image_dir, or both"
        )
    files = {name: _path(name, keys, getattr(given, name)) for name in ("table", "output")}
    table, output = files["table"], files["output"]
    if output is None:
        raise ValueError("--output must name the folder that gets the features")
    if table is None:
        raise ValueError(
            "--table must name the file with the items (.item, .tsv, .csv or .jsonl): "
            "one row an item, with its id"
        )
    idle = settings.without_effect(key for key, value in keys.items() if value is not None)
    if idle:
        print(f"note: {', '.join(idle)} change nothing with these settings", file=sys.stderr)
    ids, columns = read_catalogue(table, given.id_field or keys.get("id_field"), names)
    built = {}
    if names:
        built["text"] = build_text_features(
            ids, columns, settings, output / "text", shard=given.shard, progress=True
        )
    if settings.image_dir is not None:
        built["image"] = build_image_features(
            ids,
            settings.image_dir,
            settings,
            output / "image",
            shard=given.shard,
            progress=True,
        )
    done = {kind: one for kind, one in built.items() if one.result is not None}
    lines = []
    if done:
        stores = {kind: one.store for kind, one in done.items()}
        texts = built["text"].inputs if "text" in built else None
        images = built["image"].inputs if "image" in built else None
        page = write_neighbours_page(output / "neighbours.html", stores, texts, images)
        lines.append(side_by_side({kind: describe_built(one) for kind, one in done.items()}))
        lines.append(f"\nSee {page}: items beside those that are nearest by these features.")
    for kind, one in built.items():
        if one.result is None:
            lines.append(
                f"{kind}: encoded {one.extraction.encoded:,} inputs in this job; "
                f"{one.extraction.shards_left} of its shards are left to the other jobs, "
                f"the last of which writes {output / kind}"
            )
    return "\n".join(lines)


def _path(name: str, keys: dict[str, Any], flag: Path | None) -> Path | None:
    """What the flag says, else the YAML files."""
    value = flag or keys.get(name)
    if value is not None and not isinstance(value, (str, Path)):
        raise ValueError(f"{name} must be a path, got {value!r}")
    return Path(value) if value is not None else None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read {file} as YAML: {error}") from error
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"{file} must hold keys and values, got {type(content).__name__}")
    return content or {}


if __name__ == "__main__":
    sys.exit(main())
