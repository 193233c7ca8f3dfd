"""Item ids: checking them, naming them in errors, reading lists of them."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

csv.field_size_limit(2**31 - 1)  # a description may be longer than the 128 kB that are usual

_HALVES = re.compile("[\ud800-\udfff]")  # of an emoji that was cut, for example

__all__ = ["check_ids", "check_strings", "name_few", "read_csv"]


def check_ids(ids: Sequence[str], where: str) -> None:
    """Raise ValueError unless the ids are strings without newlines and no two are equal.

    where: what holds the ids, for the error.
    """
    check_strings(ids, where)
    halves = [item for item in ids if not item.isascii() and _HALVES.search(item)]
    if halves:
        raise ValueError(
            f"{where} must be valid Unicode, found halves of characters in {name_few(halves)}; "
            f"see how the file was cut or encoded"
        )
    broken = [item for item in ids if "\n" in item]
    if broken:  # lists of ids are written line by line
        raise ValueError(f"{where} must hold no newlines, found {name_few(broken)}")
    if len(set(ids)) < len(ids):
        repeated = [item for item, count in Counter(ids).items() if count > 1]
        raise ValueError(f"{where} must name an item once, found again: {name_few(repeated)}")


def check_strings(ids: Sequence[str], where: str) -> None:
    """Raise ValueError unless all ids are strings: the id 1 would silently not be the id '1'."""
    for item in ids:
        if not isinstance(item, str):
            raise ValueError(
                f"{where} must hold strings, got {item!r} of type {type(item).__name__}; "
                f"convert the ids with str"
            )


def name_few(ids: Sequence[str], few: int = 3) -> str:
    """The first few ids and how many more there are: `'a', 'b', 'c' and 12 more`."""
    named = ", ".join(repr(str(item)) for item in ids[:few])
    return named if len(ids) <= few else f"{named} and {len(ids) - few} more"


def read_csv(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a UTF-8 CSV file that must have these columns.

    Raises ValueError if the file cannot be read, lacks a column, or a row is cut or too long.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(
                        f"{path}, line {reader.line_num}: need {len(reader.fieldnames or ())} "
                        f"fields as in the header; put quotes around values that hold {delimiter!r}"
                    )
                rows.append(row)
            header = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path} as a CSV file in UTF-8: {error}") from error
    lacking = [column for column in columns if column not in header]
    if lacking:
        raise ValueError(f"{path} must have the columns {lacking}, found only {header}")
    return rows
