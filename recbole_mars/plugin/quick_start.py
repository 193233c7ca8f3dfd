"""Quick-start calls that RecBole 1.2.1 cannot make as they are, under the same names."""

from __future__ import annotations

import os
import sys
from logging import getLogger
from typing import Any

import recbole.config.configurator as configurator
import recbole.trainer.trainer as trainer_module
import torch
from recbole.data import create_dataset, data_preparation
from recbole.quick_start.quick_start import run_recboles as _run_recboles
from recbole.utils import get_model, init_logger, init_seed

from recbole_mars.plugin.builtin import serve_builtin
from recbole_mars.plugin.config import OUR_MODELS, asks_for_us

__all__ = ["load_data_and_model", "run_recboles"]


def load_data_and_model(model_file: str) -> tuple[Any, Any, Any, Any, Any, Any]:
    """RecBole's function of this name, for torch >= 2.6 too.

    A RecBole checkpoint is a pickle: load only files that you or people you trust have trained.

    Returns config, model, dataset, train_data, valid_data, test_data.
    """
    # Unsafe, and not to be had otherwise: RecBole writes its Config object into the file, from
    # which the data is prepared again. The docstring says whom to trust.
    checkpoint = torch.load(model_file, map_location="cpu", weights_only=False)
    config = checkpoint["config"]
    if config["model"] not in OUR_MODELS and asks_for_us(config.external_config_dict):
        serve_builtin(config["model"])  # the Config was unpickled, not made
    config.compatibility_settings()  # numpy names that RecBole needs, as every new Config sets them
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    getLogger().info(config)
    dataset = create_dataset(config)
    getLogger().info(dataset)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    model.load_state_dict(checkpoint["state_dict"])
    model.load_other_parameter(checkpoint.get("other_parameter"))
    return config, model, dataset, train_data, valid_data, test_data


def run_recboles(rank: int, *args: Any) -> None:
    """One process of a distributed run; RecBole's, brought to CPUs where there is no GPU.

    Being of this module, it makes a spawned process import recbole_mars.
    """
    # RecBole looks whether a folder exists, then makes it: two processes trip over each other.
    for name, module in list(sys.modules.items()):
        if name.startswith("recbole.") and hasattr(module, "ensure_dir"):
            vars(module)["ensure_dir"] = lambda folder: os.makedirs(folder, exist_ok=True)
    if not torch.cuda.is_available():
        _use_gloo()
    _run_recboles(rank, *args)


def _use_gloo() -> None:
    """What a CPU needs: RecBole asks for NCCL, CUDA devices and synchronised batch norm."""
    start_group = torch.distributed.init_process_group
    initialise = configurator.Config._init_device
    parallel = torch.nn.parallel.DistributedDataParallel

    def start_gloo(backend: str | None = None, **options: Any) -> None:
        start_group(backend="gloo", **options)

    def initialise_on_cpu(self: Any) -> None:
        # RecBole wants a GPU listed for each process.
        self.final_config_dict["gpu_id"] = ",".join(map(str, range(self["nproc"])))
        initialise(self)
        self.final_config_dict["device"] = torch.device("cpu")

    for owner, name, replacement in (
        (torch.distributed, "init_process_group", start_gloo),
        (torch.cuda, "set_device", lambda device: None),
        (torch.nn.SyncBatchNorm, "convert_sync_batchnorm", lambda module: module),
        (configurator.Config, "_init_device", initialise_on_cpu),
        (trainer_module, "DistributedDataParallel", lambda module, device_ids: parallel(module)),
    ):
        setattr(owner, name, replacement)
