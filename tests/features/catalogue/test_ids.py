"""Checks of item ids and of the lists they are read from."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_mars.features.catalogue.ids import check_ids, name_few, read_csv


def test_good_ids_pass() -> None:
    check_ids(["1", "01", "a b", "ü\t\u2028", ""], "ids")
    check_ids(np.array(["1", "2"]), "ids")


def test_repeated_ids_are_named() -> None:
    with pytest.raises(ValueError, match=r"catalogue must name an item once, found again: 'b'$"):
        check_ids(["a", "b", "c", "b"], "catalogue")


@pytest.mark.parametrize("item", [1, 1.0, None, float("nan"), b"1"])
def test_other_than_strings_are_refused(item: object) -> None:
    with pytest.raises(ValueError, match="convert the ids with str"):
        check_ids(["a", item], "ids")  # type: ignore[list-item]


def test_newlines_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must hold no newlines, found 'a\\nb'"):
        check_ids(["a\nb"], "ids")


def test_naming_a_few() -> None:
    assert name_few(["a"]) == "'a'"
    assert name_few(["a", "b", "c"]) == "'a', 'b', 'c'"
    assert name_few(["a", "b", "c", "d", "e"]) == "'a', 'b', 'c' and 2 more"


def test_reading_csv(tmp_path) -> None:
    path = tmp_path / "ids.csv"
    path.write_bytes('\ufeffitem_id,title\r\n007,"Bond, James"\r\nü,\r\n'.encode())
    assert read_csv(path, ["item_id"]) == [
        {"item_id": "007", "title": "Bond, James"},
        {"item_id": "ü", "title": ""},
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"id,title\n1,x\n", r"must have the columns \['item_id'\], found only \['id', 'title'\]"),
        (b"", r"found only \[\]"),
        (b"item_id,title\n1\n", r"line 2: need 2 fields"),
        (b"item_id,title\n1,x\n2,y,z\n", r"line 3: need 2 fields"),
        (b"item_id\n\xff\n", "as a CSV file in UTF-8"),
        (b'item_id\n"1\n', "as a CSV file in UTF-8"),
    ],
)
def test_bad_csv(tmp_path, content: bytes, complaint: str) -> None:
    path = tmp_path / "ids.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_csv(path, ["item_id"])


def test_missing_csv(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*no\.csv"):
        read_csv(tmp_path / "no.csv", ["item_id"])


def test_halves_of_characters_are_refused() -> None:
    with pytest.raises(ValueError, match="valid Unicode, found halves of characters"):
        check_ids(["a", "b\ud83d"], "ids")
    check_ids(["a", "b\U0001f600"], "ids")
