"""What a sentence-transformers folder does to a pooled vector: Dense, LayerNorm, Normalize.

B batch, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from recbole_mars.features.encoders.model_folder import ModelFolder
from recbole_mars.features.encoders.sentence_folder import Step

__all__ = ["UnitLength", "build_head"]

# Without weights or settings. The folder names classes of torch.nn; others are not imported.
ACTIVATIONS = ("ELU", "GELU", "Identity", "LeakyReLU", "Mish", "ReLU", "Sigmoid", "SiLU", "Tanh")


class UnitLength(nn.Module):
    """Scale rows to length 1, (B, D); zeros stay zeros."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return functional.normalize(vectors, dim=-1)


def build_head(folder: ModelFolder, steps: Sequence[Step]) -> nn.Sequential:
    """The steps as modules, with their weights, in float32.

    Raises ValueError if the weights of a step are missing or do not fit its settings, or if its
    activation is not known here.
    """
    modules: list[nn.Module] = []
    for step in steps:
        if step.kind == "Normalize":
            modules.append(UnitLength())
            continue
        try:
            if step.kind == "Dense":
                linear = nn.Linear(
                    step.settings["in_features"],
                    step.settings["out_features"],
                    bias=step.settings.get("bias", True),
                )
                modules += [_load(folder, step, "linear.", linear), _activation(folder, step)]
            else:
                norm = nn.LayerNorm(step.settings["dimension"])
                modules.append(_load(folder, step, "norm.", norm))
        except KeyError as error:
            raise ValueError(
                f"model {folder.name!r} must set {error} in {step.path}/config.json; "
                f"get the model's folder anew"
            ) from error
    return nn.Sequential(*modules).eval().requires_grad_(False)


def _load(folder: ModelFolder, step: Step, prefix: str, module: nn.Module) -> nn.Module:
    path = folder.path / step.path
    safe, old = path / "model.safetensors", path / "pytorch_model.bin"
    try:
        if safe.is_file():
            tensors = load_file(safe)
        else:
            tensors = torch.load(old, map_location="cpu", weights_only=True)
        names = {name.removeprefix(prefix): value.float() for name, value in tensors.items()}
        module.load_state_dict(names)
    except Exception as error:  # unpickling fails in many ways
        said = " ".join(str(error).split())[:300]
        raise ValueError(
            f"model {folder.name!r} must hold the weights of its {step.kind} in {path}: {said}; "
            f"get the model's folder anew"
        ) from error
    return module


def _activation(folder: ModelFolder, step: Step) -> nn.Module:
    # sentence-transformers' own default, for folders that name none
    name = str(step.settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    short = name.rsplit(".", 1)[-1]
    if not name.startswith("torch.nn.") or short not in ACTIVATIONS:
        raise ValueError(
            f"model {folder.name!r} has activation_function {name!r} in {step.path}/config.json, "
            f"need one of torch.nn's {', '.join(ACTIVATIONS)}; encode with sentence-transformers "
            f"itself and import the vectors"
        )
    module: nn.Module = getattr(nn, short)()
    return module
