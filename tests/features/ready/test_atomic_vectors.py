"""Vectors of RecBole's atomic files, which RecBole itself would pad or cut in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recbole.config import Config
from recbole.data import create_dataset

from recbole_mars.features.ready.atomic_vectors import is_atomic, read_atomic_vectors

HEADER = "iid:token\titem_emb:float_seq\n"


def write(folder: Path, text: str, name: str = "x.itememb") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "007\t1 -2.5 3e-2\nNA\t0 0 0\n",
        "\ufeff" + HEADER.replace("\n", "\r\n") + "007\t1 -2.5 3e-2\r\n\r\nNA\t0 0 0",
        "item_emb:float_seq\tiid:token\n1.0  -2.50 .03 \t007\n0 -0 0.0\tNA\n",
        "n:float\tiid:token\tt:token_seq\te:float_seq\n5\t007\ta b\t1 -2.5 0.03\n\tNA\t\t0 0 0",
    ],
)
def test_vectors(tmp_path, text: str) -> None:
    path = write(tmp_path, text)
    assert is_atomic(path)
    ids, matrix = read_atomic_vectors(path)
    assert ids == ("007", "NA")
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.float32([[1, -2.5, 0.03], [0, 0, 0]]))


def test_named_columns(tmp_path) -> None:
    path = write(tmp_path, "a:token\tb:token\tx:float_seq\ty:float_seq\n1\t2\t3\t4 5\n")
    ids, matrix = read_atomic_vectors(path, "b", "y")
    assert (ids, matrix.tolist()) == (("2",), [[4.0, 5.0]])
    with pytest.raises(ValueError, match=r"one column of type 'token', found 2 .* by id_column"):
        read_atomic_vectors(path, vector_column="y")
    with pytest.raises(ValueError, match=r"type 'float_seq', found 2 .* by vector_column"):
        read_atomic_vectors(path, "a")
    with pytest.raises(ValueError, match="type 'token' called 'y', found 0"):
        read_atomic_vectors(path, "y", "y")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("a\t1 2\nb\t3\n", "x.itememb, line 3, item 'b': need 2 numbers .* found 1"),
        ("a\t1 2\nb\t3 4 5\n", "line 3, item 'b': need 2 numbers as in the first vector, found 3"),
        ("a\t1 2\nb\t3 x\n", "line 3, item 'b': need numbers between spaces, .*'x'"),
        ("a\t1,2\n", "line 2, item 'a': need numbers between spaces, .*'1,2'"),
        ("a\t1 2_0\n", "line 2, item 'a': need numbers between spaces"),
        ("a\t1 2\nb\t \n", "line 3, item 'b': need at least one number, found none"),
        ("a\t1 nan\n", "line 2, item 'a': need finite numbers that fit float32, found nan"),
        ("a\t-inf 1\n", "line 2, item 'a': need finite numbers that fit float32, found -inf"),
        ("a\t1 1e39\n", r"line 2, item 'a': need finite numbers that fit float32, found 1e\+39"),
        ("a\t1\nb\t1\na\t1\n", "line 4, item 'a': need an id of its own, it stands in line 2, too"),
        ("\t1\n", "line 2, item '': need an id of its own, found none"),
        ("a 1 2\n", "line 2, starting with 'a 1 2': need 2 fields as in the header, found 1"),
        ("a\t1\t2\n", "line 2, starting with 'a': need 2 fields as in the header, found 3"),
        ("", "at least one vector, found only a header"),
    ],
)
def test_what_is_wrong(tmp_path, lines: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_atomic_vectors(write(tmp_path, HEADER + lines))


def test_what_is_no_atomic_file(tmp_path) -> None:
    for text in ("", "a\tb\n", "iid:token\titem_emb\n", "iid:token,e:floats\n"):
        assert not is_atomic(write(tmp_path, text)), text
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    assert not is_atomic(tmp_path / "x")
    with pytest.raises(ValueError, match=r"cannot read .*x as an atomic file in UTF-8"):
        read_atomic_vectors(tmp_path / "x")
    with pytest.raises(
        ValueError, match=r"'token', found 0 in the header \['iid:token e:float_seq"
    ):
        read_atomic_vectors(write(tmp_path, "iid:token e:float_seq\na 1 2\n"))


def test_as_recbole_reads_it(empty_cwd: Path) -> None:
    """The vectors are those that RecBole's preload_weight gives for the same file."""
    generator = np.random.default_rng(0)
    expected = generator.normal(size=(6, 4)).astype(np.float32)
    folder = empty_cwd / "toy"
    folder.mkdir()
    inter = "".join(f"u{k % 3}\t0{k}\n" for k in range(6))
    write(folder, f"user_id:token\titem_id:token\n{inter}", "toy.inter")
    lines = "".join(f"0{k}\t{' '.join(map(str, row))}\n" for k, row in enumerate(expected))
    path = write(folder, HEADER + lines, "toy.itememb")
    settings = {
        "data_path": str(empty_cwd),
        "load_col": {"inter": ["user_id", "item_id"], "itememb": ["iid", "item_emb"]},
        "additional_feat_suffix": ["itememb"],
        "alias_of_item_id": ["iid"],
        "preload_weight": {"iid": "item_emb"},
    }
    dataset = create_dataset(Config(model="BPR", dataset="toy", config_dict=settings))
    ids, matrix = read_atomic_vectors(path)
    np.testing.assert_array_equal(matrix, expected)
    rows = dataset.token2id("item_id", list(ids))
    np.testing.assert_allclose(dataset.get_preload_weight("iid")[rows], matrix)
