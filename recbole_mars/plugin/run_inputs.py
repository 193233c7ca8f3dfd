"""What a run would read, known before it starts: its resolved configuration and its files."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from recbole.config import Config

from recbole_mars.data.files import sha256_of_file
from recbole_mars.plugin.catalogue import ItemCatalogue
from recbole_mars.plugin.config import OUR_MODELS, asks_for_us, data_folder
from recbole_mars.plugin.dataset import MultimodalDataset
from recbole_mars.plugin.value_checks import check_values

__all__ = ["FILE_KEYS", "RunInputs", "run_inputs"]

# Files that the configuration names: what they hold is in the fingerprint.
FILE_KEYS = ("text_features", "image_features", "feature_ids", "image_dir", "image_list")
# Keys of this machine, or of what is shown and kept: no result depends on them.
_MACHINE_KEYS = {
    *("checkpoint_dir", "data_path", "show_progress", "state", "verbose", "reproducibility_log"),
    *("gpu_id", "use_gpu", "device", "worker", "nproc", "local_rank", "single_spec", "world_size"),
    *("ip", "port", "offset", "log_wandb", "wandb_project", "keep_prepared", "ray_address"),
    *("ray_workers", "encoder_device", "encoder_device_map", "encoder_workers"),
    *("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path"),
    *("MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "saved", "config_files"),
}


@dataclass(frozen=True)
class RunInputs:
    """A run that could be made.

    config: every key that may change its result, resolved, as plain values; a file's place is
    written from "{data_path}" on, or as ".../<name>" elsewhere, so that no machine shows.
    given: those of its keys that the user named, rather than a default.
    fingerprint: hash of all data and feature files.
    """

    config: dict[str, Any]
    given: frozenset[str]
    fingerprint: str

    def changes_since(self, config: Mapping[str, Any], fingerprint: str) -> list[str]:
        """What differs from a run of that configuration and data, in words; [] if nothing does.

        A key that the other does not know makes no difference while it has its default: it is
        newer than that run.
        """
        found = [] if fingerprint == self.fingerprint else ["the data or feature files"]
        for key, value in self.config.items():
            if key not in FILE_KEYS and value != config.get(key, value):
                found.append(f"{key} {config[key]} -> {value}")
            elif key in self.given and key not in config:
                found.append(f"{key} -> {value}")
        return found


def run_inputs(dataset: str, settings: Mapping[str, Any]) -> RunInputs:
    """Resolve a run's configuration and hash its files, without reading the data.

    settings: RecBole's keys and ours, `model` among them.

    Raises ValueError for an unknown key or value, a model that reads no histories, and a data or
    feature file, or a column of text, that is not there.
    """
    model = settings.get("model", "MARS")
    try:
        config = Config(model=model, dataset=dataset, config_dict=dict(settings))
    except (AttributeError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"RecBole refuses the configuration: {error} A CTR model needs eval_args with mode: "
            "labeled, and metrics such as AUC and LogLoss"
        ) from None
    _check_known(config)
    if model not in OUR_MODELS and not asks_for_us(config.external_config_dict):
        raise ValueError(
            f"model {model} must run on our data set, whose rows and activity groups are recorded; "
            "name one of our keys, such as augmentation: none"
        )
    if config["mars_theta"] is None:
        raise ValueError(
            f"model must be a sequential one, or a context model with augmentation: none, "
            f"got {model}"
        )
    check_values(config)
    folder = Path(data_folder(config))
    files = sorted(file for file in folder.glob(f"{dataset}.*") if file.is_file())
    if not any(file.name in (f"{dataset}.inter", f"{dataset}.inter.gz") for file in files):
        raise ValueError(
            f"data set {dataset}: there is no {folder / dataset}.inter or .inter.gz; put RecBole's "
            f"atomic files there, or name the folder that holds {dataset}/ as data_path"
        )
    if MultimodalDataset.uses_features(config):
        ItemCatalogue(config, folder, dataset)  # refuses sources that are not there
    digest = hashlib.sha256()
    for name, file in [*((file.name, file) for file in files), *_feature_files(config)]:
        state = file.stat()
        digest.update(f"{name} {_checksum(file, state.st_size, state.st_mtime_ns)}\n".encode())
    external = set(config.external_config_dict) - _MACHINE_KEYS - {"dataset"}
    return RunInputs(
        config=_plain(config, folder.resolve().parent),
        given=frozenset(external),
        fingerprint=digest.hexdigest(),
    )


def _check_known(config: Config) -> None:
    known = {key for keys in config.parameters.values() for key in keys}
    known.update(config.internal_config_dict, _MACHINE_KEYS, ("model", "dataset"))
    for key in config.external_config_dict:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"unknown key {key}: neither RecBole nor recbole_mars has it{hint}")


def _feature_files(config: Config) -> Iterator[tuple[str, Path]]:
    """Files below what the configuration names, by a name that is the same on every machine."""
    for key in FILE_KEYS:
        place = config[key]
        if not place or place == "rows":
            continue
        path = Path(place)
        if not path.exists():
            raise ValueError(f"{key}: there is no file or folder {path}")
        if path.is_file():
            yield key, path
            continue
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.suffix != ".lock":
                yield f"{key} {file.relative_to(path).as_posix()}", file


@cache
def _checksum(file: Path, size: int, changed: int) -> str:
    """Of the file's content; size and time of the last change keep the cache honest."""
    return sha256_of_file(file)


def _plain(config: Config, data_path: Path) -> dict[str, Any]:
    kept = {k: v for k, v in config.final_config_dict.items() if k not in _MACHINE_KEYS}

    def portable(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): portable(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [portable(v) for v in value]
        if isinstance(value, str) and os.path.isabs(value):
            inside = os.path.relpath(os.path.realpath(value), data_path)
            if inside.startswith(os.pardir):
                return f".../{Path(value).name}"
            return (Path("{data_path}") / inside).as_posix()
        return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)

    # Through JSON and back, as a record will hold it.
    return json.loads(json.dumps({k: portable(v) for k, v in sorted(kept.items())}))
