"""Making RecBole find us: models, data sets, trainers, metrics and defaults.

RecBole looks its parts up by name at run time, so registering is setting attributes. What has no
such look-up is replaced where RecBole calls it: two methods of Config, one of Trainer, the torch
that it loads checkpoints with, and load_data_and_model (see docs/recbole.md).
"""

from __future__ import annotations

import functools
import sys
import types
from typing import Any

import recbole.data.dataset as dataset_module
import recbole.quick_start as quick_start_package
import recbole.quick_start.quick_start as quick_start_module
import recbole.trainer as trainer_package
import recbole.trainer.trainer as trainer_module
from recbole.config import Config
from recbole.utils import ModelType
from recbole.utils.argument_list import dataset_arguments

from recbole_mars.plugin import models, trainer
from recbole_mars.plugin.augmenters import HEURISTICS
from recbole_mars.plugin.builtin import serve_builtin
from recbole_mars.plugin.compat import load_trusted_checkpoints
from recbole_mars.plugin.config import (
    OBJECTIVES,
    OUR_MODELS,
    check_keys,
    explain_unknown_model,
    internal_defaults,
    known_models,
    option_keys,
)
from recbole_mars.plugin.dataset import AUGMENTERS, CTRDataset
from recbole_mars.plugin.distributed import run_recboles
from recbole_mars.plugin.epochs import tell_epochs
from recbole_mars.plugin.metrics import register_metrics
from recbole_mars.plugin.quick_start import load_data_and_model
from recbole_mars.plugin.stage_one import prepare_retrieval
from recbole_mars.plugin.view_augmenters import VIEW_AUGMENTERS

__all__ = ["register"]


def register() -> None:
    """Register everything with RecBole; harmless when repeated."""
    if hasattr(dataset_module, "MARSDataset"):
        return
    for name in OUR_MODELS:
        path = f"recbole.model.sequential_recommender.{name.lower()}"
        module = types.ModuleType(path)
        module.__spec__ = types.SimpleNamespace(name=path)  # type: ignore[assignment]
        setattr(module, name, getattr(models, name))
        sys.modules[path] = module
        setattr(dataset_module, f"{name}Dataset", CTRDataset)
        kind = trainer.MARSAlignTrainer if name == "MARSAlign" else trainer.MARSTrainer
        setattr(trainer_package, f"{name}Trainer", kind)
    AUGMENTERS.update({"mars": prepare_retrieval, **HEURISTICS, **VIEW_AUGMENTERS})
    tell_epochs(trainer_module.Trainer)
    register_metrics()
    # RecBole reuses a saved data set if these keys agree; ours change it too.
    dataset_arguments.extend(key for key in option_keys() if key not in dataset_arguments)
    load_trusted_checkpoints(trainer_module)
    for module in (quick_start_package, quick_start_module):
        module.load_data_and_model = load_data_and_model
        module.run_recboles = run_recboles
    _extend_config()


def _lay_under(config: Config, defaults: dict[str, Any]) -> None:
    """Put our defaults over RecBole's and under what the user says."""
    config.internal_config_dict.update(defaults)
    external = config.external_config_dict
    if "eval_args" in defaults and isinstance(external.get("eval_args"), dict):
        # Who changes the split only still wants labeled evaluation in time order.
        external["eval_args"] = {**defaults["eval_args"], **external["eval_args"]}


def _extend_config() -> None:
    """Lay our defaults over RecBole's, check our keys, and explain unknown model names."""
    load_defaults = Config._load_internal_config_dict
    find_model = Config._get_model_and_dataset

    @functools.wraps(load_defaults)
    def load_defaults_and_ours(self: Config, model: str, model_class: Any, dataset: str) -> None:
        load_defaults(self, model, model_class, dataset)
        external = self.external_config_dict
        known = {key for keys in self.parameters.values() for key in keys}
        check_keys(external, known.union(self.internal_config_dict))
        if model_class.type != ModelType.SEQUENTIAL:
            if external.get("augmentation", "none") != "none":
                raise ValueError(
                    f"augmentation changes histories, and {model} reads none; set it to none, or "
                    "take a sequential model"
                )
            asks = "augmentation" in external or external.get("fixed_negatives")
            if model_class.type == ModelType.CONTEXT and asks:
                # To be compared with models of histories: on their targets and splits.
                _lay_under(self, internal_defaults(model, model_class, dataset, external))
                serve_builtin(model, reads_histories=False)
            return  # our keys, in a file that several models share, mean nothing to it
        asked = external.get("augmentation")
        if asked in OBJECTIVES and not issubclass(model_class, models.MARS):
            raise ValueError(
                f"augmentation {asked} trains MARS by a loss of its own, which {model} "
                "cannot have; take model MARS, or an augmentation of histories such as cmr or cmrsi"
            )
        defaults = internal_defaults(model, model_class, dataset, external)
        _lay_under(self, defaults)
        if defaults and model not in OUR_MODELS:
            serve_builtin(model)

    @functools.wraps(find_model)
    def find_model_or_explain(self: Config, model: Any, dataset: Any) -> Any:
        try:
            return find_model(self, model, dataset)
        except (ValueError, AttributeError, ImportError) as error:
            name = str(model if model is not None else self.external_config_dict.get("model"))
            if name in known_models():  # it is the reason that is unknown, not the model
                raise
            raise ValueError(explain_unknown_model(name)) from error

    Config._load_internal_config_dict = load_defaults_and_ours
    Config._get_model_and_dataset = find_model_or_explain
