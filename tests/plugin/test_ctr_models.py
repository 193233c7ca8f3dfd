"""What every CTR model of ours keeps to, by name and through RecBole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.quick_start import run_recbole
from recbole.utils import get_model

from recbole_mars.data.synthetic import SyntheticSettings, generate, write_atomic
from recbole_mars.evaluation import auc
from recbole_mars.plugin.config import CTR_MODELS, FEATURE_MODELS
from recbole_mars.plugin.dataset import ROW_FIELD
from recbole_mars.plugin.quick_start import load_data_and_model

AUGMENTATIONS = ("none", "mars", "cmr", "reppad")
MULTIMODAL = [name for name in CTR_MODELS if name in FEATURE_MODELS]


@pytest.fixture
def small(tiny):
    return {**tiny, "augmentation": "none", "epochs": 1, "dmae_width": 4, "mars_align_epochs": 1}


def made(settings, name):
    """The model before training, its training batches and its test batches."""
    config = Config(name, "world", config_dict={**settings, "history_labels": True})
    torch.manual_seed(0)
    train, _, test = data_preparation(config, create_dataset(config))
    return get_model(name)(config, train._dataset), train, test


def padded(batch, model, more):
    """The same histories with more padding behind them."""
    found = Interaction(dict(batch.interaction))
    for name in (model.ITEM_SEQ, model.label_list_field):
        found[name] = torch.nn.functional.pad(batch[name], (0, more))
    return found


@pytest.mark.parametrize("name", CTR_MODELS)
def test_padding_and_company_move_no_logit(small, name):
    model, _, test = made(small, name)
    model.eval()
    batch = next(iter(test))[0]
    with torch.no_grad():
        together = model.predict(batch)
        alone = torch.cat([model.predict(batch[i : i + 1]) for i in range(len(batch))])
        torch.testing.assert_close(alone, together)
        torch.testing.assert_close(model.predict(padded(batch, model, 3)), together)


@pytest.mark.parametrize("name", CTR_MODELS)
def test_what_lies_under_the_padding_is_not_read(small, name):
    model, _, test = made(small, name)
    model.eval()
    batch = next(iter(test))[0]
    before = model.predict(batch)
    places = torch.arange(batch[model.ITEM_SEQ].shape[1])
    unreal = places >= batch[model.ITEM_SEQ_LEN].unsqueeze(1)
    assert unreal.any()
    batch[model.ITEM_SEQ][unreal] = 7
    batch[model.label_list_field][unreal] = 1
    torch.testing.assert_close(model.predict(batch), before)


@pytest.mark.parametrize("name", CTR_MODELS)
def test_gradients_reach_every_weight_and_no_feature(small, name):
    model, train, _ = made(small, name)
    features = {n: b.clone() for n, b in model.named_buffers() if n.endswith("vectors.kept")}
    assert bool(features) == (name in MULTIMODAL)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for batch in train:
        model.calculate_loss(batch).backward()
        optimizer.step()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    for n, b in model.named_buffers():
        assert n not in features or (torch.equal(b, features[n]) and not b.requires_grad)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("name", CTR_MODELS)
def test_every_augmentation(small, name, augmentation):
    settings = {**small, "augmentation": augmentation, "mars_mark_borrowed": True}
    result = run_recbole(name, "world", config_dict={**settings, "history_labels": True})
    assert 0 < result["test_result"]["auc"] < 1


@pytest.mark.parametrize("name", CTR_MODELS)
@pytest.mark.parametrize(
    "changes",
    [
        {"mars_agreement": True},
        {"history_labels": False},
        {"fixed_negatives": 1, "threshold": None, "mars_agreement": True},
    ],
)
def test_agreement_and_plain_histories(small, name, changes):
    result = run_recbole(name, "world", config_dict={**small, **changes})
    assert 0 < result["test_result"]["auc"] < 1


@pytest.mark.parametrize("name", CTR_MODELS)
def test_mixed_precision(small, name):
    """RecBole's enable_amp: products in bfloat16 here, near the scores in float32."""
    model, train, _ = made(small, name)
    model.eval()
    batch = next(iter(train))
    expected = model.predict(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found, loss = model.predict(batch), model.calculate_loss(batch)
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    result = run_recbole(name, "world", config_dict={**small, "enable_amp": True})
    assert 0 < result["test_result"]["auc"] < 1


@pytest.mark.parametrize("name", CTR_MODELS)
def test_a_checkpoint_gives_the_same_scores(small, name):
    """And holds no features: the data set brings them."""
    result = run_recbole(name, "world", config_dict=small)
    (file,) = Path("saved").glob(f"{name}-*.pth")
    state = torch.load(file, weights_only=False)["state_dict"]
    assert not [key for key in state if key.endswith(("kept", "scales", "table", "present"))]
    _, model, _, _, _, test = load_data_and_model(str(file))
    model.eval()
    labels, scores = [], []
    for batch, *_ in test:
        labels.append(batch["label"].numpy())
        scores.append(model.predict(batch).detach().numpy())
    found = auc(np.concatenate(labels), np.concatenate(scores))
    assert found == pytest.approx(result["test_result"]["auc"], abs=1e-4)


def test_a_checkpoint_refuses_other_features(small):
    model, *_ = made(small, "DMAE")
    other, *_ = made({**small, "mars_use_image": False}, "DMAE")
    with pytest.raises(ValueError, match="other item features"):
        other.load_state_dict(model.state_dict())


@pytest.mark.parametrize("name", MULTIMODAL)
@pytest.mark.parametrize(
    "changes",
    [{"mars_use_image": False}, {"mars_use_text": False}, {"mars_use_aligned": True}],
)
def test_any_modalities(small, name, changes):
    result = run_recbole(name, "world", config_dict={**small, **changes})
    assert 0 < result["test_result"]["auc"] < 1


@pytest.mark.parametrize("name", MULTIMODAL)
def test_missing_features_are_said_before_anything_runs(small, name):
    without = {k: v for k, v in small.items() if k != "text_fields"}
    with pytest.raises(ValueError, match="item text is needed: set text_fields"):
        run_recbole(name, "world", config_dict=without)


@pytest.mark.parametrize("name", CTR_MODELS)
def test_processes_do_not_send_each_other_the_constants(small, name):
    model, _, _ = made(small, name)
    ignored = set(model._ddp_params_and_buffers_to_ignore)
    assert ignored.isdisjoint(model.state_dict())
    assert {n for n, _ in model.named_buffers()} <= ignored | set(model.state_dict())
    assert not ignored & {n for n, _ in model.named_parameters()}


@pytest.mark.parametrize("name", CTR_MODELS)
def test_same_seed_same_result(small, name):
    first, again = (run_recbole(name, "world", config_dict=small)["test_result"] for _ in range(2))
    assert first == again


@pytest.mark.parametrize("name", ["FM", "WideDeep"])
def test_context_models_of_recbole_join_on_the_same_targets(small, name):
    measured = {"metrics": ["AUC", "AUCLow", "LogLoss"], "valid_metric": "AUC"}
    config = Config(name, "world", config_dict={**small, **measured})
    train, _, test = (
        loader._dataset for loader in data_preparation(config, create_dataset(config))
    )
    _, ours, ours_test = made(small, "MARS")
    for theirs, mine in ((train, ours._dataset), (test, ours_test._dataset)):
        assert sorted(theirs.inter_feat[ROW_FIELD]) == sorted(mine.inter_feat[ROW_FIELD])
    assert not [field for field in train.fields() if field.endswith("_list")]
    result = run_recbole(name, "world", config_dict={**small, **measured})
    assert 0 < result["test_result"]["auc"] < 1
    by_time = {"eval_args": {"split": {"RS": [8, 1, 1]}, "group_by": None}}
    told = Config(name, "world", config_dict={**small, **measured, **by_time})["eval_args"]
    assert (told["order"], told["mode"]) == ("TO", {"valid": "labeled", "test": "labeled"})


def world_of(folder, **settings):
    """A world of three tastes; who knows those of users and items reaches an AUC of 0.9."""
    write_atomic(
        generate(SyntheticSettings(n_tastes=3, low_share=0.0, seed=1, **settings)), folder, "world"
    )
    return folder


@pytest.fixture(scope="module")
def tastes(tmp_path_factory):
    """In which each item is met often enough to learn its taste from ids."""
    folder = tmp_path_factory.mktemp("tastes")
    return world_of(folder, n_users=400, n_items=150, high_length=(20, 30))


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """In which an item is met three times, and only its text tells its taste."""
    few = {"n_users": 300, "n_items": 1500, "high_length": (15, 20), "popularity": 0.3}
    return world_of(tmp_path_factory.mktemp("contents"), **few, noise=0.2, missing_text=0.0)


def learnt(small, folder, name, **changes):
    """Test AUC of a model that trains for as long as it takes."""
    settings = {
        **small,
        "data_path": str(folder),
        "image_dir": str(folder / "world" / "images"),
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": 30,
        "history_labels": True,
        "train_batch_size": 128,
        "embedding_size": 8,
        "mars_dnn_hidden": [32],
        "mars_attention_hidden": [16],
        "unisrec_inner": 32,
        **changes,
    }
    return run_recbole(name, "world", config_dict=settings)["test_result"]["auc"]


@pytest.mark.parametrize("name", [name for name in CTR_MODELS if name != "FRNet"])
def test_the_planted_taste_is_learnt(tastes, small, name):
    assert learnt(small, tastes, name, epochs=12, learning_rate=0.01) > 0.8


@pytest.mark.parametrize("name", ["MARS", *MULTIMODAL])
def test_contents_are_learnt_where_ids_cannot_be(contents, small, name):
    """A plain DIN is at chance there; LRD's texts act through its loss alone."""
    changes = {"mars_use_image": False, "dmae_width": 8, "epochs": 8, "learning_rate": 0.005}
    found = learnt(small, contents, name, **changes)
    if name == "MARS":
        assert found < 0.55
    else:
        assert found > (0.55 if name == "LRD" else 0.65)
