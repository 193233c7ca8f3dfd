"""Where a pretrained model comes from: a local folder, or a hub, which ends as a local folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

__all__ = ["ModelFolder", "fetch_model"]

# What a model's settings and tokenizer are kept in. Exports to other frameworks are left out.
SETTINGS = ["*.json", "*.txt", "*.model", "*.jinja"]
WEIGHTS = ["*.safetensors"]
OLD_WEIGHTS = ["*pytorch_model*.bin"]  # read with weights_only=True, where nothing else is there
EXPORTS = ["onnx/*", "openvino/*", "original/*", "coreml/*", "*.onnx.json"]
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds a model in the format of `transformers`.

    path: the folder. name: what the user called it. revision: the commit on the hub, None for a
    local folder. weights: the weight files that are needed, relative to `path`.
    """

    path: Path
    name: str
    revision: str | None
    weights: tuple[str, ...]

    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file that the model is made of, by name."""
        names = {*self.weights, *_matching(self.path, SETTINGS)}
        return {name: _sha256(self.path / name) for name in sorted(names)}

    def read_json(self, name: str) -> Any:
        """The content of a JSON file of the folder; ValueError if it is not there or broken."""
        try:
            return json.loads((self.path / name).read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"model {self.name!r} needs a readable {name} in {self.path}: {error}; "
                f"get the model's folder anew"
            ) from error


def fetch_model(name: str, *, revision: str | None = None, prefix: str = "") -> ModelFolder:
    """Find a model: a local folder as it is, else the model of that name on the Hugging Face hub.

    A local folder never touches the network. A hub model is downloaded to the hub's cache, or
    taken from there when the hub cannot be reached; HF_HOME, HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE work as they do everywhere.

    revision: branch, tag or commit on the hub. prefix: of the weights that are needed, a regular
    expression: weight files that hold none of these are neither downloaded nor read, unless the
    model has no such weights at all.

    Raises ValueError if there is no such folder, the model cannot be had, or it has no weights.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ValueError(
                f"revision {revision!r} is for models of the hub, but {name} is a local folder; "
                f"drop the revision"
            )
        commit, folder = None, path.resolve()
    else:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
            raise ValueError(
                f"no model folder {name}: name a folder with a config.json, or a model of the "
                f"Hugging Face hub as 'owner/name'"
            )
        folder = _download(name, revision, prefix)
        commit = folder.name
    if not any((folder / file).is_file() for file in ("config.json", "modules.json")):
        raise ValueError(f"the model folder {folder} holds no config.json; is it a model's folder?")
    weights = _matching(folder, WEIGHTS) or _matching(folder, OLD_WEIGHTS)
    if prefix and (folder / INDEX).is_file():
        weights = sorted(_files_with(folder / INDEX, prefix))
    missing = [file for file in weights if not (folder / file).is_file()]
    if missing or not weights:
        raise ValueError(
            f"the model folder {folder} lacks its weights, {missing or 'a .safetensors file'}; "
            f"get the whole folder"
        )
    return ModelFolder(folder, name, commit, tuple(weights))


def _download(name: str, revision: str | None, prefix: str) -> Path:
    """The hub model's folder in the cache, with the files that are needed."""

    def get(patterns: Sequence[str]) -> Path:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), ignore_patterns=EXPORTS
            )
        )

    try:
        folder = get(SETTINGS)
        if prefix and (folder / INDEX).is_file():
            return get([*SETTINGS, *sorted(_files_with(folder / INDEX, prefix))])
        folder = get([*SETTINGS, *WEIGHTS])
        return folder if _matching(folder, WEIGHTS) else get([*SETTINGS, *OLD_WEIGHTS])
    except Exception as error:  # the hub's client raises those of several libraries
        at = f" at revision {revision!r}" if revision else ""
        raise ValueError(
            f"cannot get model {name!r}{at}: no such local folder, and the hub says: "
            f"{_first_line(error)}; check the name and the network, log in for a gated model "
            f"(HF_TOKEN), or copy the model's folder here and name that"
        ) from error


def _files_with(index: Path, prefix: str) -> set[str]:
    """Weight files that hold a tensor whose name starts like this; all, if there is no such."""
    places: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
    found = {file for tensor, file in places.items() if re.match(prefix, tensor)}
    return found or set(places.values())


def _matching(folder: Path, patterns: Sequence[str]) -> list[str]:
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(
        name
        for name in names
        if any(fnmatch(name, pattern) for pattern in patterns)
        and not any(fnmatch(name, pattern) for pattern in EXPORTS)
    )


def _sha256(path: Path) -> str:
    # The hub's cache names large files by their SHA-256: no need to read gigabytes again.
    target = path.resolve().name
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", target):
        return target
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
