"""RecBole's DIN and ours are one model: what a speed-up is measured against."""

from __future__ import annotations

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

from recbole_mars.plugin.from_recbole import copy_recbole_din

EQUAL = {
    "mars_attention_hidden": [8, 6],
    "mars_dnn_hidden": [8, 6],
    "mars_activation": "bn_silu",
    "mars_use_user_id": False,
    "history_labels": False,
    "augmentation": "none",
}


@pytest.fixture
def settings(tiny):
    """Of both models: the same rows in the same batches."""
    del tiny["mars_attention_hidden"], tiny["mars_dnn_hidden"]
    return {
        **tiny,
        "load_col": {
            "inter": ["user_id", "item_id", "rating", "timestamp"],
            "item": ["item_id", "category", "title"],  # a token and a token_seq
        },
        "threshold": {"rating": 4},
        "train_neg_sample_args": None,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "labeled"},
        "learner": "sgd",  # Adam divides by the size of a gradient, were it only rounding
        "learning_rate": 0.5,
        "metrics": ["AUC"],
        "valid_metric": "AUC",
    }


def prepare(model, settings):
    config = Config(model, "world", config_dict=settings)
    loaders = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], True)
    network = get_model(model)(config, loaders[0]._dataset)
    return network, get_trainer(config["MODEL_TYPE"], model)(config, network), loaders


def recbole_din(settings):
    return prepare("DIN", {**settings, "mlp_hidden_size": [8, 6], "min_history": 1})


def scores(network, loader):
    network.eval()
    with torch.no_grad():
        return torch.cat([network.predict(batch) for batch, *_ in loader]).logit()


def test_equal_logits_and_equal_training(settings):
    theirs, their_trainer, their_data = recbole_din(settings)
    ours, our_trainer, our_data = prepare("MARS", {**settings, **EQUAL})
    copy_recbole_din(theirs, ours)
    before = scores(theirs, their_data[2])
    torch.testing.assert_close(scores(ours, our_data[2]), before, rtol=0, atol=1e-5)
    for trainer, data in ((their_trainer, their_data), (our_trainer, our_data)):
        init_seed(2020, True)
        trainer.fit(data[0], data[1], saved=False, verbose=False)
    assert list(our_trainer.train_loss_dict.values()) == pytest.approx(
        list(their_trainer.train_loss_dict.values()), rel=1e-5
    )
    after = scores(theirs, their_data[2])
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(scores(ours, our_data[2]), after, rtol=0, atol=1e-5)
    copy_recbole_din(theirs, ours)
    torch.testing.assert_close(scores(ours, our_data[2]), after, rtol=0, atol=1e-5)


def test_what_does_not_fit_is_refused(settings):
    theirs, *_ = recbole_din(settings)
    cases = [
        ({"mars_dnn_hidden": [8]}, "layers must have one shape"),
        ({"mars_activation": "dice"}, "layers must have one shape"),
        ({"embedding_size": 3}, "the embedding of item_id"),
        ({"mars_use_user_id": True}, "does not read user features"),
        ({"history_labels": True}, "history_labels must be False"),
        ({"mars_attention_softmax": True}, "mars_attention_softmax must be False"),
        ({"mars_precision": "bfloat16"}, "mars_precision must be float32"),
        ({"load_col": {**settings["load_col"], "item": ["item_id"]}}, "item fields must be"),
    ]
    for change, message in cases:
        ours, *_ = prepare("MARS", {**settings, **EQUAL, **change})
        before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            copy_recbole_din(theirs, ours)
        assert all(tensor.equal(before[name]) for name, tensor in ours.state_dict().items())
