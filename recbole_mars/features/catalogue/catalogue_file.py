"""A table of items read as it stands: ids keep their zeros, and 'NA' is a word like any other."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recbole_mars.features.catalogue.ids import check_ids

__all__ = ["TYPES", "read_catalogue", "split_types", "tabbed_lines"]

TYPES = ("token", "token_seq", "float", "float_seq")
ID_FIELDS = ("item_id", "id")


def read_catalogue(
    path: str | Path, id_field: str | None = None, fields: Sequence[str] | None = None
) -> tuple[list[str], dict[str, list[str]]]:
    """Read the ids of a catalogue and what its columns say of each item, all as strings.

    path: by its suffix, in UTF-8,

    - .item, .tsv: fields between tabs, a quote is a character like any other; the header may hold
      RecBole's types, `item_id:token`.
    - .csv: fields between commas, quotes around fields that hold a comma, quote or line break.
    - .jsonl: an object a line; numbers stay as written, a key that is lacking or null is ''.

    Blank lines are skipped.

    id_field: the column with the ids; without it `item_id`, else `id`, else the first one of type
    `token`. fields: the columns to read; without it all but the ids.

    Returns n ids, all different, and name → n values, '' where the file has none.

    Raises ValueError if the file cannot be read, holds no item, lacks a column, a line does not
    fit the header, or an id is empty or stands twice; names the file and the line.
    """
    path = Path(path)
    readers = {
        ".item": tabbed_lines,
        ".tsv": tabbed_lines,
        ".csv": _comma_separated,
        ".jsonl": _objects,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"a catalogue must be one of {sorted(readers)}, got {path}; convert it")
    try:
        lines = reader(path)
        _, header = next(lines, (0, []))
        names, types = split_types(header)
        id_field = _id_column(path, names, types, id_field)
        wanted = [name for name in names if name != id_field] if fields is None else list(fields)
        at = [_position(path, names, name) for name in [id_field, *wanted]]
        columns: list[list[str]] = [[] for _ in at]
        for number, line in lines:
            if len(line) != len(names):
                raise ValueError(
                    f"{path}, line {number}: need {len(names)} fields as in the header, "
                    f"found {len(line)}; repair the line"
                )
            if line[at[0]] in ("", None):
                raise ValueError(
                    f"{path}, line {number}: need an id in column {id_field!r}, found none; "
                    f"give the item an id or drop it"
                )
            for column, position in zip(columns, at):
                value = line[position]
                if not isinstance(value, str) and value is not None:
                    raise ValueError(
                        f"{path}, line {number}: {names[position]!r} must be text or a number, "
                        f"got {value!r}; join lists into one text"
                    )
                column.append(value or "")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path} as a catalogue in UTF-8: {error}") from error
    ids, *values = columns
    if not ids:
        raise ValueError(f"{path} must hold at least one item, found only a header")
    check_ids(ids, f"column {id_field!r} of {path}")
    return ids, dict(zip(wanted, values))


def split_types(header: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names and types, '' for none, of columns like `item_id:token`."""
    names, types = [], []
    for column in header:
        name, _, kind = column.rpartition(":")
        typed = bool(name) and kind in TYPES
        names.append(name if typed else column)
        types.append(kind if typed else "")
    return names, types


def _id_column(path: Path, names: list[str], types: list[str], id_field: str | None) -> str:
    if id_field is not None:
        return id_field
    tokens = [name for name, kind in zip(names, types) if kind == "token"]
    for name in [*ID_FIELDS, *tokens[:1]]:
        if name in names:
            return name
    raise ValueError(
        f"{path} must have a column with the items' ids, found {names}; "
        f"name the column by id_field, or call it 'item_id'"
    )


def _position(path: Path, names: list[str], name: str) -> int:
    if names.count(name) != 1:
        found = "has no column" if name not in names else "must have only one column"
        raise ValueError(f"{path} {found} {name!r}, its columns are {names}; correct the name")
    return names.index(name)


def tabbed_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line, the header first."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            line = line[:-1] if line.endswith("\n") else line
            line = line[:-1] if line.endswith("\r") else line
            if line:
                yield number, line.split("\t")


def _comma_separated(path: Path) -> Iterator[tuple[int, list[str]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        for line in reader:
            if line:
                yield reader.line_num, line


def _objects(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """As if the objects were lines below a header that holds the keys of all of them."""
    header = list(dict.fromkeys(key for _, item in _read_objects(path) for key in item))
    yield 0, header
    for number, item in _read_objects(path):
        yield number, [item.get(key) for key in header]


def _read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # In two passes over the file: rather that than to hold every object of a large catalogue.
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                item = json.loads(line, parse_int=str, parse_float=str, parse_constant=_constant)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: need a JSON object: {error}") from error
            if not isinstance(item, dict):
                raise ValueError(f"{path}, line {number}: need a JSON object, found {line[:40]!r}")
            yield number, item


def _constant(name: str) -> str | None:
    return None if name == "NaN" else name  # how Python writes a missing number
