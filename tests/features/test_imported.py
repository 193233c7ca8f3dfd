"""Ready-made features are checked as strictly as our own."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from recbole_mars.features import check_against_catalogue, import_features, imported

MATRIX = np.array([[1, 2, 3], [0, 0, 0], [4, 5, 6]], dtype=np.float16)


def save(folder: Path, matrix: np.ndarray = MATRIX, ids: str = "a\nb\nc\n") -> tuple[Path, Path]:
    np.save(folder / "matrix.npy", matrix)
    (folder / "ids.txt").write_bytes(ids.encode())
    return folder / "matrix.npy", folder / "ids.txt"


@pytest.mark.parametrize("ids", ["a\nb\nc\n", "a\nb\nc", "a\r\nb\r\nc\r\n", "\ufeffa\nb\nc"])
def test_plain_ids(tmp_path, ids: str) -> None:
    features = import_features(*save(tmp_path, ids=ids), name="text")
    assert features.ids == ("a", "b", "c")
    assert isinstance(features.matrix, np.memmap)
    np.testing.assert_array_equal(features.present, [True, False, True])
    matrix, present = features.select(["c", "b", "z"])
    np.testing.assert_array_equal(matrix, [[4, 5, 6], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(present, [True, False, False])
    assert (features.name, features.dimensions) == ("text", 3)


@pytest.mark.parametrize(
    "table",
    ["item_id,x\na,1\nb,2\nc,3\n", "row,item_id\n2,c\n0,a\n1,b\n", "item_id\r\na\r\nb\r\nc"],
)
def test_ids_in_csv(tmp_path, table: str) -> None:
    matrix_file, _ = save(tmp_path)
    (tmp_path / "ids.CSV").write_text(table)
    assert import_features(matrix_file, tmp_path / "ids.CSV", name="text").ids == ("a", "b", "c")


@pytest.mark.parametrize("rows", [(0, 1, 1), (1, 2, 3), (0, 1, "x"), (0, 1, "")])
def test_rows_must_be_a_permutation(tmp_path, rows: tuple) -> None:
    matrix_file, _ = save(tmp_path)
    table = "".join(f"{row},{item}\n" for row, item in zip(rows, "abc"))
    (tmp_path / "ids.csv").write_text(f"row,item_id\n{table}")
    with pytest.raises(ValueError, match=r"'row' of .*ids\.csv must hold each of 0\.\.2 once"):
        import_features(matrix_file, tmp_path / "ids.csv", name="text")


@pytest.mark.parametrize("block", [1, 2, 65_536])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(tmp_path, monkeypatch, value: float, block: int) -> None:
    monkeypatch.setattr(imported, "BLOCK", block)
    matrix = MATRIX.copy()
    matrix[2, 1] = value
    with pytest.raises(ValueError, match=r"'text' must be finite.*for items 'c' in"):
        import_features(*save(tmp_path, matrix), name="text")


def test_missing_items_across_blocks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(imported, "BLOCK", 2)
    features = import_features(*save(tmp_path), name="text")
    np.testing.assert_array_equal(features.present, [True, False, True])


@pytest.mark.parametrize(
    ("matrix", "ids", "complaint"),
    [
        (MATRIX[:2], "a\nb\nc", r"row per id, found shape \(2, 3\) and 3 ids"),
        (MATRIX, "a\nb\nc\n\n", r"found shape \(3, 3\) and 4 ids"),
        (MATRIX, "a\nb\na", "found again: 'a'"),
        (MATRIX.astype(np.int32), "a\nb\nc", "must be floats, got int32"),
        (MATRIX[:, 0], "a\nb\nc", r"must have shape \(3, D\)"),
        (np.float32(1.0), "a", r"found shape \(\) and 1 ids"),
        (np.array([["x", object()]] * 3, dtype=object), "a\nb\nc", "save them with numpy.save"),
    ],
)
def test_mismatches(tmp_path, matrix, ids: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        import_features(*save(tmp_path, matrix, ids), name="text")


def test_unreadable_files(tmp_path) -> None:
    matrix_file, ids_file = save(tmp_path)
    for content in (b"", b"text", matrix_file.read_bytes()[:-3]):
        (tmp_path / "bad.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read features 'text' from .*bad\.npy"):
            import_features(tmp_path / "bad.npy", ids_file, name="text")
    with pytest.raises(ValueError, match=r"cannot read features 'text' from .*no\.npy"):
        import_features(tmp_path / "no.npy", ids_file, name="text")
    np.savez(tmp_path / "several.npz", a=MATRIX)
    with pytest.raises(ValueError, match=r"must be a single \.npy array"):
        import_features(tmp_path / "several.npz", ids_file, name="text")
    ids_file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"cannot read .*ids\.txt as a list of ids"):
        import_features(matrix_file, ids_file, name="text")
    with pytest.raises(ValueError, match=r"cannot read .*no\.txt as a list of ids"):
        import_features(matrix_file, tmp_path / "no.txt", name="text")


def test_catalogue(tmp_path, caplog) -> None:
    features = import_features(*save(tmp_path), name="text")
    with caplog.at_level(logging.INFO):
        check_against_catalogue(features, ["d", "c", "b", "a"])
    assert "2 of 4 items have features 'text'" in caplog.text
    with pytest.raises(ValueError, match="found 2 of 3 ids that it lacks: 'a', 'c'; check"):
        check_against_catalogue(features, ["b"])
    check_against_catalogue(features, ["b"], allow_unknown=True)
