"""Reading, numbering, splitting and keeping: RecBole's results without its lists and strings."""

from __future__ import annotations

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction

from recbole_mars.data import load_columns, save_columns
from recbole_mars.plugin import prepared, reading
from recbole_mars.plugin.batches import Batches, replace_lists
from recbole_mars.plugin.dataset import ROW_FIELD

ROWS = """user_id:token\titem_id:token\trating:float\ttimestamp:float\tdevice:token
007\ta b\t4\t30\tphone
7\t1.0\t2\t10\t
007\t1\t5\t10\tlaptop
"q"\t1.0\t3\t5\tphone
q\té\t3\t4\tphone
7\té\t4\t9\tphone
007\té\t1\t20\tlaptop
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """Tokens that look like numbers or hold spaces, quotes and accents; one is missing, and some
    rows are of items that the item file lacks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "odd.inter").write_text(ROWS, encoding="utf-8")
    (tmp_path / "odd" / "odd.item").write_text(
        "item_id:token\tkind:token\ttags:token_seq\tprice:float\n"
        "é\tx\tp q\t1\nnever\ty\tq\t3\na b\tx\t\t2\n",
        encoding="utf-8",
    )
    return {
        "data_path": str(tmp_path),
        "load_col": {
            "inter": ["user_id", "item_id", "rating", "timestamp", "device"],
            "item": ["item_id", "kind", "tags", "price"],
        },
        "threshold": {"rating": 3},
        "augmentation": "none",
        "checkpoint_dir": str(tmp_path / "saved"),
        "state": "WARNING",
    }


def make(settings, name="odd", **changes):
    return create_dataset(Config("MARS", name, config_dict={**settings, **changes}))


def same(ours, theirs):
    """Fields, numbers of tokens and side features, whatever was filtered."""
    assert ours.field2type == theirs.field2type
    assert ours.field2seqlen == theirs.field2seqlen
    for field, tokens in theirs.field2id_token.items():
        assert ours.field2id_token[field].tolist() == tokens.tolist()
        assert ours.field2token_id[field] == theirs.field2token_id[field]
    for table in ("user_feat", "item_feat"):
        if getattr(theirs, table) is None:
            assert getattr(ours, table) is None
            continue
        ours_, theirs_ = getattr(ours, table), getattr(theirs, table)
        assert list(ours_) == list(theirs_)
        for name in theirs_:
            assert len(ours_[name]) == len(theirs_[name])
            pairs = zip(ours_[name].tolist(), theirs_[name].tolist())
            assert all(np.array_equal(a, b, equal_nan=False) for a, b in pairs)


@pytest.mark.parametrize("chunk", [1 << 20, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"filter_inter_by_user_or_item": False},
        {"user_inter_num_interval": "[2,inf)", "filter_inter_by_user_or_item": False},
        {"item_inter_num_interval": "[2,inf)", "filter_inter_by_user_or_item": False},
        {"rm_dup_inter": "first", "filter_inter_by_user_or_item": False},
        {"val_interval": {"timestamp": "[9,20]"}},
        {"alias_of_user_id": ["device"], "filter_inter_by_user_or_item": False},
        {"unload_col": {"inter": ["device"]}, "load_col": None, "threshold": None},
    ],
    ids=str,
)
def test_reading_equals_recbole(odd, monkeypatch, changes, chunk):
    monkeypatch.setattr(reading, "_CHUNK", chunk)
    config = Config("MARS", "odd", config_dict={**odd, **changes})
    ours, theirs = create_dataset(config), Dataset(config)
    assert len(theirs.inter_feat)
    same(ours, theirs)
    expected = theirs.inter_feat.sort_values(["user_id", "timestamp"], kind="stable")
    assert ours.inter_feat.to_dict("list") == expected.to_dict("list")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7\ta b\t4\tsoon\tphone\n", r"column timestamp:float, line 9: 'soon' is no number"),
        ("7\ta b\t4\t3\tphone\tmore\n", "field_separator and encoding"),
    ],
)
@pytest.mark.parametrize("chunk", [1 << 20, 2])
def test_a_bad_row_is_named(odd, monkeypatch, text, message, chunk):
    monkeypatch.setattr(reading, "_CHUNK", chunk)
    with open(os.path.join(odd["data_path"], "odd", "odd.inter"), "a", encoding="utf-8") as file:
        file.write(text)
    with pytest.raises(ValueError, match=message) as caught:
        make(odd)
    assert "odd.inter" in str(caught.value)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("leave_one_out", ("user_id", "valid_and_test")),
        ("leave_one_out", ("user_id", "valid_only")),
        ("leave_one_out", ("user_id", "test_only")),
        ("split_by_ratio", ([8, 1, 1], "user_id")),
        ("split_by_ratio", ([0.4, 0.3, 0.3], "user_id")),
        ("split_by_ratio", ([3, 1], "user_id")),
        ("split_by_ratio", ([1], "user_id")),
        ("split_by_ratio", ([8, 1, 1], None)),
        ("time_based_split", ([8, 1, 1], "user_id")),
    ],
)
@pytest.mark.parametrize("order", ["time", "random"])
def test_splits_equal_recbole(tiny, method, arguments, order):
    dataset = make(tiny, "world", val_interval={"timestamp": "[0,1e12]"})
    dataset._change_feat_format()
    if order == "time":
        dataset.sort(by="timestamp")
    else:
        torch.manual_seed(0)
        dataset.shuffle()
    plain = dataset.copy(Interaction({n: dataset.inter_feat[n] for n in dataset.inter_feat}))
    ours = getattr(dataset, method)(*arguments)
    theirs = getattr(SequentialDataset, method)(plain, *arguments)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs):
        assert mine.inter_feat[ROW_FIELD].tolist() == other.inter_feat[ROW_FIELD].tolist()


def test_users_without_a_target_are_told_of(odd):
    rows = [line for line in ROWS.splitlines(keepends=True) if line.startswith(("user", "7\té"))]
    with open(os.path.join(odd["data_path"], "odd", "odd.inter"), "w", encoding="utf-8") as file:
        file.writelines(rows)
    with pytest.raises(ValueError, match="no user has a target"):
        make(odd).build()


def test_rows_are_an_interaction(tiny):
    dataset = make(tiny, "world")
    dataset._change_feat_format()
    rows = dataset.inter_feat
    plain = Interaction({name: rows[name] for name in rows})
    for index in ([3, 1], slice(2, 9, 3), range(1, 4), torch.tensor([5]), np.array([], dtype=int)):
        assert rows[index].numpy().keys() == plain.numpy().keys()
        for name in plain:
            assert torch.equal(rows[index][name], plain[name][index])
    assert rows[3]["item_id"].tolist() == [int(plain["item_id"][3])]
    twin = copy.deepcopy(rows)
    twin["extra"] = torch.arange(len(twin))
    twin.sort(by="item_id")
    assert torch.equal(twin["item_id"], plain["item_id"].sort(stable=True)[0])
    assert torch.equal(plain["item_id"][twin["extra"]], twin["item_id"])
    twin.drop("extra")
    assert "extra" not in twin
    assert torch.equal(rows["item_id"], plain["item_id"])
    assert pickle.loads(pickle.dumps(rows))["item_id"].equal(plain["item_id"])


def test_an_unknown_way_to_leave_one_out_is_named(tiny):
    dataset = make(tiny, "world")
    dataset._change_feat_format()
    with pytest.raises(ValueError, match="eval_args' LS must be one of"):
        dataset.leave_one_out("user_id", "valid")


def test_kept_data_equals_prepared_data(odd):
    odd["eval_args"] = {"split": {"RS": [1, 0, 0]}}  # too few to hold any out
    first = make(odd, keep_prepared=True)
    kept = list((first._folder()).iterdir())
    assert kept
    second, plain = make(odd, keep_prepared=True), make(odd, keep_prepared=False)
    assert isinstance(second.inter_feat["item_id"].to_numpy().base, np.memmap)
    for dataset in (first, second):
        same(dataset, plain)
        assert dataset.inter_feat.to_dict("list") == plain.inter_feat.to_dict("list")
    first.build(), second.build(), plain.build()
    assert first.fingerprint() == second.fingerprint() == plain.fingerprint()


def test_kept_data_is_not_taken_for_another(odd):
    dataset = make(odd, keep_prepared=True)
    before = dataset._folder()
    assert make(odd, threshold={"rating": 4}, keep_prepared=True)._folder() != before
    file = os.path.join(odd["data_path"], "odd", "odd.inter")
    with open(file, "a", encoding="utf-8") as stream:
        stream.write("7\tnever\t4\t99\tphone\n")
    after = make(odd, keep_prepared=True)
    assert after._folder() != before
    assert len(after.inter_feat) == len(dataset.inter_feat) + 1


@pytest.mark.parametrize("damage", ["contents.json", "0.npy"])
def test_damaged_kept_data_is_made_anew(odd, damage, caplog):
    folder = make(odd, keep_prepared=True)._folder()
    (folder / damage).write_bytes(b"{")
    dataset = make(odd, keep_prepared=True)
    assert "preparing anew" in caplog.text
    same(dataset, make(odd, keep_prepared=False))


def test_small_data_is_not_kept_unasked(odd, monkeypatch):
    assert not make(odd)._folder().exists()
    monkeypatch.setattr(prepared, "_WORTH_KEEPING", 3)
    assert make(odd)._folder().exists()
    assert make(odd, encoding="latin-1", keep_prepared=False)._folder() != make(odd)._folder()


def test_a_disk_that_cannot_be_written_to_costs_the_copy_only(odd, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(prepared, "save_columns", full)
    dataset = make(odd, keep_prepared=True)
    assert "not kept: no space left" in caplog.text
    same(dataset, make(odd, keep_prepared=False))


def test_what_flat_columns_cannot_hold_is_said(odd, caplog):
    caplog.set_level("INFO")
    changes = {"numerical_features": ["price"], "keep_prepared": True, "state": "INFO"}
    assert not make(odd, **changes)._folder().exists()
    assert "not kept: price is not a plain column" in caplog.text


def test_columns_are_written_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "a" / "columns"
    columns = {"x": np.arange(3), "odd/name": np.zeros((0, 2), dtype=np.float32)}
    save_columns(folder, columns, {"n": 1})
    save_columns(folder, {"x": np.zeros(1)}, {})  # the first stays
    found, notes = load_columns(folder)
    assert notes == {"n": 1}
    assert list(found) == ["x", "odd/name"]
    assert found["x"].tolist() == [0, 1, 2]
    assert folder.stat().st_mode == tmp_path.joinpath("a").stat().st_mode  # for others, too
    found["x"][0] = 7  # in this process only
    assert load_columns(folder)[0]["x"][0] == 0
    assert [path.name for path in folder.parent.iterdir()] == ["columns"]
    with pytest.raises(ValueError, match="must hold contents"):
        load_columns(tmp_path)
    with pytest.raises(TypeError):
        save_columns(tmp_path / "b", {"x": np.zeros(1)}, {"n": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("generator", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_those_of_the_loader(tiny, shuffle, generator):
    config = Config("MARS", "world", config_dict={**tiny, "shuffle": shuffle})
    batches = []
    for replace in (False, True):
        train, *_ = data_preparation(config, create_dataset(config))
        if not generator:  # as RecBole leaves loaders that it has saved
            train.generator = train.sampler.generator = None
        torch.manual_seed(7)
        if replace:
            replace_lists(train)
            assert isinstance(train.batch_sampler, Batches)
        batches.append([b[ROW_FIELD].tolist() for _ in range(2) for b in train])
        assert len(train) == len(batches[-1]) / 2
    assert batches[0] == batches[1]
