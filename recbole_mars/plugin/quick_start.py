"""A quick-start call that RecBole 1.2.1 cannot make as it is, under the same name."""

from __future__ import annotations

from collections.abc import Callable
from logging import getLogger
from pickle import UnpicklingError
from typing import Any

import torch
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_logger, init_seed

from recbole_mars.plugin.builtin import serve_builtin
from recbole_mars.plugin.config import OUR_MODELS, asks_for_us

__all__ = ["load_data_and_model"]


def load_data_and_model(
    model_file: str,
    *,
    state: str | None = None,
    before_model: Callable[[Any, Any], None] | None = None,
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """RecBole's function of this name, for torch >= 2.6 too.

    state: RecBole's log level, that of the training by default. before_model: called with the
    config and the training data set before the model is made.
    A RecBole checkpoint is a pickle: load only files that you or people you trust have trained.

    Raises ValueError for a file of another kind. Returns config, model, dataset, train_data,
    valid_data, test_data.
    """
    # Unsafe, and not to be had otherwise: RecBole writes its Config object into the file, from
    # which the data is prepared again. The docstring says whom to trust.
    try:
        checkpoint = torch.load(model_file, map_location="cpu", weights_only=False)
        config = checkpoint["config"]
    except (EOFError, UnpicklingError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{model_file} is no RecBole checkpoint: {error!r}") from None
    if config["model"] not in OUR_MODELS and asks_for_us(config.external_config_dict):
        serve_builtin(config["model"])  # the Config was unpickled, not made
    if state is not None:
        config["state"] = state
    config["single_spec"], config["local_rank"] = True, 0  # whoever trained it, one process loads
    config.compatibility_settings()  # numpy names that RecBole needs, as every new Config sets them
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    getLogger().info(config)
    dataset = create_dataset(config)
    getLogger().info(dataset)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    if before_model is not None:
        before_model(config, train_data._dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    model.load_state_dict(checkpoint["state_dict"])
    model.load_other_parameter(checkpoint.get("other_parameter"))
    return config, model, dataset, train_data, valid_data, test_data
