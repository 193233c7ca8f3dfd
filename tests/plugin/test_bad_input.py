"""One clear error for each kind of bad input, and nothing lost."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import load_data_and_model, run_recbole

from recbole_mars.plugin import compat
from recbole_mars.plugin.value_checks import check_values


def run(tiny, model="MARS", **changes):
    return run_recbole(model=model, dataset="world", config_dict={**tiny, **changes})


def refused(tiny, match, **changes):
    with pytest.raises(ValueError, match=match):
        run(tiny, **changes)


@pytest.fixture
def copy(tiny, world, tmp_path):
    """The world in a folder of the test's own, and settings that point there."""
    shutil.copytree(world / "world", tmp_path / "own" / "world")
    tiny["data_path"] = str(tmp_path / "own")
    tiny["image_dir"] = str(tmp_path / "own" / "world" / "images")
    return tmp_path / "own" / "world"


def change_lines(file, change):
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *change(lines[1:])]) + "\n")


def set_ratings(rating):
    def change(lines):
        return ["\t".join([*line.split("\t")[:2], rating, line.split("\t")[3]]) for line in lines]

    return change


def blank_titles(lines):
    return [line.split("\t")[0] + "\t\tc" for line in lines]


# -- names and keys ----------------------------------------------------------------------------


def test_unknown_key(tiny):
    refused(tiny, r"unknown key mars_thta\. Did you mean mars_theta\?", mars_thta=0.1)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("text_field", "text_fields"), ("image_dirs", "image_dir"), ("historyy", "history")],
)
def test_a_misspelt_key_of_ours(tiny, typo, meant):
    refused(tiny, f"unknown key {typo}. Did you mean {meant}", **{typo: "x"})


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("mars_use_image", "no", "mars_use_image must be True or False, got 'no'"),
        ("history_labels", "yes", "history_labels must be True or False"),
        ("mars_width", "abc", "mars_width must be a whole number"),
        ("mars_attention_hidden", 80, "mars_attention_hidden must be a list"),
        ("mars_attention_hidden", [80, "a"], "mars_attention_hidden must list whole numbers >= 1"),
        ("mars_dnn_hidden", [0], "mars_dnn_hidden must list whole numbers >= 1"),
        ("mars_activation", "gelu", "mars_activation must be one of dice, bn_silu"),
        ("mars_theta", "high", "mars_theta must be a number"),
        ("mars_beta", -1.0, "mars_beta must be >= 0"),
        ("mars_bandwidth", "mean", "mars_bandwidth must be > 0, got 'mean'; use 'median'"),
        ("mars_bandwidth", 0.0, "mars_bandwidth must be > 0"),
        ("mars_bandwidth", [1.0], r"mars_bandwidth must be > 0, got \[1.0\]"),
        ("mars_dropout", 2.0, r"mars_dropout must lie in \[0, 1\)"),
        ("mars_align_dropout", 2.0, r"mars_align_dropout must lie in \[0, 1\)"),
        ("mars_theta", 1.5, "mars_theta must lie in"),
        ("mars_align_epochs", 0, "mars_align_epochs must be >= 1"),
        ("mars_donor_time", "later", "mars_donor_time must be auto, any or before"),
    ],
)
def test_values_of_the_wrong_kind_are_named_by_their_key(tiny, key, value, match):
    refused(tiny, match, **{key: value})


def test_augmentation_of_a_model_without_histories(tiny):
    with pytest.raises(ValueError, match="augmentation changes histories, and FM reads none"):
        run(tiny, model="FM", augmentation="mars")


@pytest.mark.parametrize(("typo", "meant"), [("MARZ", "MARS"), ("mars", "MARS"), ("DINN", "DIN")])
def test_model_name_with_a_typo(tiny, typo, meant):
    with pytest.raises(ValueError, match=f"model '{typo}' is not known.*{meant}"):
        run(tiny, model=typo)


@pytest.mark.parametrize(
    ("package", "found"), [("recbole", "1.1.1"), ("pandas", "3.0.1"), ("numpy", "2.1.0")]
)
def test_wrong_versions(monkeypatch, package, found):
    real = compat.version
    monkeypatch.setattr(compat, "version", lambda name: found if name == package else real(name))
    with pytest.raises(ImportError, match=rf"needs {package}>=.*found {found}.*pip install"):
        compat.check_versions()


@pytest.mark.parametrize("key", ["history", "augmentation", "retrieval_scope", "duplicates"])
def test_unknown_choices(tiny, key):
    refused(tiny, f"{key} must be one of", **{key: "nonsense"})


@pytest.mark.parametrize("length", [0, -1, "ten"])
def test_maximum_length(tiny, length):
    refused(tiny, "MAX_ITEM_LIST_LENGTH must be an integer >= 1", MAX_ITEM_LIST_LENGTH=length)


def test_benchmark_files(tiny):
    refused(tiny, "benchmark_filename", benchmark_filename=["train", "valid", "test"])


# -- files -------------------------------------------------------------------------------------


def test_missing_item_file(copy, tiny):
    (copy / "world.item").unlink()
    tiny["load_col"] = {"inter": tiny["load_col"]["inter"]}
    refused(tiny, r"text_fields needs .*world\.item, which does not exist")


def test_missing_text_column(tiny):
    refused(tiny, "text_fields: .* has no column 'plot', only", text_fields=["title", "plot"])


def test_empty_text_everywhere(copy, tiny):
    change_lines(copy / "world.item", blank_titles)
    refused(tiny, "at least one of .* items must have a text")


def test_no_source_of_text_or_images(tiny):
    refused(tiny, "item text is needed", text_fields=None)
    refused(tiny, "item images are needed", image_dir=None)
    refused(tiny, "both False", mars_use_text=False, mars_use_image=False)


def test_header_without_types(copy, tiny):
    text = (copy / "world.inter").read_text()
    (copy / "world.inter").write_text(text.replace("user_id:token", "user_id"))
    refused(tiny, r"column 'user_id' must be named name:type")


def test_missing_time_column(tiny):
    load = {**tiny["load_col"], "inter": ["user_id", "item_id", "rating"]}
    refused(tiny, "must have the column 'timestamp'", load_col=load)


def test_broken_pictures(copy, tiny):
    pictures = sorted((copy / "images").glob("*.png"))
    pictures[0].write_bytes(pictures[0].read_bytes()[:40])
    pictures[1].write_text("no picture")
    refused(tiny, "2 of .*broken|2 of .*decode|2 pictures", max_broken_images=0.01)
    run(tiny, max_broken_images=0.5)
    (report,) = Path("saved/features/world").glob("image-*/broken.txt")
    named = report.read_text()
    assert pictures[0].stem in named
    assert pictures[1].stem in named


# -- ready features ----------------------------------------------------------------------------


@pytest.fixture
def ready(tiny, world, tmp_path):
    """Ready text features for every item; returns their ids and matrix to spoil."""
    lines = (world / "world" / "world.item").read_text().splitlines()[1:]
    ids = [line.split("\t")[0] for line in lines]
    matrix = np.random.default_rng(0).normal(size=(len(ids), 6)).astype(np.float32)

    def save(matrix=matrix, ids=ids):
        np.save(tmp_path / "text.npy", matrix)
        (tmp_path / "ids.csv").write_text("item_id\n" + "\n".join(ids) + "\n")

    tiny.update(
        text_features=str(tmp_path / "text.npy"),
        feature_ids=str(tmp_path / "ids.csv"),
        mars_use_image=False,
    )
    save()
    return ids, matrix, save


def test_ready_features(ready, tiny):
    run(tiny)


def test_ready_features_without_ids(ready, tiny):
    refused(tiny, "feature_ids must name the file", feature_ids=None)


def test_unknown_item_in_the_features(ready, tiny):
    ids, _, save = ready
    save(ids=["stranger", *ids[1:]])
    refused(tiny, "text_features'.*stranger.*allow_unknown_features")
    run(tiny, allow_unknown_features=True)


def test_features_that_are_not_finite(ready, tiny):
    ids, matrix, save = ready
    matrix[3, 2] = np.nan
    save(matrix=matrix)
    refused(tiny, f"must be finite.*{ids[3]}")


def test_features_with_wrong_rows_or_type(ready, tiny):
    _, matrix, save = ready
    save(matrix=matrix[:-1])
    refused(tiny, "must hold a row per id")
    save(matrix=matrix.astype(np.int64))
    refused(tiny, "must be floats")


# -- interactions ------------------------------------------------------------------------------


def test_duplicate_rows(copy, tiny):
    change_lines(copy / "world.inter", lambda lines: [*lines, lines[0], lines[5]])
    refused(tiny, "2 rows repeat the user, item and time")
    run(tiny, duplicates="drop")
    run(tiny, duplicates="keep")


@pytest.mark.parametrize("rating", ["5", "1"])
def test_labels_all_equal(copy, tiny, rating):
    change_lines(copy / "world.inter", set_ratings(rating))
    refused(tiny, "labels must be of both classes.*threshold")


def ratings_by_place(*ratings):
    """Six users with these ratings, in this order of time."""
    return lambda lines: [
        f"u{user}\ti{place}\t{rating}\t{place}.{user}"
        for user in range(6)
        for place, rating in enumerate(ratings)
    ]


def test_validation_of_one_class(copy, tiny):
    change_lines(copy / "world.inter", ratings_by_place(5, 1, 5, 1, 5, 1))
    tiny["augmentation"] = "none"
    for metric in ("AUC", "UserAUC"):
        said = f"both classes for valid_metric {metric}, got 6 rows of label 1; change eval_args"
        refused(tiny, f"validation set must hold labels of {said}", valid_metric=metric)
    # The test set is of one class, too.
    found = run(tiny, valid_metric="LogLoss")["test_result"]
    assert np.isnan(found["auc"])
    assert found["logloss"] > 0


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"RS": [8, 1, 1]}])
def test_a_single_row_is_no_validation(copy, tiny, split):
    change_lines(copy / "world.inter", lambda lines: ratings_by_place(*[5, 1] * 5)(lines)[:10])
    arguments = {"split": split, "group_by": None if "RS" in split else "user", "order": "TO"}
    said = "validation set must have two rows or more, got 1; change eval_args"
    changes = {"augmentation": "none", "valid_metric": "LogLoss", "eval_args": arguments}
    refused(tiny, said, **changes)


def test_nothing_is_left_for_validation(copy, tiny):
    change_lines(copy / "world.inter", ratings_by_place(5, 1, 5))  # two targets each
    sampled = {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    said = "validation set must have {}, got 0; change eval_args"
    changes = {"augmentation": "none", "threshold": None, **sampled}
    refused(tiny, said.format("two rows or more"), **changes)
    refused(tiny, said.format("a row"), eval_args={"mode": "uni5"}, **changes)


def test_a_metric_that_is_never_defined(tiny):
    """Under leave-one-out no user has both classes."""
    said = "valid_metric must be defined on the validation set, got nan for UserAUC; take AUC"
    refused(tiny, said, augmentation="none", valid_metric="UserAUC", metrics=["UserAUC"])


def test_fewer_than_no_interactions(tiny):
    changes = {"augmentation": "none", "metrics": ["AUC", "AUCCold"], "valid_metric": "AUC"}
    refused(
        tiny, "cold_item_interactions must be >= 0, got -1", cold_item_interactions=-1, **changes
    )


def test_cold_items_need_our_data_set(tiny):
    """Any of our keys is not enough for a context model."""
    settings = {
        "model": "FM",
        "metrics": ["AUC", "AUCCold"],
        "valid_metric": "AUC",
        "threshold": {"rating": 4},
        "eval_args": {"split": {"RS": [8, 1, 1]}, "order": "TO", "mode": "labeled"},
    }
    plain = {key: tiny[key] for key in ("data_path", "load_col", "epochs", "embedding_size")}
    refused(plain, "AUCCold needs a data set of ours.*set augmentation: none", **settings)
    run(plain, augmentation="none", **settings)


@pytest.mark.parametrize("value", ["abc", 2.5, True, float("nan"), -1])
def test_a_window_that_is_none(tiny, value):
    with pytest.raises(ValueError, match=r"^dmae_window must be"):
        run(tiny, "DMAE", dmae_window=value)


@pytest.mark.parametrize(
    ("model", "changes", "complaint"),
    [
        ("DMAE", {"similarity_scale": "Quantile"}, r"^similarity_scale must be one of"),
        ("DMAE", {"dmae_lambda": float("nan")}, "^dmae_lambda must be a number, got nan"),
        ("UniSRec", {"unisrec_heads": 3, "load_col": None}, "^unisrec_heads must divide"),
    ],
)
def test_settings_that_are_wrong_before_anything_is_read(tiny, model, changes, complaint):
    settings = {**tiny, "text_fields": None, "image_dir": None, **changes}
    with pytest.raises(ValueError, match=complaint):
        check_values(Config(model, "world", config_dict=settings))


def test_heads_that_do_not_share_the_width_of_fields_too(tiny):
    with pytest.raises(ValueError, match=r"^unisrec_heads must divide .* 8 \(embedding_size 4"):
        run_recbole("UniSRec", "world", config_dict={**tiny, "unisrec_heads": 3})


def test_a_user_with_one_interaction(copy, tiny, caplog):
    change_lines(copy / "world.inter", lambda lines: [*lines, "loner\ti0\t5\t1.0"])
    config = Config("MARS", "world", config_dict={**tiny, "state": "INFO"})
    data = create_dataset(config)
    with caplog.at_level("INFO"):
        loaders = data_preparation(config, data)
    assert "1 users have one interaction" in caplog.text
    loner = data.field2token_id["user_id"]["loner"]
    assert not any((loader._dataset.inter_feat["user_id"] == loner).any() for loader in loaders)
    assert (data.log.users == loner).sum() == 1


def test_stage_one_needs_observed_labels(tiny):
    sampled = {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    with pytest.raises(ValueError, match="both classes") as caught:
        run(tiny, threshold=None, **sampled)
    assert "sample negatives" not in str(caught.value)
    run(tiny, threshold=None, augmentation="none", eval_args={"mode": "uni20"}, **sampled)


def test_a_vector_among_the_side_features(copy, tiny):
    lines = (copy / "world.item").read_text().splitlines()
    lines = [f"{lines[0]}\tvector:float_seq", *(f"{line}\t0.5 1.5" for line in lines[1:])]
    (copy / "world.item").write_text("\n".join(lines) + "\n")
    load = {**tiny["load_col"], "item": ["item_id", "vector"]}
    refused(tiny, "side feature vector is a float_seq", load_col=load)


def test_an_id_that_reads_as_missing(copy, tiny):
    change_lines(copy / "world.inter", lambda lines: [*lines, "NULL\ti0\t5\t1.0"])
    refused(tiny, r"world\.inter: 1 rows have no user_id, the first in line \d+.*renamed")


def test_a_text_column_named_twice_counts_once(tiny):
    assert run(tiny, text_fields=["title", "title"]) == run(tiny)


def test_no_high_active_user(tiny):
    refused(tiny, "no high-active user: mars_high_share 0.001", mars_high_share=0.001)


# -- artifacts ---------------------------------------------------------------------------------


def spoil(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_damaged_artifacts_are_made_anew(tiny):
    first = run(tiny)
    (prefixes,) = Path("saved/mars").glob("world-*/prefixes-*")
    for damaged in (
        prefixes / "values.npy",
        prefixes / "prefixes.json",
        prefixes.parent / "alignment.pt",
        *Path("saved/features/world").glob("text-*/features.npy"),
        *Path("saved/features/world").glob("image-*/manifest.json"),
    ):
        spoil(damaged)
        if damaged.parent != prefixes:
            shutil.rmtree(prefixes, ignore_errors=True)
        assert run(tiny) == first, damaged


def test_checkpoint_of_another_data_set(tiny, copy, world):
    run(tiny)
    (checkpoint,) = Path("saved").glob("MARS-*.pth")
    change_lines(copy / "world.inter", lambda lines: [*lines, "new\ti0\t5\t1.0", "new\ti1\t5\t2.0"])
    with pytest.raises(ValueError, match="trained on another data set"):
        load_data_and_model(str(checkpoint))
