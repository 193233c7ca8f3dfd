"""Agreement in RecBole runs: computed once, gathered by row, and refused where it means nothing."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import run_recbole

from recbole_mars import MARS
from recbole_mars.agreement import (
    AGREEMENT_COLUMNS,
    CLICK_COLUMNS,
    AgreementSettings,
    ClickAgreementSettings,
    agree,
    agree_on_clicks,
)
from recbole_mars.data import TEST, TRAIN
from recbole_mars.plugin.agreement import fitted_agreement
from recbole_mars.plugin.dataset import AGREEMENT_FIELD, OPINION_FIELD, ROW_FIELD

PROPERTIES = Path(__file__).parents[2] / "properties"
PLAIN = {"augmentation": "none", "text_fields": None, "image_dir": None}
SAMPLED = {"distribution": "uniform", "sample_num": 1, "dynamic": False, "candidate_num": 0}


@pytest.fixture
def agreeing(tiny) -> dict[str, Any]:
    """Settings without item features; the kernel is that of collaborative agreement."""
    return {**tiny, **PLAIN, "mars_agreement": True, "mars_agreement_factors": 3}


def run(settings: dict[str, Any], model: str = "MARS", **changes: Any) -> dict[str, float]:
    settings = {**settings, "epochs": 1, "mars_align_epochs": 1, **changes}
    result = run_recbole(model=model, dataset="world", config_dict=settings, saved=False)
    return dict(result["test_result"])


def prepared(settings: dict[str, Any], **changes: Any):
    config = Config("MARS", "world", config_dict={**settings, **changes})
    data = create_dataset(config)
    return data, data_preparation(config, data)


def table_of(settings: dict[str, Any], **changes: Any) -> np.ndarray:
    return np.array(prepared(settings, **changes)[0].histories.agreement)


def kept() -> list[Path]:
    return [path for path in Path("saved/mars").glob("world-agreement-*") if path.is_dir()]


# -- runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", ["none", "mars", "basrec"])
def test_a_run_with_features(tiny, augmentation) -> None:
    result = run({**tiny, "augmentation": augmentation, "mars_agreement": True})
    assert np.isfinite(list(result.values())).all()
    assert len(kept()) == 1


def test_a_run_without_features(agreeing) -> None:
    assert run(agreeing) != run(agreeing, mars_agreement=False)
    assert not Path("saved/features").exists()


def test_features_are_part_of_it(tiny, agreeing) -> None:
    plain = table_of(agreeing)
    both = table_of({**agreeing, "text_fields": ["title"], "image_dir": tiny["image_dir"]})
    text = table_of(agreeing, text_fields=["title"], mars_use_image=False)
    ruled_out = table_of(agreeing, text_fields=["title"], mars_use_text=False, mars_use_image=False)
    assert np.array_equal(ruled_out, plain)
    assert len({t.tobytes() for t in (plain, both, text)}) == 3


def test_the_model_reads_it(agreeing) -> None:
    torch.manual_seed(0)
    data, (train, _, test) = prepared(agreeing)
    model = MARS(train.config, train._dataset).eval()
    assert model.din.settings.context_width == len(AGREEMENT_COLUMNS)
    batch = test._dataset[list(range(len(test._dataset)))]
    logits = model.logits(batch)
    batch[AGREEMENT_FIELD] = batch[AGREEMENT_FIELD].flip(0)
    assert (model.logits(batch) != logits).any()
    _, (train, _, _) = prepared(agreeing, mars_agreement=False)
    assert MARS(train.config, train._dataset).din.settings.context_width == 0
    assert AGREEMENT_FIELD not in train._dataset[[0, 1]]
    assert data.histories.agreement.shape == (len(data.log), len(AGREEMENT_COLUMNS))


# -- clicks only -------------------------------------------------------------------------------

CLICKS = {"fixed_negatives": 2, "threshold": None, "mars_agreement_length": 9}


def test_of_clicks_it_has_columns_of_its_own(agreeing) -> None:
    data, (train, _, test) = prepared(agreeing, **CLICKS)
    expected = agree_on_clicks(
        data.log, {}, ClickAgreementSettings(3, max_length=9, seed=data.config["seed"])
    )
    np.testing.assert_array_equal(data.histories.agreement, expected.standardised())
    model = MARS(train.config, train._dataset)
    assert model.din.settings.context_width == len(CLICK_COLUMNS)
    rows = test._dataset.inter_feat[ROW_FIELD].numpy()
    batch = test._dataset[list(range(len(rows)))]
    np.testing.assert_array_equal(batch[AGREEMENT_FIELD], data.histories.agreement[rows])
    assert set(batch["label"].tolist()) == {0.0, 1.0}


def test_counts_of_clicks_may_be_left_out(agreeing) -> None:
    with_counts = table_of(agreeing, **CLICKS)
    without = table_of(agreeing, **CLICKS, mars_agreement_counts=False)
    assert with_counts[:, -4:].any()
    assert not without[:, -4:].any()
    np.testing.assert_array_equal(with_counts[:, :-4], without[:, :-4])
    assert len(kept()) == 2


def test_targets_may_be_withheld_in_training(agreeing) -> None:
    whole = table_of(agreeing, **CLICKS, mars_agreement_counts=False)
    held = table_of(agreeing, **CLICKS, mars_agreement_counts=False, mars_agreement_withheld=0.9)
    assert len(np.unique(held[:, 0])) < 0.5 * len(np.unique(whole[:, 0]))
    with pytest.raises(ValueError, match="mars_agreement_withheld must be >= 0 and < 1, got 2"):
        run(agreeing, **CLICKS, mars_agreement_withheld=2)


def test_that_of_clicks_is_kept_on_disk_too(agreeing, caplog) -> None:
    first = table_of(agreeing, **CLICKS)
    (folder,) = kept()
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    np.testing.assert_array_equal(table_of(agreeing, **CLICKS), first)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    (folder / "fitted" / "0.npy").unlink()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(table_of(agreeing, **CLICKS), first)
    assert "computed anew" in caplog.text


@pytest.mark.parametrize("name", ["recommended", "recommended-clicks"])
def test_what_we_recommend_runs(tiny, name) -> None:
    settings = {key: value for key, value in tiny.items() if key != "augmentation"}
    file = str(PROPERTIES / f"{name}.yaml")
    result = run_recbole(
        "MARS", "world", config_file_list=[file], config_dict={**settings, "epochs": 1}, saved=False
    )
    assert 0 < result["test_result"]["auc"] <= 1


# -- rows --------------------------------------------------------------------------------------


def test_batches_carry_the_columns_of_their_own_rows(agreeing) -> None:
    """Also when they are shuffled, by the names in the file."""
    data, loaders = prepared(agreeing)
    log = data.log
    settings = AgreementSettings(factors=3, seed=data.config["seed"])
    expected = agree(log, log.labels, {}, settings).columns.astype(np.float64)
    training = expected[log.phases == TRAIN]
    expected = (expected - training.mean(axis=0)) / training.std(axis=0)
    np.testing.assert_allclose(data.histories.agreement, expected, rtol=1e-5, atol=1e-4)
    row_of = {pair: row for row, pair in enumerate(zip(log.users.tolist(), log.items.tolist()))}
    orders = []
    for loader in loaders:
        seen = 0
        for batch in loader:
            batch = batch[0] if isinstance(batch, tuple) else batch
            pairs = zip(batch["user_id"].tolist(), batch["item_id"].tolist())
            rows = [row_of[pair] for pair in pairs]
            found = batch[AGREEMENT_FIELD].numpy()
            np.testing.assert_allclose(found, expected[rows], rtol=1e-5, atol=1e-4)
            seen += len(rows)
            orders += rows
        assert seen == len(loader._dataset)
    assert orders != sorted(orders)
    assert len(set(orders)) == len(log) - len(np.unique(log.users))


def test_columns_are_standardised_over_the_training_rows(agreeing) -> None:
    data, _ = prepared(agreeing)
    table = data.histories.agreement.astype(np.float64)
    training = data.log.phases == TRAIN
    np.testing.assert_allclose(table[training].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(table[training].std(axis=0), 1, rtol=1e-4)
    assert data.histories.agreement.dtype == np.float32
    assert table[~training, -1].mean() > 0.5  # the last rows of users have much history


def test_the_evaluated_opinions_do_not_reach_it(agreeing, world, tmp_path) -> None:
    """The last rating of each user, which is tested on, is turned around in the file."""
    found, (_, _, test) = prepared(agreeing)
    table = pd.read_csv(world / "world" / "world.inter", sep="\t", dtype={0: str, 1: str})
    last = table.groupby("user_id:token")["timestamp:float"].idxmax()
    table.loc[last, "rating:float"] = 6 - table.loc[last, "rating:float"]
    shutil.copytree(world / "world", tmp_path / "turned" / "world")
    table.to_csv(tmp_path / "turned" / "world" / "world.inter", sep="\t", index=False)
    turned, _ = prepared(agreeing, data_path=str(tmp_path / "turned"))
    rows = test._dataset.inter_feat[ROW_FIELD].numpy()
    assert (turned.log.labels[rows] != found.log.labels[rows]).any()
    np.testing.assert_allclose(turned.histories.agreement, found.histories.agreement, atol=1e-6)


# -- opinions ----------------------------------------------------------------------------------


def test_ratings_as_opinions(agreeing, world) -> None:
    """threshold makes the label of the rating and drops it; agreement still reads it."""
    labelled = table_of(agreeing)
    data, (train, _, _) = prepared(agreeing, opinion_field="rating")
    assert not np.allclose(data.histories.agreement, labelled)
    table = pd.read_csv(world / "world" / "world.inter", sep="\t", dtype={0: str, 1: str})
    ratings = {(user, item): rating for user, item, rating, _ in table.itertuples(index=False)}
    users = data.field2id_token["user_id"][data.log.users]
    items = data.field2id_token["item_id"][data.log.items]
    expected = [ratings[pair] for pair in zip(users, items)]
    assert data.histories.opinions.tolist() == expected
    assert np.array_equal(data.log.labels, np.array(expected) >= 4)
    names = set(train._dataset[[0, 1]].columns)
    assert AGREEMENT_FIELD in names
    assert not {name for name in names if name.startswith((OPINION_FIELD, "rating"))}
    assert OPINION_FIELD not in data.histories.columns


@pytest.mark.parametrize("name", ["stars", "user_id"])
def test_an_opinion_field_that_is_none(agreeing, name) -> None:
    complaint = f"opinion_field must name a float column of the interactions, got '{name}'"
    with pytest.raises(ValueError, match=complaint):
        run(agreeing, opinion_field=name)


def test_kept_preparations_know_their_opinions(agreeing) -> None:
    labelled = table_of(agreeing)
    expected = table_of(agreeing, opinion_field="rating")
    kept_settings = {**agreeing, "keep_prepared": True, "opinion_field": "rating"}
    for _ in range(2):
        assert np.array_equal(table_of(kept_settings), expected)
    assert np.array_equal(table_of(kept_settings, opinion_field=None), labelled)


def test_a_column_of_ones_own_that_is_called_opinion(agreeing, world, tmp_path) -> None:
    """Nobody asked for it, so labels count; asked for, it is what agreement reads."""
    folder = tmp_path / "own" / "world"
    shutil.copytree(world / "world", folder)
    file = folder / "world.inter"
    head, *lines = file.read_text().splitlines()
    lines = [f"{line}\t{number % 7}" for number, line in enumerate(lines)]
    file.write_text("\n".join([f"{head}\topinion:float", *lines]) + "\n")
    fields = {**agreeing["load_col"], "inter": [*agreeing["load_col"]["inter"], "opinion"]}
    own = {**agreeing, "data_path": str(folder.parent), "load_col": fields}
    assert np.array_equal(table_of(own), table_of(agreeing))
    data, _ = prepared(own, opinion_field="opinion")
    assert sorted(set(data.histories.opinions)) == list(range(7))


# -- what is kept ------------------------------------------------------------------------------


def test_a_second_run_finds_it(agreeing, monkeypatch) -> None:
    data, _ = prepared(agreeing)
    first = data.histories.agreement
    (folder,) = kept()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("computed a second time")

    monkeypatch.setattr("recbole_mars.plugin.agreement.agree", never)
    assert np.array_equal(table_of(agreeing), first)
    assert fitted_agreement(data, data.config).n_items == data.log.n_items
    assert kept() == [folder]
    for change in (
        {"mars_agreement_factors": 2},
        {"mars_agreement_length": 20},
        {"opinion_field": "rating"},
        {"seed": 1},
        {"text_fields": ["title"], "mars_use_image": False},
        {"eval_args": {"split": {"LS": "test_only"}, "order": "TO", "mode": "labeled"}},
    ):
        with pytest.raises(AssertionError, match="computed a second time"):
            table_of(agreeing, **change)


@pytest.mark.parametrize("part", ["columns", "fitted"])
@pytest.mark.parametrize("damage", ["contents.json", "2.npy"])
def test_a_damaged_table_is_replaced(agreeing, caplog, part, damage) -> None:
    first = table_of(agreeing)
    (folder,) = kept()
    file = folder / part / damage
    file.write_bytes(file.read_bytes()[:-9])
    caplog.set_level(logging.WARNING)
    np.testing.assert_allclose(table_of(agreeing), first, atol=1e-6)
    assert "computed anew" in caplog.text
    caplog.clear()
    np.testing.assert_allclose(table_of(agreeing), first, atol=1e-6)
    assert "computed anew" not in caplog.text


def test_a_table_of_an_older_version_is_computed_anew(agreeing, caplog) -> None:
    """It lay in the folder itself, and nothing beside it."""
    first = table_of(agreeing)
    (folder,) = kept()
    for file in (folder / "columns").iterdir():
        file.rename(folder / file.name)
    for part in ("columns", "fitted"):
        shutil.rmtree(folder / part)
    caplog.set_level(logging.WARNING)
    np.testing.assert_allclose(table_of(agreeing), first, atol=1e-6)
    assert "computed anew" in caplog.text
    assert {path.name for path in folder.iterdir()} == {"columns", "fitted"}


def test_pairs_that_are_in_no_log(tiny, agreeing) -> None:
    """What is kept gives the test rows' numbers from the past of their users."""
    features = {"text_fields": ["title"], "image_dir": tiny["image_dir"]}
    data, _ = prepared({**agreeing, **features}, opinion_field="rating", mars_agreement_length=8)
    log, table = data.log, data.histories.agreement
    fitted = fitted_agreement(data, data.config)
    for row in np.flatnonzero(log.phases == TEST):
        past = np.arange(log.offsets[log.users[row]], row)
        own = fitted.past(
            log.items[past],
            data.histories.opinions[past],
            log.phases[past] == TRAIN,
            int(fitted.fold[log.users[row]]),
        )
        np.testing.assert_allclose(
            fitted.expect_after(own, log.items[[row]])[0], table[row], rtol=0, atol=1e-5
        )


def test_another_table_is_another_data_set(agreeing) -> None:
    """A killed run is not continued with other numbers."""
    plain, _ = prepared(agreeing)
    same, _ = prepared(agreeing)
    others = [
        prepared(agreeing, opinion_field="rating"),
        prepared(agreeing, text_fields=["title"], mars_use_image=False),
    ]
    assert same.fingerprint() == plain.fingerprint()
    assert len({plain.fingerprint(), *(data.fingerprint() for data, _ in others)}) == 3


# -- where it is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("model", ["DIN", "MARSAlign"])
def test_other_models(agreeing, model) -> None:
    with pytest.raises(ValueError, match="mars_agreement is for MARS, DMAE"):
        run(agreeing, model=model, threshold={"rating": 4})


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("train_neg_sample_args", SAMPLED, "train_neg_sample_args"),
        ("eval_args", {"mode": "uni10"}, "valid_neg_sample_args"),
    ],
)
def test_sampled_negatives(agreeing, key, value, named) -> None:
    with pytest.raises(ValueError, match=f"mars_agreement needs observed labels, and {named}"):
        run(agreeing, **{key: value})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mars_agreement": "yes"}, "mars_agreement must be True or False, got 'yes'"),
        ({"mars_agreement_factors": -1}, "mars_agreement_factors must be >= 0, got -1"),
        ({"mars_agreement_length": 1}, "mars_agreement_length must be >= 2, got 1"),
        ({"threshold": {"rating": 0}}, r"training (labels|opinions) must"),
    ],
)
def test_values_out_of_range(agreeing, changes, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        run(agreeing, **changes)


def test_a_last_batch_of_one(agreeing) -> None:
    _, (train, _, _) = prepared(agreeing)
    run(agreeing, train_batch_size=len(train._dataset) - 1)
