"""Ready-made features are checked as strictly as our own."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest

from recbole_mars.features import (
    FeatureStore,
    check_against_catalogue,
    import_features,
    read_catalogue,
    write_store,
)
from recbole_mars.features.ready import imported

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


def test_the_first_ids_are_named(tmp_path) -> None:
    matrix = np.ones((4, 2), dtype=np.float32)
    for ids, complaint in [
        ("abcdefgh", "8 ids in .*ids.txt; without a row: 'e', 'f', 'g' and 1 more; are they"),
        ("ab", "2 ids in .*ids.txt; row 2 is the first without an id; are they of one catalogue"),
        ("", "found shape .* and 0 ids in .*ids.txt; are they"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            import_features(*save(tmp_path, matrix, "".join(f"{item}\n" for item in ids)))
    matrix[[1, 3]] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity for items 'b', 'd' in"):
        import_features(*save(tmp_path, matrix, "a\nb\nc\nd\n"))


def test_items_called_after_their_rows(tmp_path) -> None:
    matrix_file, _ = save(tmp_path)
    features = import_features(matrix_file, "rows")
    assert (features.ids, features.name) == (("0", "1", "2"), "matrix.npy")
    assert isinstance(features.matrix, np.memmap)
    check_against_catalogue(features, ["2", "1", "0"])
    with pytest.raises(ValueError, match="found 1 of 3 ids that it lacks: '2'"):
        check_against_catalogue(features, ["0", "1"])
    np.save(matrix_file, np.float32(1))
    with pytest.raises(ValueError, match=r"must have shape|found shape \(\)"):
        import_features(matrix_file, "rows")
    with pytest.raises(ValueError, match=r"cannot read rows as a list of ids"):
        import_features(matrix_file, Path("rows"))


def test_list_of_ids(tmp_path) -> None:
    matrix_file, _ = save(tmp_path)
    matrix_file = matrix_file.rename(tmp_path / "matrix.bin")  # its content says what it is
    assert import_features(str(matrix_file), ["x", "y", "z"]).ids == ("x", "y", "z")
    with pytest.raises(ValueError, match="in the list of ids; without a row: 'q'"):
        import_features(matrix_file, ["x", "y", "z", "q"])
    with pytest.raises(ValueError, match="must hold strings, got 1 of type int"):
        import_features(matrix_file, [1, 2, 3])


def test_data_of_mmrec(tmp_path) -> None:
    np.save(tmp_path / "image_feat.npy", MATRIX.astype(np.float64))
    np.save(tmp_path / "text_feat.npy", MATRIX[:, :2])
    np.save(tmp_path / "user_graph_dict.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"'image' in .* need ids: name a file .* or 'rows'"):
        import_features(tmp_path, kind="image")
    assert import_features(tmp_path, "rows", kind="image").ids == ("0", "1", "2")
    mapping = tmp_path / "i_id_mapping.csv"
    mapping.write_text("asin\titemID\nB1\t0\nB3\t2\nB2\t1\n")
    features = import_features(tmp_path, kind="image")
    assert (features.ids, features.name) == (("0", "1", "2"), "image")
    features = import_features(tmp_path / "image_feat.npy", mapping, id_column="asin")
    np.testing.assert_array_equal(features.select(["B3"])[0], [[4, 5, 6]])
    assert import_features(tmp_path, kind="text", id_column="asin").ids == ("B1", "B2", "B3")


def test_atomic_file(tmp_path) -> None:
    path = tmp_path / "ml-100k.itememb"
    path.write_text("iid:token\titem_emb:float_seq\n01\t1 2\n1\t0 0\n")
    features = import_features(path)
    assert (features.ids, features.name) == (("01", "1"), "ml-100k.itememb")
    np.testing.assert_array_equal(features.present, [True, False])
    np.testing.assert_array_equal(features.matrix, [[1, 2], [0, 0]])
    chosen = import_features(path, name="x", id_column="iid", vector_column="item_emb")
    assert (chosen.ids, chosen.name) == (features.ids, "x")


def folder_of_features(folder: Path, description: dict | None = None) -> Path:
    np.save(folder / "text_feat.npy", MATRIX)
    np.save(folder / "image_feat.npy", MATRIX[:, :1])
    (folder / "ids.csv").write_text("row,item_id\n1,b\n0,a\n2,c\n")
    if description is not None:
        (folder / "features.json").write_text(json.dumps(description))
    return folder


def test_folder_of_features(tmp_path) -> None:
    features = import_features(folder_of_features(tmp_path), kind="text")
    assert (features.ids, features.name) == (("a", "b", "c"), "text")
    assert isinstance(features.matrix, np.memmap)
    assert import_features(str(tmp_path), kind="image", name="posters").name == "posters"
    assert import_features(tmp_path, ["x", "y", "z"], kind="text").ids == ("x", "y", "z")
    for kind in (None, "sound"):
        with pytest.raises(ValueError, match=rf"one of \['image', 'text'\], .* got {kind!r}"):
            import_features(tmp_path, kind=kind)
    (tmp_path / "image_feat.npy").unlink()
    assert import_features(tmp_path).name == "text"


def test_described_folder(tmp_path) -> None:
    described = {"rows": 3, "text": {"file": "text_feat.npy", "dim": 3}, "image": None, "x": 1}
    folder_of_features(tmp_path, described | {"ids": {"file": "other.csv"}})
    with pytest.raises(
        ValueError, match=r"must name files beside it, found 'other\.csv' for 'ids'"
    ):
        import_features(tmp_path, kind="text")
    (tmp_path / "other.csv").write_text("item_id\nx\ny\nz\n")
    assert import_features(tmp_path, kind="text").ids == ("x", "y", "z")
    np.save(tmp_path / "voice.npy", MATRIX)
    folder_of_features(tmp_path, described | {"audio": {"file": "voice.npy"}})
    assert import_features(tmp_path, kind="audio").ids == ("a", "b", "c")
    for wrong, shape in [
        ({"rows": 4}, "(4, 3)"),
        ({"text": {"file": "text_feat.npy", "dim": 9}}, "(3, 9)"),
    ]:
        folder_of_features(tmp_path, described | wrong)
        with pytest.raises(ValueError, match=re.escape(f"gives, {shape}, found (3, 3); take both")):
            import_features(tmp_path, kind="text")
    folder_of_features(tmp_path, {"text": {"file": "../text_feat.npy"}})
    with pytest.raises(ValueError, match=r"found '\.\./text_feat\.npy' for 'text'"):
        import_features(tmp_path, kind="text")
    for content in ("{", "[]"):
        (tmp_path / "features.json").write_text(content)
        with pytest.raises(ValueError, match=r"features\.json .*; repair or delete it"):
            import_features(tmp_path, kind="text")


def test_feature_store(tmp_path) -> None:
    present = MATRIX.any(axis=1)
    write_store(
        tmp_path / "store", "abc", MATRIX, present, encoder="e", settings={}, fingerprint="f"
    )
    features = import_features(tmp_path / "store")
    assert isinstance(features, FeatureStore)
    assert (features.ids, features.name) == (("a", "b", "c"), "e")
    np.testing.assert_array_equal(features.matrix, MATRIX)
    with pytest.raises(ValueError, match="a feature store has no use for ids, kind, got"):
        import_features(tmp_path / "store", "rows", kind="text")


def test_unknown_sources(tmp_path) -> None:
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04\xff")
    (tmp_path / "x.csv").write_text("item_id,vector\n")
    (tmp_path / "empty").mkdir()
    for name in ("x.pt", "x.csv", "empty"):
        with pytest.raises(ValueError, match="must be one of the following") as caught:
            import_features(tmp_path / name, "rows")
        assert name in str(caught.value)
        for accepted in (".npy", "additional_feat_suffix", "text_feat.npy", "manifest.json"):
            assert accepted in str(caught.value)
    with pytest.raises(ValueError, match=r"cannot read features 'no' from .*no: there is no such"):
        import_features(tmp_path / "no", kind="text")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kind": "text"}, "a .npy file has no use for kind, got .*matrix.npy; drop it"),
        ({"vector_column": "x"}, "a .npy file has no use for vector_column"),
        ({"ids": None}, "'matrix.npy' in .* need ids"),
        ({"ids": "rows", "id_column": "x"}, "id_column needs a table of ids, got 'x' without"),
        ({"ids": ["a", "b", "c"], "id_column": "x"}, "id_column needs a table of ids"),
    ],
)
def test_options_without_use(tmp_path, options: dict, complaint: str) -> None:
    matrix_file, ids_file = save(tmp_path)
    with pytest.raises(ValueError, match=complaint):
        import_features(matrix_file, **{"ids": ids_file, **options})
    folder_of_features(tmp_path)
    with pytest.raises(ValueError, match="a folder of features has no use for vector_column"):
        import_features(tmp_path, kind="text", vector_column="x")
    (tmp_path / "x.itememb").write_text("iid:token\titem_emb:float_seq\n01\t1 2\n")
    with pytest.raises(ValueError, match="an atomic file has no use for ids"):
        import_features(tmp_path / "x.itememb", ids_file)


@pytest.mark.parametrize(
    ("data_set", "kind", "shape", "present"),
    [
        ("ml-1m", "text", (3883, 384), 3883),
        ("ml-100k", "image", (1682, 1280), 1476),
        ("amazon-beauty", None, (2423, 384), 2423),
    ],
)
def test_real_folders(shared_data: Path, data_set: str, kind, shape, present: int) -> None:
    features = import_features(shared_data / data_set / "features", kind=kind, name="real")
    assert features.matrix.shape == shape
    assert features.present.sum() == present
    ids, _ = read_catalogue(shared_data / data_set / f"{data_set}.item", fields=[])
    check_against_catalogue(features, ids)


def test_catalogue(tmp_path, caplog) -> None:
    features = import_features(*save(tmp_path), name="text")
    with caplog.at_level(logging.INFO):
        check_against_catalogue(features, ["d", "c", "b", "a"])
    assert "2 of 4 items have features 'text', none have 'd', 'b'" in caplog.text
    with caplog.at_level(logging.INFO):
        check_against_catalogue(features, ["c", "a"], allow_unknown=True)
    assert "2 of 2 items have features 'text'\n" in caplog.text
    with pytest.raises(ValueError, match="the ids of the catalogue must hold strings, got 1"):
        check_against_catalogue(features, [1])
    with pytest.raises(ValueError, match="found 2 of 3 ids that it lacks: 'a', 'c'; check"):
        check_against_catalogue(features, ["b"])
    check_against_catalogue(features, ["b"], allow_unknown=True)
