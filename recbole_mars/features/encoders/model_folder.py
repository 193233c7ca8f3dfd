"""Where a pretrained model comes from: a local folder, or a hub, which ends as a local folder."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import snapshot_download

from recbole_mars.data.files import sha256_of_file

__all__ = ["ModelFolder", "fetch_model"]

# What a model's settings and its tokenizer are kept in.
SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
CODE = ("*.py",)
# Exports to other frameworks, which are large.
EXPORTS = ("onnx/*", "openvino/*", "original/*", "coreml/*")

# A file, or its shards by an index. Old files are read with weights_only=True, where the folder
# has no others.
SAFE = ("model.safetensors", "model.safetensors.index.json")
OLD = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds a model in the format of `transformers` or sentence-transformers.

    path: the folder. name: what the user called it. revision: the commit on the hub, None for a
    local folder. weights: the weight files that are needed. settings: the other files that the
    model is made of. Both relative to `path`, sorted.
    """

    path: Path
    name: str
    revision: str | None
    weights: tuple[str, ...]
    settings: tuple[str, ...] = ()

    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file that the model is made of, by name.

        Reads the weights, so this takes seconds for a large local model.
        """
        return {name: _sha256(self.path / name) for name in sorted({*self.weights, *self.settings})}

    def read_json(self, name: str) -> Any:
        """The content of a JSON file of the folder; ValueError if it is not there or broken."""
        return _read_json(self.path / name, self.name)


def fetch_model(
    name: str, *, revision: str | None = None, prefix: str = "", code: bool = False
) -> ModelFolder:
    """Find a model: a local folder as it is, else the model of that name on the Hugging Face hub.

    A local folder never touches the network. A hub model is downloaded to the hub's cache, or
    taken from there when the hub cannot be reached; HF_HOME, HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE work as they do everywhere.

    revision: branch, tag or commit on the hub. prefix: of the weights that are needed, a regular
    expression: of a model in shards, those that hold none of these are neither downloaded nor
    counted; of a model that has none of these, all are. code: fetch the Python files of a model
    that brings its own, too.

    Raises ValueError if there is no such folder, the model cannot be had, or it has no weights.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        if revision is not None:
            raise ValueError(
                f"revision {revision!r} is for models of the hub, but {name} is a local folder; "
                f"drop the revision"
            )
        folder = path.resolve()
    else:
        if path.is_file() or not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name):
            raise ValueError(
                f"no model folder {name!r}{', which is a file' if path.is_file() else ''}; name a "
                f"folder with a config.json, or a model of the Hugging Face hub as 'owner/name'"
            )
        folder = _download(name, revision, prefix, code)
    if not any((folder / file).is_file() for file in ("config.json", "modules.json")):
        raise ValueError(f"model folder {folder} must hold a config.json; is it a model's folder?")
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"model folder {folder} holds an adapter; merge it into its base model "
            f"(merge_and_unload of peft), save that and name its folder"
        )
    parts = _parts(folder, name)
    weights = [file for part in parts for file in _weights(folder, part, prefix, name)]
    missing = [file for file in weights if not (folder / file).is_file()]
    if missing or not _weights(folder, parts[0], prefix, name):
        raise ValueError(
            f"model folder {folder} lacks its weights, "
            f"{', '.join(missing) or ' or '.join(SAFE)}; get the whole folder"
        )
    kept = [
        file.relative_to(folder).as_posix()
        for part in parts
        for file in (folder / part).iterdir()
        if file.is_file()
        and any(fnmatch(file.name, pattern) for pattern in SETTINGS + (CODE if code else ()))
    ]
    commit = None if path.is_dir() else folder.name
    return ModelFolder(folder, name, commit, tuple(sorted(set(weights))), tuple(sorted(set(kept))))


def _download(name: str, revision: str | None, prefix: str, code: bool) -> Path:
    """The hub model's folder in the cache, with the files that are needed."""
    settings = [*SETTINGS, *(CODE if code else ())]

    def get(weights: Sequence[str] = ()) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=[*settings, *weights],
                ignore_patterns=list(EXPORTS),
            )
        )

    def wanted(part: str, kind: tuple[str, str]) -> list[str]:
        # An index came with the settings; of a part without one, ask for the usual file.
        return _weights(folder, part, prefix, name, (kind,)) or [_join(part, kind[0])]

    try:
        folder = get()
        parts = _parts(folder, name)
        safe = {part: wanted(part, SAFE) for part in parts}
        folder = get([file for files in safe.values() for file in files])
        lacking = [part for part, files in safe.items() if not _present(folder, files)]
        if not lacking:
            return folder
        old = {part: wanted(part, OLD) for part in lacking}
        return get([file for part in parts for file in safe[part] + old.get(part, [])])
    except _BrokenFile:
        raise
    except Exception as error:  # the hub's client raises those of several libraries
        at = f" at revision {revision!r}" if revision else ""
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"cannot get model {name!r}{at}: no such local folder, and the hub says: {said}; "
            f"check the name and the network, log in for a gated model (HF_TOKEN), or copy the "
            f"model's folder here and name that"
        ) from error


class _BrokenFile(ValueError):
    """A JSON file of a model is not there or broken."""


def _read_json(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _BrokenFile(
            f"model {name!r} needs a readable {path.name} in {path.parent}: {error}; "
            f"get the model's folder anew"
        ) from error


def _parts(folder: Path, name: str) -> list[str]:
    """Folders that may hold weights, the model's first: a sentence-transformers folder has some."""
    if not (folder / "modules.json").is_file():
        return [""]
    modules = _read_json(folder / "modules.json", name)
    try:
        paths = [PurePosixPath(module["path"]) for module in modules]
    except (KeyError, TypeError) as error:
        raise _BrokenFile(f"modules.json in {folder} must list modules with a path") from error
    if not paths or any(path.is_absolute() or ".." in path.parts for path in paths):
        raise _BrokenFile(f"modules.json in {folder} must list folders inside that folder")
    parts = ["" if path == PurePosixPath(".") else path.as_posix() for path in paths]
    # Settings of the whole are at the top; a part's folder may not be there, Normalize needs none.
    return [p for k, p in enumerate([*parts, ""]) if k == 0 or (folder / p).is_dir()]


def _weights(
    folder: Path,
    part: str,
    prefix: str,
    name: str,
    kinds: Sequence[tuple[str, str]] = (SAFE, OLD),
) -> list[str]:
    """Weight files of a part, as `transformers` would choose them; empty if it has none."""
    for single, index in kinds:
        if (folder / part / single).is_file():
            return [_join(part, single)]
        if (folder / part / index).is_file():
            try:
                places = _read_json(folder / part / index, name)["weight_map"].items()
            except (AttributeError, KeyError, TypeError) as error:
                raise _BrokenFile(f"{index} in {folder / part} must hold a weight_map") from error
            files = {file for tensor, file in places if re.match(prefix, tensor)}
            files = files or {file for _, file in places}
            return sorted(_join(part, file) for file in files)
    return []


def _present(folder: Path, files: Sequence[str]) -> bool:
    return bool(files) and all((folder / file).is_file() for file in files)


def _join(part: str, file: str) -> str:
    return f"{part}/{file}" if part else file


def _sha256(path: Path) -> str:
    # The hub's cache names large files by their SHA-256: no need to read gigabytes again.
    target = path.resolve().name
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", target):
        return target
    return sha256_of_file(path)
