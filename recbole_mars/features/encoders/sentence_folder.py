"""What a sentence-transformers folder says of its model, read without that package.

Such a folder lists modules in modules.json: a transformer, mostly a pooling, and steps after it.
What is not known here is an error: left out, it would change the vectors silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from recbole_mars.features.encoders.model_folder import ModelFolder

__all__ = ["SentenceFolder", "Step", "read_sentence_folder"]

# sentence-transformers' names of poolings → ours, in its order of concatenation.
POOLING_MODES = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weightedmean",
    "lasttoken": "last",
}
# Until version 5 a pooling's settings had a yes or no for each.
SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
BACKBONES = ("Transformer", "CLIPModel")
STEPS = ("Dense", "LayerNorm", "Normalize")
# How a transformer's output becomes its tokens' vectors, or its own vector of a text.
TOKENS = ("forward", "last_hidden_state", "token_embeddings")
FEATURES = ("get_text_features", "pooler_output", "sentence_embedding")


@dataclass(frozen=True)
class Step:
    """What is done after pooling: a kind of `STEPS`, the module's folder and its settings."""

    kind: str
    path: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SentenceFolder:
    """The modules of a sentence-transformers folder.

    backbone: the transformer's folder, relative, "" for the top. pooling: of `pooling.POOLINGS`,
    concatenated; empty where the transformer pools. pools_prompt: whether the prompt's tokens are
    pooled, too. steps: what follows. max_length: tokens, None if it is the tokenizer's.
    lower_case: of texts, before they are tokenized. prompt: comes before every text.
    """

    backbone: str
    pooling: tuple[str, ...]
    pools_prompt: bool
    steps: tuple[Step, ...]
    max_length: int | None
    lower_case: bool
    prompt: str

    @property
    def normalizes(self) -> bool:
        """Whether the vectors end as unit vectors."""
        return bool(self.steps) and self.steps[-1].kind == "Normalize"


def read_sentence_folder(folder: ModelFolder) -> SentenceFolder | None:
    """The modules of a sentence-transformers folder; None if the folder has no modules.json.

    Raises ValueError for a module or a setting that is not known here.
    """
    if not (folder.path / "modules.json").is_file():
        return None
    modules = [_kind_and_path(folder, module) for module in folder.read_json("modules.json")]
    modules = [(kind, path) for kind, path in modules if kind != "Dropout"]  # idle, not training
    kinds = [kind for kind, _ in modules]
    pools = kinds[1:2] == ["Pooling"]
    rest = kinds[1 + pools :]
    if not kinds or kinds[0] not in BACKBONES or not set(rest) <= set(STEPS):
        raise _unknown(folder, f"lists {', '.join(kinds) or 'nothing'} in modules.json")
    backbone = modules[0][1]
    pooling, pools_prompt = _pooling(folder, modules[1][1]) if pools else ((), True)
    max_length, lower_case = _transformer(folder, backbone, pools)
    return SentenceFolder(
        backbone=backbone,
        pooling=pooling,
        pools_prompt=pools_prompt,
        steps=tuple(_step(folder, kind, path) for kind, path in modules[1 + pools :]),
        max_length=max_length,
        lower_case=lower_case,
        prompt=_prompt(folder),
    )


def _kind_and_path(folder: ModelFolder, module: Any) -> tuple[str, str]:
    name = str(module.get("type", ""))
    if not name.startswith("sentence_transformers."):
        raise _unknown(folder, f"brings a module of its own, {name!r}, in modules.json")
    path = PurePosixPath(module["path"])
    return name.rsplit(".", 1)[1], "" if path == PurePosixPath(".") else path.as_posix()


def _pooling(folder: ModelFolder, path: str) -> tuple[tuple[str, ...], bool]:
    """Poolings that are concatenated, and whether the prompt is pooled."""
    name = f"{path}/config.json"
    settings = dict(folder.read_json(name))
    for width in ("embedding_dimension", "word_embedding_dimension"):
        settings.pop(width, None)  # the transformer says it
    pools_prompt = bool(settings.pop("include_prompt", True))
    switches = {key: settings.pop(key) for key in SWITCHES if key in settings}
    modes = settings.pop("pooling_mode", None)
    _refuse(folder, name, settings)
    if modes is None:
        chosen = tuple(how for key, how in SWITCHES.items() if switches.get(key))
        return chosen or ("mean",), pools_prompt
    modes = [modes] if isinstance(modes, str) else modes
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown or not modes:
        raise _unknown(folder, f"sets pooling_mode {modes} in {name}")
    return tuple(POOLING_MODES[mode] for mode in modes), pools_prompt


def _transformer(folder: ModelFolder, path: str, pools: bool) -> tuple[int | None, bool]:
    """The limit in tokens, and whether texts are lowered."""
    # sentence_bert_config.json, sentence_roberta_config.json and so on, by version
    files = sorted((folder.path / path).glob("sentence_*_config.json"))
    if not files:
        return None, False
    name = files[0].relative_to(folder.path).as_posix()
    settings = dict(folder.read_json(name))
    max_length = settings.pop("max_seq_length", None)
    lower_case = bool(settings.pop("do_lower_case", False))
    settings.pop("unpad_inputs", None)  # speed only
    task = settings.pop("transformer_task", "feature-extraction")
    inputs = settings.pop("modality_config", None)
    output = settings.pop("module_output_name", None)
    _refuse(folder, name, settings)
    if task != "feature-extraction":
        raise _unknown(folder, f"sets transformer_task {task!r} in {name}")
    method, result, usual = TOKENS if pools else FEATURES
    if inputs is not None and inputs.get("text") != {
        "method": method,
        "method_output_name": result,
    }:
        raise _unknown(folder, f"sets modality_config {inputs} in {name}")
    if output not in (None, usual):
        raise _unknown(folder, f"sets module_output_name {output!r} in {name}")
    if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
        raise _unknown(folder, f"sets max_seq_length {max_length!r} in {name}")
    return max_length, lower_case


def _step(folder: ModelFolder, kind: str, path: str) -> Step:
    name = f"{path}/config.json"
    if kind == "Normalize" and not (folder.path / name).is_file():
        return Step(kind, path)
    settings = dict(folder.read_json(name))
    for end in ("module_input_name", "module_output_name"):
        if settings.pop(end, None) not in (None, "sentence_embedding"):
            raise _unknown(folder, f"sets another {end} than 'sentence_embedding' in {name}")
    known = {
        "Dense": ("in_features", "out_features", "bias", "activation_function"),
        "LayerNorm": ("dimension",),
        "Normalize": (),
    }[kind]
    kept = {key: settings.pop(key) for key in known if key in settings}
    _refuse(folder, name, settings)
    return Step(kind, path, kept)


def _prompt(folder: ModelFolder) -> str:
    """What the model's makers want before every text, unless a task names another prompt."""
    name = "config_sentence_transformers.json"
    if not (folder.path / name).is_file():
        return ""
    settings = folder.read_json(name)
    kind = settings.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise _unknown(folder, f"is a {kind} by {name}")
    default = settings.get("default_prompt_name")
    if default is None:
        return ""
    prompts = settings.get("prompts") or {}
    if default not in prompts:
        raise ValueError(
            f"model {folder.name!r} must have the prompt {default!r} that is its default, "
            f"{name} has {sorted(prompts)}; mend that file"
        )
    return str(prompts[default] or "")


def _refuse(folder: ModelFolder, name: str, rest: Mapping[str, Any]) -> None:
    """Refuse settings that are left over and not off."""
    unknown = {key: value for key, value in rest.items() if value not in (None, False, {}, [], "")}
    if unknown:
        raise _unknown(folder, f"sets {unknown} in {name}")


def _unknown(folder: ModelFolder, what: str) -> ValueError:
    known: Sequence[str] = (BACKBONES[0], "Pooling", *STEPS)
    return ValueError(
        f"model {folder.name!r} {what}, which is not known here; what is known are the modules "
        f"{', '.join(known)} with their usual settings; encode with sentence-transformers itself "
        f"and import the vectors"
    )
