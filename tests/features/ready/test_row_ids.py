"""Which row is of which item, as the files in use say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_mars.features.ready.row_ids import read_row_ids

MMREC = "asin\titemID\n1881509818\t0\nB00A\t2\n0594033926\t1\n"


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


@pytest.mark.parametrize(
    ("name", "text", "column", "expected"),
    [
        ("i_id_mapping.csv", MMREC, None, "0 1 2"),
        ("i_id_mapping.csv", MMREC, "itemID", "0 1 2"),
        ("i_id_mapping.csv", MMREC, "asin", "1881509818 0594033926 B00A"),
        ("ids.csv", MMREC.replace("\t", ","), "asin", "1881509818 0594033926 B00A"),
        ("ids.tsv", "item_id\trow\n007\t1\n7\t0\n", None, "7 007"),
        ("ids.tsv", "item_id\trow\n007\t1\n7\t0\n", "row", "0 1"),
        ("ids.csv", "\ufeffitem_id,x\r\n007,a\r\n7,b\r\n", None, "007 7"),
        ("ids.csv", "itemID,title\n9,a\n5,b\n", "itemID", "9 5"),
        ("ids.csv", "asin,itemID,item_id\na,1,x\nb,0,y\n", None, "x y"),
        ("ids.txt", "007\n7", None, "007 7"),
    ],
)
def test_ids_by_row(tmp_path, name: str, text: str, column: str | None, expected: str) -> None:
    path = write(tmp_path, name, text)
    assert read_row_ids(path, column) == tuple(expected.split())
    assert read_row_ids(str(path), column) == tuple(expected.split())


@pytest.mark.parametrize(
    ("name", "text", "column", "complaint"),
    [
        ("x.csv", MMREC.replace("\t2", "\t3"), None, r"'itemID' .* 0\.\.2 once, .* for '3', first"),
        (
            "x.csv",
            MMREC.replace("\t2", "\t3"),
            "asin",
            "once, found otherwise for 'B00A', first '3'",
        ),
        (
            "x.csv",
            MMREC.replace("\t2", "\t0"),
            "asin",
            "once, found otherwise for 'B00A', first '0'",
        ),
        ("x.csv", "item_id,row\na,-1\nb,x\nc,0\nd,00\ne,9\n", None, "for 'a', 'b', 'd' and 1 more"),
        (
            "x.csv",
            "itemID,title\n9,a\n",
            None,
            r"have the column 'item_id', .*\['itemID', 'title'\]",
        ),
        ("x.tsv", "item_id\trow\n7\t0\n", "asin", "have the column 'asin', .* by id_column"),
        ("x.csv", "item_id,row\n", None, "at least one id"),
        ("x.csv", "", None, "at least one id"),
        ("x.tsv", "item_id\trow\n7\n", None, r"line 2: need 2 fields .* values that hold '\\t'"),
        ("x.txt", "a\n", "asin", "id_column needs a table .* got 'asin' for .*x.txt"),
    ],
)
def test_what_is_wrong(tmp_path, name, text, column, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_row_ids(write(tmp_path, name, text), column)


@pytest.mark.parametrize("name", ["x.csv", "x.txt"])
def test_unreadable(tmp_path, name: str) -> None:
    with pytest.raises(ValueError, match=f"cannot read .*{name} as a"):
        read_row_ids(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xff")
    with pytest.raises(ValueError, match=f"cannot read .*{name} as a"):
        read_row_ids(tmp_path / name)
