import json

import numpy as np
import pytest

from recbole_mars.augmentation import PrefixTable


def table(**change):
    parts = {
        "rows": np.array([3, 5, 9]),
        "pointers": np.array([0, 2, 2, 5]),
        "values": np.array([7, 8, 1, 2, 0], dtype=np.int32),
        "donor_similarities": np.array([0.5, np.nan, 1.0], dtype=np.float32),
        "threshold": 0.25,
    }
    return PrefixTable(**{**parts, **change})


def empty_table():
    nothing = np.zeros(0, dtype=np.int64)
    return PrefixTable(nothing, np.zeros(1, dtype=np.int64), nothing, np.zeros(0), 0.0)


def test_statistics():
    assert table().mean_length == pytest.approx(5 / 3)
    assert table().empty_share == pytest.approx(1 / 3)
    assert empty_table().mean_length == 0
    assert empty_table().empty_share == 0


@pytest.mark.parametrize("make", [table, empty_table])
def test_saved_and_loaded(make, tmp_path):
    original = make()
    original.save(tmp_path / "new" / "folder")
    loaded = PrefixTable.load(tmp_path / "new" / "folder")
    for name in ("rows", "pointers", "values", "donor_similarities"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(original, name))
        assert getattr(loaded, name).dtype == getattr(original, name).dtype
    assert loaded.threshold == original.threshold
    assert not list(tmp_path.rglob("*.tmp"))


def test_summary_is_readable(tmp_path):
    table().save(tmp_path)
    summary = json.loads((tmp_path / "prefixes.json").read_text())
    assert summary["queries"] == 3
    assert summary["threshold"] == 0.25
    assert summary["mean_length"] == pytest.approx(5 / 3)


def test_a_broken_save_is_not_loaded(tmp_path, monkeypatch):
    table().save(tmp_path)

    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        table(values=np.arange(5)).save(tmp_path)
    with pytest.raises(ValueError, match="no complete prefix table"):
        PrefixTable.load(tmp_path)


def test_nothing_to_load(tmp_path):
    with pytest.raises(ValueError, match="build and save it again"):
        PrefixTable.load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.array([3, 3, 9])}, "ascend"),
        ({"rows": np.array([3, 5])}, "2 rows need"),
        ({"donor_similarities": np.zeros(2)}, "got 4 and 2"),
        ({"pointers": np.array([0, 2, 1, 5])}, "rise from 0 to the 5"),
        ({"pointers": np.array([1, 2, 2, 5])}, "rise from 0 to the 5"),
        ({"pointers": np.array([0, 2, 2, 4])}, "rise from 0 to the 5"),
    ],
)
def test_parts_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        table(**change)
