"""Histories, time order, splits and labels, against plain loops over the files."""

import gzip
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import SequentialDataset

from recbole_mars import MARS
from recbole_mars.data import TEST, TRAIN, VALID, InteractionLog
from recbole_mars.evaluation import HIGH, LOW
from recbole_mars.plugin.dataset import ROW_FIELD
from recbole_mars.plugin.histories import phases_of_first_rows
from recbole_mars.plugin.metrics import user_groups


def prepared(tiny, model="MARS", **changes):
    settings = {"augmentation": "none", **tiny, **changes}
    config = Config(model, "world", config_dict=settings)
    data = create_dataset(config)
    return data, data_preparation(config, data)


def everything(loader):
    return loader._dataset[list(range(len(loader._dataset)))]


def tokens(data, field, ids):
    return data.field2id_token[field][ids]


@pytest.mark.parametrize("history", ["all", "positive"])
@pytest.mark.parametrize("min_history", [0, 1])
def test_batches_equal_a_loop_over_the_file(tiny, world, history, min_history):
    data, loaders = prepared(
        tiny, history=history, min_history=min_history, history_labels=True, MAX_ITEM_LIST_LENGTH=4
    )
    table = pd.read_csv(world / "world" / "world.inter", sep="\t", dtype={0: str, 1: str})
    table.columns = ["user", "item", "rating", "time"]
    table = table.sort_values("time", kind="stable")
    expected = {}
    for user, rows in table.groupby("user"):
        past = []
        for number, row in enumerate(rows.itertuples()):
            liked = int(row.rating >= 4)
            if number >= min_history:
                expected[user, row.item] = (liked, past[-4:])
            if liked or history == "all":
                past = [*past, (row.item, liked)]
    found = {}
    for loader in loaders:
        batch = everything(loader)
        for i in range(len(batch)):
            n = int(batch["item_length"][i])
            items = tokens(data, "item_id", batch["item_id_list"][i, :n].numpy())
            labels = batch["label_list"][i, :n].int().tolist()
            assert not batch["item_id_list"][i, n:].any()
            key = (
                tokens(data, "user_id", int(batch["user_id"][i])),
                tokens(data, "item_id", int(batch["item_id"][i])),
            )
            found[key] = (int(batch["label"][i]), list(zip(items, labels)))
    assert found == expected


def test_leave_one_out_gives_each_user_the_last_two(tiny):
    data, (train, valid, test) = prepared(tiny)
    log = data.log
    for user in np.unique(log.users):
        phases = log.phases[log.offsets[user] : log.offsets[user + 1]]
        held_out = [VALID, TEST] if len(phases) > 3 else [TEST]  # one target at least to train on
        assert phases.tolist() == [TRAIN] * (len(phases) - len(held_out)) + held_out
    assert len(train._dataset) + len(valid._dataset) + len(test._dataset) == len(log) - len(
        np.unique(log.users)
    )


def test_temporal_split_is_ordered_in_time(tiny):
    data, _ = prepared(
        tiny, eval_args={"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": None}
    )
    log = data.log
    for earlier, later in ((TRAIN, VALID), (VALID, TEST)):
        assert log.times[log.phases == earlier].max() <= log.times[log.phases == later].min()


def write_atomic_files(folder, name, rows):
    """rows: (user, item, rating, time as text)."""
    target = folder / name
    target.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += ["\t".join(map(str, row)) for row in rows]
    (target / f"{name}.inter").write_text("\n".join(lines) + "\n")
    return target


def tied(folder, items):
    """A data set of 30 users, each with the given items on one day, in that order."""
    rows = [(f"u{u}", item, 5 if u % 2 else 1, 86400) for u in range(30) for item in items]
    write_atomic_files(folder, "world", rows)


def test_ties_are_as_in_the_file_or_shuffled_alike(tiny, tmp_path):
    tied(tmp_path / "days", [f"i{n}" for n in (3, 1, 4, 0, 5, 2)])
    settings = {**tiny, "data_path": str(tmp_path / "days"), "load_col": None, "text_fields": None}
    orders = {}
    for ties, seed in (("file", 1), ("shuffled", 1), ("shuffled", 2)):
        data, _ = prepared(settings, image_dir=None, ties=ties, seed=seed)
        orders[ties, seed] = tokens(data, "item_id", data.log.items).reshape(30, 6)
    assert (orders["file", 1] == ["i3", "i1", "i4", "i0", "i5", "i2"]).all()
    shuffled = orders["shuffled", 1]
    assert (shuffled == orders["shuffled", 2]).all()
    assert (np.sort(shuffled) == np.sort(orders["file", 1])).all()
    assert (
        40 < (np.diff(np.char.replace(shuffled.astype(str), "i", "").astype(int)) > 0).sum() < 110
    )


@pytest.mark.parametrize(
    "first", [["i10", "i11", "i12", "i13", "i14"], ["2", "10", "11", "100", "101"]]
)
@pytest.mark.parametrize("backwards", [False, True])
def test_a_file_that_sorts_ties_by_item_is_warned_of(tiny, tmp_path, caplog, first, backwards):
    tied(tmp_path / "days", first[::-1] if backwards else first)
    settings = {**tiny, "data_path": str(tmp_path / "days"), "load_col": None, "text_fields": None}
    with caplog.at_level("WARNING"):
        prepared(settings, image_dir=None, ties="shuffled")
        assert "the order of item_id" not in caplog.text
        prepared(settings, image_dir=None)
    assert (
        "of 120 neighbouring rows with the same user and time 100% stand in the order"
        in caplog.text
    )


def test_ties_in_any_other_order_are_not_warned_of(tiny, tmp_path, caplog):
    tied(tmp_path / "days", ["i3", "i1", "i4", "i0", "i5"])
    settings = {**tiny, "data_path": str(tmp_path / "days"), "load_col": None, "text_fields": None}
    with caplog.at_level("WARNING"):
        prepared(settings, image_dir=None)
    assert "the order of item_id" not in caplog.text


def test_seconds_apart_at_todays_epoch_keep_their_order(tiny, tmp_path):
    """float32 has steps of 128 s there: RecBole alone would fall back on the order in the file."""
    start = 1_750_000_000
    rows = [
        (f"u{u}", f"i{i}", 5 if i % 2 else 1, start + 6 - i) for u in range(3) for i in range(6)
    ]
    write_atomic_files(tmp_path / "late", "world", rows)
    data, loaders = prepared(
        {**tiny, "data_path": str(tmp_path / "late"), "load_col": None},
        text_fields=None,
        valid_metric="LogLoss",  # all held-out labels are alike
    )
    batch = everything(loaders[2])  # test: the last in time is the first in the file
    assert set(tokens(data, "item_id", batch["item_id"].numpy())) == {"i0"}
    history = tokens(data, "item_id", batch["item_id_list"][0].numpy())
    assert history.tolist()[:5] == ["i5", "i4", "i3", "i2", "i1"]


def test_packed_interactions_are_read(tiny, world, tmp_path):
    folder = tmp_path / "packed" / "world"
    folder.mkdir(parents=True)
    raw = (world / "world" / "world.inter").read_bytes()
    (folder / "world.inter.gz").write_bytes(gzip.compress(raw))
    plain, _ = prepared({**tiny, "load_col": None})
    packed, _ = prepared({**tiny, "load_col": None, "data_path": str(folder.parent)})
    assert np.array_equal(packed.log.items, plain.log.items)


def test_memory_grows_with_interactions_not_with_their_length(tiny):
    def size(**changes):
        data, (train, _, _) = prepared(tiny, **changes)
        return len(pickle.dumps((data.histories, train._dataset.inter_feat)))

    assert size(MAX_ITEM_LIST_LENGTH=200) == size(MAX_ITEM_LIST_LENGTH=2)


def test_same_batches_as_recbole_for_builtin_models(tiny, world):
    """Asked for nothing but our data set, DIN sees what RecBole's own data set shows it."""
    settings = {
        "data_path": str(world),
        "load_col": tiny["load_col"],
        "MAX_ITEM_LIST_LENGTH": 5,
        "threshold": {"rating": 4},
        "train_neg_sample_args": None,
        "eval_args": {"mode": "labeled", "split": {"LS": "valid_and_test"}, "order": "TO"},
        "state": "ERROR",
    }
    ours, our_loaders = prepared({**settings, "history": "all"}, "DIN")
    own = Config("DIN", "world", config_dict=settings)
    theirs = SequentialDataset(own)
    their_loaders = data_preparation(own, theirs)
    for mine, other in zip(our_loaders, their_loaders):
        a, b = everything(mine), everything(other)
        keys = [k for k in b.columns if k != "timestamp" and not k.startswith("timestamp")]
        assert set(b.columns) <= set(a.columns)
        order_a = np.lexsort((a["item_id"].numpy(), a["user_id"].numpy()))
        order_b = np.lexsort((b["item_id"].numpy(), b["user_id"].numpy()))
        for key in keys:
            assert (a[key].numpy()[order_a] == b[key].numpy()[order_b]).all(), key
    assert (ours.inter_matrix().toarray() == theirs.inter_matrix().toarray()).all()


def test_saved_data_set_is_reused_only_with_the_same_options(tiny):
    prepared(tiny, save_dataset=True, history="all")
    again, _ = prepared(tiny, save_dataset=True, history="positive")
    assert again.histories.index.kind == "positive"


TEMPORAL = {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": None}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"retrieval_scope": "user"},
        {"min_history": 0, "mars_strategy": "top_k"},
        {"history": "positive"},
        {"mars_donor_time": "before"},
        {"eval_args": TEMPORAL},
        {"eval_args": TEMPORAL, "history": "positive", "mars_strategy": "dynamic_programming"},
    ],
    ids=str,
)
def test_nothing_leaks_into_a_history(tiny, changes):
    """Own behaviours precede the target; borrowed ones are others' training behaviours."""
    settings = {"augmentation": "mars", "mars_theta": 0.2, "MAX_ITEM_LIST_LENGTH": 30}
    data, loaders = prepared({**tiny, **settings}, **changes)
    log, groups = data.log, user_groups(data.log, data.config)
    earlier_only = "eval_args" in changes or changes.get("mars_donor_time") == "before"
    borrowed = 0
    for loader in loaders:
        loader._dataset.prepare_augmentation()
        rows = loader._dataset.inter_feat[ROW_FIELD].numpy()
        positions, lengths, lent = data.histories.gather(rows, 30, loader._dataset.phase)
        for row, history, length, n in zip(rows, positions, lengths.numpy(), lent.numpy()):
            prefix, own = history[:n], history[n:length]
            assert (log.users[own] == log.users[row]).all()
            assert (own < row).all()
            assert (np.diff(own) > 0).all()
            assert (log.phases[prefix] == TRAIN).all()
            assert (groups[log.users[prefix]] == HIGH).all()
            assert n == 0 or groups[log.users[row]] == LOW
            if earlier_only:
                assert (log.times[prefix] < log.times[row]).all()
            if changes.get("history") == "positive":
                assert (log.labels[history[:length]] > 0).all()
            borrowed += n
    assert borrowed > 0


def test_first_behaviours_belong_to_the_split_that_their_time_is_in():
    """Rows that are no targets (-1), by hand: users 1 to 4 begin in training, 3 late, 4 last."""
    times = np.array([1.0, 2, 3, 11, 12, 13, 25, 26, 5])
    users = np.array([1, 1, 1, 2, 2, 2, 3, 3, 4])
    phases = np.array([-1, 0, 1, -1, 1, 2, -1, 2, -1], dtype=np.int8)
    log = InteractionLog(users, users, np.ones(9, "f4"), times, np.zeros(9, "i1"), 5, 5)
    # Training ends at 2, validation at 12: user 2 begins in validation, users 3 in the test
    # period, user 4's only behaviour at 5 falls into validation.
    assert phases_of_first_rows(log, phases).tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 1]


@pytest.mark.parametrize("bucketed", [False, True])
def test_numbers_become_side_features(tiny, world, tmp_path, bucketed):
    folder = tmp_path / "own" / "world"
    shutil.copytree(world / "world", folder)
    lines = (folder / "world.item").read_text().splitlines()
    prices = [f"{line}\t{i % 7}.5" for i, line in enumerate(lines[1:])]
    (folder / "world.item").write_text("\n".join([f"{lines[0]}\tprice:float", *prices]) + "\n")
    settings = {
        **tiny,
        "data_path": str(folder.parent),
        "load_col": {**tiny["load_col"], "item": ["item_id", "price"]},
        "numerical_features": ["price"],
        "discretization": {"price": {"method": "ED", "bucket": 3}} if bucketed else None,
    }
    _, (train, _, _) = prepared(settings)
    items = MARS(train.config, train._dataset).din.items
    if bucketed:
        assert sorted(items.column_price.unique().tolist()) == [1, 2, 3]
    else:
        assert list(items.scales) == ["price"]
        assert items.column_price.shape == (train._dataset.item_num,)


def test_row_field_names_the_target(tiny):
    data, (train, _, _) = prepared(tiny)
    batch = everything(train)
    assert (data.log.items[batch[ROW_FIELD].numpy()] == batch["item_id"].numpy()).all()
    assert (data.log.phases[batch[ROW_FIELD].numpy()] == TRAIN).all()
