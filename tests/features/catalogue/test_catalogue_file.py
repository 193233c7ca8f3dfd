"""A catalogue is read as it stands: no id loses a zero and no title becomes a NaN."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from recbole_mars.features import read_catalogue

ITEM = "item_id:token\ttitle:token_seq\tyear:float\n"


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.item", ITEM + '007\tNA\t1995\n1e3\t"Crocodile" Dundee\t\nnan\t a, b \t1.50\n'),
        ("x.ITEM", ITEM + '\n007\tNA\t1995\n1e3\t"Crocodile" Dundee\t\n\nnan\t a, b \t1.50'),
        ("x.tsv", 'id\ttitle\tyear\n007\tNA\t1995\n1e3\t"Crocodile" Dundee\t\nnan\t a, b \t1.50\n'),
        ("x.csv", 'id,title,year\n007,NA,1995\n1e3,"""Crocodile"" Dundee",\nnan," a, b ",1.50\n'),
        (
            "x.jsonl",
            '{"id": "007", "title": "NA", "year": 1995}\n\n'
            '{"title": "\\"Crocodile\\" Dundee", "id": 1e3, "year": null}\n'
            '{"id": "nan", "year": 1.50, "title": " a, b "}',
        ),
    ],
)
def test_all_formats(tmp_path, name: str, text: str, end: str, bom: str) -> None:
    ids, columns = read_catalogue(write(tmp_path, name, bom + text.replace("\n", end)))
    assert ids == ["007", "1e3", "nan"]
    assert columns == {
        "title": ["NA", '"Crocodile" Dundee', " a, b "],
        "year": ["1995", "", "1.50"],
    }
    assert list(columns) == ["title", "year"]


def test_chosen_columns(tmp_path) -> None:
    path = write(tmp_path, "x.item", ITEM + "1\ta\t1995\n2\ta\t1996\n")
    assert read_catalogue(path, fields=["year"]) == (["1", "2"], {"year": ["1995", "1996"]})
    assert read_catalogue(path, fields=[]) == (["1", "2"], {})
    ids, columns = read_catalogue(path, "year", ["item_id", "year"])
    assert ids == ["1995", "1996"]
    assert columns == {"item_id": ["1", "2"], "year": ["1995", "1996"]}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("id:token\titem_id:token\tasin:token", "item_id"),
        ("asin:token\ttitle:token_seq\tid:token", "id"),
        ("title:token_seq\tasin:token\tbrand:token", "asin"),
        ("a:b\tasin:token\t:token", "asin"),
    ],
)
def test_which_column_holds_the_ids(tmp_path, header: str, expected: str) -> None:
    names = [column.rpartition(":")[0] or column for column in header.split("\t")]
    path = write(tmp_path, "x.item", f"{header}\n" + "\t".join(names))
    assert read_catalogue(path)[0] == [expected]


def test_only_types_are_cut_off(tmp_path) -> None:
    path = write(tmp_path, "x.csv", "item_id:token,what: a film,time:sec\n1,2,3\n")
    assert read_catalogue(path) == (["1"], {"what: a film": ["2"], "time:sec": ["3"]})


def test_anything_comes_back(tmp_path) -> None:
    titles = [
        'a "quoted" \t title, with\nlines\r\nand \u2028 \x85 \x1c',
        "ü 漢 🎬",
        "",
        " ",
        "null",
    ]
    rows = [(str(number), title) for number, title in enumerate(titles)]
    with open(tmp_path / "x.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("item_id", "title"), *rows])
    lines = [json.dumps({"item_id": item, "title": title}) for item, title in rows]
    write(tmp_path, "x.jsonl", "\n".join(lines))
    for name in ("x.csv", "x.jsonl"):
        ids, columns = read_catalogue(tmp_path / name)
        assert list(zip(ids, columns["title"])) == rows
    flat = [title.replace("\n", " ").replace("\t", " ") for title in titles]
    path = write(
        tmp_path,
        "x.tsv",
        "id\ttitle\n" + "".join(f"{t[:1]}x{k}\t{t}\n" for k, t in enumerate(flat)),
    )
    assert read_catalogue(path)[1]["title"] == flat


def test_objects_of_different_keys(tmp_path) -> None:
    text = '{"id": 10, "a": "x", "list": [1]}\n{"b": NaN, "id": 20}\n{"id": 0.10, "b": Infinity}'
    path = write(tmp_path, "x.jsonl", text)
    ids, columns = read_catalogue(path, fields=["b", "a"])
    assert ids == ["10", "20", "0.10"]
    assert columns == {"b": ["", "", "Infinity"], "a": ["x", "", ""]}
    with pytest.raises(ValueError, match=r"line 1: 'list' must be text or a number, got \['1'\]"):
        read_catalogue(path)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("x.item", ITEM + "1\ta\t5\n2\ta\n", r"x\.item, line 3: need 3 fields .* found 2"),
        ("x.item", ITEM + "1\ta\tb\tc\n", r"line 2: need 3 fields .* found 4"),
        ("x.csv", "id,a\n1,x\n\n2,x,y\n", r"x\.csv, line 4: need 2 fields .* found 3"),
        ("x.csv", 'id,a\n1,"x\n', r"cannot read .*x\.csv as a catalogue"),
        ("x.csv", 'id,a\n1,"x"y\n', r"cannot read .*x\.csv as a catalogue"),
        ("x.jsonl", '{"id": 1}\n{"id": 2', r"x\.jsonl, line 2: need a JSON object: Exp"),
        ("x.jsonl", "[1]", r"line 1: need a JSON object, found '\[1\]'"),
        ("x.jsonl", '{"id": true}', "'id' must be text or a number, got True"),
        ("x.jsonl", '{"id": "1"}\n{"id": null}', "line 2: need an id in column 'id', found none"),
        ("x.csv", "id,a\n,x\n", "line 2: need an id in column 'id', found none"),
        ("x.item", ITEM + "1\ta\t5\n2\ta\t5\n1\tb\t5\n", "column 'item_id' of .*again: '1'"),
        ("x.csv", "name,a\n1,x\n", r"must have a column .* found \['name', 'a'\]; name the col"),
        ("x.csv", "id,a,a\n1,x,y\n", "must have only one column 'a'"),
        ("x.item", ITEM, "at least one item, found only a header"),
        ("x.item", "", r"must have a column with the items' ids, found \[\]"),
        ("x.jsonl", "\n", r"must have a column with the items' ids, found \[\]"),
        ("x.parquet", "", r"one of \['\.csv', '\.item', '\.jsonl', '\.tsv'\], got .*x\.parquet"),
    ],
)
def test_what_is_wrong(tmp_path, name: str, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_catalogue(write(tmp_path, name, text))


def test_wrong_names(tmp_path) -> None:
    path = write(tmp_path, "x.item", ITEM + "1\ta\t5\n")
    columns = r"its columns are \['item_id', 'title', 'year'\]"
    with pytest.raises(ValueError, match=f"has no column 'titel', {columns}; correct"):
        read_catalogue(path, fields=["titel"])
    with pytest.raises(ValueError, match=f"has no column 'asin', {columns}"):
        read_catalogue(path, "asin")
    with pytest.raises(ValueError, match=r"cannot read .*none\.item as a catalogue"):
        read_catalogue(tmp_path / "none.item")
    path.write_bytes(b"id\n\xff")
    with pytest.raises(ValueError, match="as a catalogue in UTF-8"):
        read_catalogue(path)


def test_real_catalogues(shared_data: Path) -> None:
    ids, columns = read_catalogue(shared_data / "ml-1m" / "ml-1m.item")
    assert (len(ids), ids[0], columns["movie_title"][0]) == (3883, "1", "Toy Story")
    ids, columns = read_catalogue(shared_data / "amazon-beauty" / "amazon-beauty.item")
    assert (len(ids), ids[0], list(columns)) == (2423, "B000050B6U", ["keywords"])
    ids, columns = read_catalogue(shared_data / "ml-1m" / "features" / "ids.csv", fields=["row"])
    assert columns["row"] == [str(row) for row in range(3883)]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_very_long_text(tmp_path, suffix: str) -> None:
    text = "word " * 100_000
    rows = {
        "csv": f'item_id,plot\na,"{text}"\n',
        "tsv": f"item_id\tplot\na\t{text}\n",
        "jsonl": json.dumps({"item_id": "a", "plot": text}) + "\n",
    }
    path = tmp_path / f"items.{suffix}"
    path.write_text(rows[suffix])
    assert read_catalogue(path) == (["a"], {"plot": [text]})
