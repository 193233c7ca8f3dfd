"""Every way in which a RecBole user starts a run."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fresh_process import in_fresh_process
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import objective_function, run, run_recbole

import recbole_mars
from recbole_mars.data import TRAIN
from recbole_mars.plugin.dataset import MultimodalDataset
from recbole_mars.plugin.mistakes import is_a_mistake

REPOSITORY = Path(recbole_mars.__file__).resolve().parents[1]
BUILTIN = ["DIN", "DIEN", "GRU4Rec", "FM", "WideDeep", "BPR"]


def check_result(result):
    assert 0 < result["test_result"]["auc"] < 1
    assert {"auclow", "aucmid", "auchigh", "logloss"} <= set(result["test_result"])


def test_by_name_with_a_dictionary(tiny):
    check_result(run_recbole(model="MARS", dataset="world", config_dict=tiny))
    assert len(list(Path("saved/mars").glob("world-*/prefixes-*/prefixes.json"))) == 1


def test_by_class(tiny):
    check_result(run_recbole(model=recbole_mars.MARS, dataset="world", config_dict=tiny))


def test_by_config_files(tiny):
    Path("a.yaml").write_text(yaml.safe_dump({**tiny, "epochs": 9}))
    Path("b.yaml").write_text("epochs: 1\nmodel: MARS\ndataset: world\n")
    check_result(run_recbole(config_file_list=["a.yaml", "b.yaml"]))


def test_on_ml_100k_without_any_configuration(empty_cwd, monkeypatch):
    """RecBole's own data set: text from its columns, covers drawn; only made smaller here."""
    small = ["epochs=1", "mars_align_epochs=1", "MAX_ITEM_LIST_LENGTH=5", "mars_width=8"]
    small += ["mars_id_width=8", "show_progress=False", "state=WARNING", "train_batch_size=4096"]
    monkeypatch.setattr(sys, "argv", ["pytest", *(f"--{setting}" for setting in small)])
    check_result(run_recbole(model="MARS", dataset="ml-100k"))
    assert len(list(Path("saved/features/ml-100k/covers").glob("*.png"))) == 1682


def test_stage_one_as_a_model_of_its_own_gives_mars_its_artifact(tiny):
    check_result(run_recbole(model="MARSAlign", dataset="world", config_dict=dict(tiny)))
    (checkpoint,) = Path("saved/mars").glob("world-*/alignment.pt")
    written = checkpoint.stat().st_mtime_ns
    check_result(run_recbole(model="MARS", dataset="world", config_dict=tiny))
    assert checkpoint.stat().st_mtime_ns == written


def test_stage_one_exports_items_and_users(tiny):
    config = Config("MARSAlign", "world", config_dict=dict(tiny))
    train, _, test = data_preparation(config, create_dataset(config))
    model = recbole_mars.MARSAlign(config, train._dataset).eval()
    exported = model.export(test._dataset)
    log = train._dataset.log
    assert exported.item_embeddings.shape == (log.n_items, tiny["mars_width"])
    training = log.phases == TRAIN
    assert exported.item_seen.nonzero()[0].tolist() == np.unique(log.items[training]).tolist()
    assert exported.donor_users.tolist() == np.unique(log.users[training]).tolist()
    user = int(exported.donor_users[3])
    rows = np.flatnonzero(training & (log.users == user))[-tiny["MAX_ITEM_LIST_LENGTH"] :]
    items, labels = torch.from_numpy(log.items[rows])[None], torch.from_numpy(log.labels[rows])
    with torch.no_grad():
        embedded = model.network.embed(items, torch.ones_like(items).bool(), labels[None])
    np.testing.assert_allclose(exported.donor_embeddings[3], embedded[0].mean(0), atol=1e-5)


def test_same_seed_same_result_with_and_without_the_artifact(tiny):
    first = run_recbole(model="MARS", dataset="world", config_dict=dict(tiny))
    again = run_recbole(model="MARS", dataset="world", config_dict=dict(tiny))
    assert first == again


def test_load_data_and_model_in_a_fresh_process(tiny, empty_cwd):
    result = run_recbole(model="MARS", dataset="world", config_dict=tiny)
    (checkpoint,) = Path("saved").glob("MARS-*.pth")
    code = """
        import json, sys
        import recbole_mars
        from recbole.quick_start import load_data_and_model
        from recbole.utils import get_trainer
        config, model, dataset, train, valid, test = load_data_and_model(sys.argv[1])
        sys.argv = sys.argv[:1]
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        print(json.dumps(trainer.evaluate(test, load_best_model=False)))
    """
    assert in_fresh_process(code, empty_cwd, str(checkpoint)) == dict(result["test_result"])


@pytest.mark.parametrize("augmentation", ["none", "mars"])
def test_load_data_and_model_of_a_builtin_in_a_fresh_process(tiny, world, empty_cwd, augmentation):
    settings = {**builtin_settings(world), **tiny, "augmentation": augmentation}
    result = run_recbole(model="DIN", dataset="world", config_dict=settings)
    (checkpoint,) = Path("saved").glob("DIN-*.pth")
    code = """
        import json, sys
        import recbole_mars
        from recbole.quick_start import load_data_and_model
        from recbole.utils import get_trainer
        config, model, dataset, train, valid, test = load_data_and_model(sys.argv.pop())
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        print(json.dumps(trainer.evaluate(test, load_best_model=False)))
    """
    found = in_fresh_process(code, empty_cwd, str(checkpoint))
    assert set(found) == set(result["test_result"])
    if augmentation == "mars":  # without, RecBole samples the negatives that it evaluates
        assert found == dict(result["test_result"])


def test_hyper_tuning(tiny):
    from recbole.trainer import HyperTuning

    Path("fixed.yaml").write_text(yaml.safe_dump({**tiny, "model": "MARS", "dataset": "world"}))
    tuning = HyperTuning(
        objective_function,
        algo="exhaustive",
        params_dict={"choice": {"mars_theta": [0.2, 0.8], "learning_rate": [0.01]}},
        fixed_config_file_list=["fixed.yaml"],
    )
    tuning.run()
    assert set(tuning.best_params) == {"mars_theta", "learning_rate"}
    assert len(tuning.params2result) == 2
    # One alignment serves both thresholds.
    assert len(list(Path("saved/mars").glob("world-*"))) == 1
    assert len(list(Path("saved/mars").glob("world-*/prefixes-*"))) == 2


def builtin_settings(world):
    return {
        "data_path": str(world),
        "load_col": {
            "inter": ["user_id", "item_id", "rating", "timestamp"],
            "item": ["item_id", "category"],
            "user": ["user_id"],
        },
        "MAX_ITEM_LIST_LENGTH": 6,
        "epochs": 1,
        "embedding_size": 4,
        "mlp_hidden_size": [8],
        "show_progress": False,
        "state": "ERROR",
    }


def test_builtin_models_are_unchanged(world, empty_cwd):
    """The same numbers with and without us. saved=False: RecBole alone fails on torch >= 2.6."""
    code = """
        import json, sys
        if sys.argv[2] == "with":
            import recbole_mars
        from recbole.quick_start import run_recbole
        settings = json.loads(sys.argv[1])
        del sys.argv[1:]
        results = {}
        for model in settings.pop("models"):
            own = dict(settings)
            if model in ("DIN", "DIEN", "FM", "WideDeep"):
                own["threshold"] = {"rating": 4}
                own["train_neg_sample_args"] = None
                own["eval_args"] = {"mode": "labeled"}
                if model in ("DIN", "DIEN"):
                    own["eval_args"].update(split={"LS": "valid_and_test"}, order="TO")
            elif model == "GRU4Rec":
                own["train_neg_sample_args"] = None
            result = run_recbole(model, "world", config_dict=own, saved=False)
            results[model] = result["test_result"]
        print(json.dumps(results))
    """
    settings = json.dumps({**builtin_settings(world), "models": BUILTIN})
    alone = in_fresh_process(code, empty_cwd, settings, "without")
    together = in_fresh_process(code, empty_cwd, settings, "with")
    assert set(alone) == set(BUILTIN)
    assert together == alone


@pytest.mark.parametrize("model", ["DIN", "DIEN", "SASRec"])
def test_builtin_models_with_our_augmentation(model, world, tiny):
    settings = {**builtin_settings(world), **tiny, "augmentation": "mars"}
    settings.update(threshold={"rating": 4}, train_neg_sample_args=None, MAX_ITEM_LIST_LENGTH=12)
    if model != "SASRec":
        settings["eval_args"] = {
            "mode": "labeled",
            "split": {"LS": "valid_and_test"},
            "order": "TO",
        }
    result = run_recbole(model=model, dataset="world", config_dict=dict(settings))
    assert all(math.isfinite(value) for value in result["test_result"].values())

    def lengths(augmentation):
        config = Config(model, "world", config_dict={**settings, "augmentation": augmentation})
        train, _, _ = data_preparation(config, create_dataset(config))
        assert isinstance(train._dataset, MultimodalDataset)
        batch = train._dataset[list(range(len(train._dataset)))]
        assert batch["item_id_list"].shape[1] == 12
        return batch["item_length"]

    plain, augmented = lengths("none"), lengths("mars")
    assert (augmented >= plain).all()
    assert (augmented > plain).any()


def test_builtin_din_with_augmentation_needs_no_other_key(tiny, world):
    """Observed labels are the default then, since stage 1 learns from them."""
    result = run_recbole(model="DIN", dataset="world", config_dict={**tiny, "augmentation": "mars"})
    assert 0 < result["test_result"]["auc"] < 1


def test_our_keys_mean_nothing_to_models_without_histories(tiny, world):
    settings = {**builtin_settings(world), "threshold": {"rating": 4}}
    plain = run_recbole(model="BPR", dataset="world", config_dict=dict(settings))
    shared = {**settings, "text_fields": ["title"], "history": "positive"}
    assert run_recbole(model="BPR", dataset="world", config_dict=shared) == plain
    assert run_recbole(model="BPR", dataset="world", config_dict=dict(settings)) == plain


@pytest.mark.parametrize("mode", ["uni20", "full"])
def test_ranking_evaluation(tiny, mode):
    ranking = {
        "metrics": ["Recall"],
        "valid_metric": "Recall@10",
        "eval_args": {"split": {"LS": "valid_and_test"}, "mode": mode},
        "epochs": 1,
    }
    result = run_recbole(model="MARS", dataset="world", config_dict={**tiny, **ranking})
    assert 0 <= result["test_result"]["recall@10"] <= 1


@pytest.mark.parametrize(
    ("metric", "bigger"), [("UserAUC", True), ("AUCLow", True), ("LogLossLow", False)]
)
def test_our_metrics_choose_the_best_epoch(tiny, metric, bigger):
    split = {"eval_args": {"split": {"RS": [6, 2, 2]}, "order": "TO", "group_by": None}}
    result = run_recbole(
        model="MARS",
        dataset="world",
        config_dict={**tiny, **split, "metrics": [metric, "AUC"], "valid_metric": metric},
    )
    assert result["valid_score_bigger"] is bigger
    assert result["best_valid_score"] == result["best_valid_result"][metric.lower()]


def test_saved_data_and_loaders(tiny):
    """RecBole fails to read back loaders of a labeled evaluation: here they are saved only."""
    saved = {**tiny, "save_dataset": True}
    first = run_recbole(model="MARS", dataset="world", config_dict=dict(saved))
    assert run_recbole(model="MARS", dataset="world", config_dict=dict(saved)) == first
    for model in ("DIN", "MARS"):  # they share a folder, not a data set
        settings = {**saved, "augmentation": "mars"}
        assert run_recbole(model=model, dataset="world", config_dict=settings)["test_result"]
    loaders = {**tiny, "checkpoint_dir": "other", "save_dataloaders": True}
    check_result(run_recbole(model="MARS", dataset="world", config_dict=loaders))


def test_builtin_metrics_run_with_ours(tiny):
    metrics = ["AUC", "LogLoss", "MAE", "RMSE", "UserAUC", "LogLossLow"]
    result = run_recbole(model="MARS", dataset="world", config_dict={**tiny, "metrics": metrics})
    assert {"auc", "mae", "rmse", "userauc", "loglosslow"} <= set(result["test_result"])


@pytest.mark.parametrize(
    "ablation",
    [
        {"mars_use_text": False},
        {"mars_use_image": False},
        {"mars_use_stein": False},
        {"augmentation": "none"},
        {
            "mars_attention": "full",
            "history_labels": False,
            "mars_residual": False,
            "mars_entropy_sign": "printed",
        },
        {"retrieval_scope": "user"},
        {"mars_strategy": "top_k", "mars_theta_kind": "cosine", "mars_theta": 0.0},
        {"history": "positive", "min_history": 0},
        {"history_labels": True, "mars_mark_borrowed": True, "mars_use_user_id": True},
        {"eval_args": {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": None}},
    ],
    ids=str,
)
def test_options_run(ablation, tiny):
    result = run_recbole(model="MARS", dataset="world", config_dict={**tiny, **ablation})
    assert 0 < result["test_result"]["auc"] < 1


def test_script_explains_itself_and_runs(tiny, empty_cwd):
    Path("settings.yaml").write_text(yaml.safe_dump(tiny))
    script = str(REPOSITORY / "run_recbole_mars.py")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def call(*arguments):
        return subprocess.run(
            [sys.executable, script, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    explained = call("--help")
    assert "--key=value" in explained.stdout
    assert explained.returncode == 0
    assert "is not of the form" in call("--epochs", "1").stderr
    wrong = call("--config_files=settings.yaml", "--dataset=world", "--mars_theta=high")
    assert wrong.returncode == 2
    said = "run_recbole_mars.py: mars_theta must be a number, got 'high'; its default is 0.8\n"
    assert wrong.stderr.endswith(said)
    assert "Traceback" not in wrong.stderr
    assert "run_recbole_mars.py: [Errno 2]" in call("--config_files=none.yaml").stderr
    done = call("--model=MARS", "--dataset=world", "--config_files=settings.yaml", "--state=INFO")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "test result" in done.stderr


def test_what_may_be_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="shape") as found:
        np.zeros(3) + np.zeros(2)
    assert not is_a_mistake(found.value)
    with pytest.raises(ValueError, match="unknown key mars_thta") as found:
        Config(model="MARS", dataset="world", config_dict={"mars_thta": 0.5})
    assert is_a_mistake(found.value)


def test_run_with_one_process(tiny):
    check_result(run("MARS", "world", config_dict=tiny))
