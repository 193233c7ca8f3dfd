"""Which item each row of a ready-made matrix is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recbole_mars.features.catalogue.ids import name_few, read_csv

__all__ = ["read_row_ids"]

TABLES = (".csv", ".tsv")
MMREC = {"asin", "itemID"}  # itemID: the row in MMRec's matrices, and the item in its .inter


def read_row_ids(path: str | Path, id_column: str | None = None) -> tuple[str, ...]:
    """Read the item ids in the order of the rows, UTF-8.

    path: a .csv or .tsv table, with commas or tabs, or any other text file with one id a line.
    The rows follow the table's column `row`, in MMRec's i_id_mapping.csv `itemID`, else its lines.

    id_column: the column with the ids. Without it `item_id`; in i_id_mapping.csv `itemID`, the
    numbers that MMRec's .inter files hold: name `asin` for the original ids.

    Raises ValueError if the file cannot be read, lacks the column, or the rows are not
    0..n - 1, each once: names the first ids with others.
    """
    path = Path(path)
    if path.suffix.lower() not in TABLES:
        if id_column is not None:
            raise ValueError(
                f"id_column needs a table ({' or '.join(TABLES)}), got {id_column!r} for {path}, "
                f"which holds one id a line; drop id_column"
            )
        return _lines(path)
    text = _first_line(path)
    rows = read_csv(path, [], "\t" if "\t" in text else ",")
    header = list(rows[0]) if rows else []
    if not header:
        raise ValueError(f"{path} must hold at least one id, found no line below a header")
    of_mmrec = set(header) >= MMREC and not {"item_id", "row"} & set(header)
    column = id_column or ("itemID" if of_mmrec else "item_id")
    if column not in header:
        raise ValueError(
            f"{path} must have the column {column!r}, found only {header}; "
            f"name the column with the ids by id_column"
        )
    ids = [row[column] for row in rows]
    numbered = "itemID" if of_mmrec else "row"
    if numbered not in header:
        return tuple(ids)
    return _ordered(path, ids, numbered, [row[numbered] for row in rows])


def _ordered(path: Path, ids: Sequence[str], column: str, rows: Sequence[str]) -> tuple[str, ...]:
    item_at: dict[str, str] = {}
    expected = {str(row) for row in range(len(ids))}
    unfit = []
    for item, row in zip(ids, rows):
        if row not in expected or row in item_at:
            unfit.append((item, row))
        item_at[row] = item
    if unfit:
        raise ValueError(
            f"the column {column!r} of {path} must hold each of 0..{len(ids) - 1} once, found "
            f"otherwise for {name_few([item for item, _ in unfit])}, first {unfit[0][1]!r}; "
            f"drop the column if the lines are in the order of the matrix"
        )
    return tuple(item_at[str(row)] for row in range(len(ids)))


def _lines(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path} as a list of ids in UTF-8: {error}") from error
    return tuple(lines if lines[-1] else lines[:-1])


def _first_line(path: Path) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path} as a table of ids in UTF-8: {error}") from error
