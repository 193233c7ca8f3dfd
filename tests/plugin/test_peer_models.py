"""What peers take from a data set beside what every CTR model does."""

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset

from recbole_mars import DIMO, FRNet
from recbole_mars.ctr import find_companions
from recbole_mars.data import TRAIN
from recbole_mars.plugin.value_checks import check_values


@pytest.mark.parametrize("history", ["all", "positive"])
def test_companions_are_counted_on_what_histories_hold_in_training(tiny, history):
    settings = {**tiny, "dimo_companions": 3, "dimo_window": 2, "history": history}
    config = Config("DIMO", "world", config_dict=settings)
    train, *_ = create_dataset(config).build()
    log = train.log
    held = (log.phases == TRAIN) & ((log.labels > 0) | (history == "all"))
    expected = find_companions(log, np.flatnonzero(held), 3, 2)
    every = find_companions(log, np.arange(len(log)), 3, 2)
    assert not np.array_equal(expected.items, every.items)
    found = DIMO(config, train).network.vectors
    np.testing.assert_array_equal(found.companions, expected.items)
    np.testing.assert_array_equal(found.shares, expected.shares)


@pytest.mark.parametrize("use_id", [True, False])
def test_fields_of_a_factorization_machine(tiny, use_id):
    settings = {**tiny, **({} if use_id else {"mars_use_user_id": False})}
    config = Config("FRNet", "world", config_dict=settings)
    network = FRNet(config, create_dataset(config).build()[0]).network
    assert (network.users is not None) == use_id
    assert network.items.width == 4 * network.item_weights.width == 8  # id and category
    fields = torch.ones(1, 2 + use_id, 4)
    assert network.refinement(fields).shape == fields.shape


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        ("UniSRec", "unisrec_experts", 0),
        ("LRD", "lrd_relations", 0),
        ("DIMO", "dimo_window", 0),
        ("FRNet", "frnet_hidden", [0]),
    ],
)
def test_values_out_of_range_are_found_before_the_data_is_read(empty_cwd, model, key, value):
    config = Config(model, "ml-100k", config_dict={"text_fields": ["movie_title"], key: value})
    with pytest.raises(ValueError, match=f"^{key} must"):
        check_values(config)
