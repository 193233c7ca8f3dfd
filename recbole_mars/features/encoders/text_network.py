"""The forward pass of a text model: transformer, pooling, what follows.

B batch, L length, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from recbole_mars.features.encoders.model_folder import ModelFolder
from recbole_mars.features.encoders.pooling import pool
from recbole_mars.features.encoders.pretrained import POOLER, load_model
from recbole_mars.features.encoders.sentence_head import build_head
from recbole_mars.features.encoders.text_kind import is_fixed_length
from recbole_mars.features.encoders.text_plan import TextPlan
from recbole_mars.features.encoders.text_tokens import Tokens

__all__ = ["TextNetwork"]

# Checkpoints of T5 often lack a decoder: these load without. Others load whole, and lose it.
ENCODERS_ONLY = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
DECODER = r"(model\.)?decoder\."
NOT_TEXT = r"(?!text_)"
OTHER_SIDES = ("vision_model", "visual_projection", "audio_model", "audio_projection")


class TextNetwork:
    """A text model with its weights.

    device: where it is, None where device_map spreads it. Raises ValueError if the weights cannot
    be had, or the model cannot leave padding out.
    """

    def __init__(
        self,
        folder: ModelFolder,
        plan: TextPlan,
        *,
        device: torch.device | None,
        device_map: str | Mapping[str, Any] | None = None,
        load_in_8bit: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        import transformers

        unused, loader, keep = POOLER, transformers.AutoModel, None
        if plan.kind == "dual":
            unused, keep = NOT_TEXT, _text_side
        elif plan.config.model_type in ENCODERS_ONLY:
            loader = getattr(transformers, ENCODERS_ONLY[plan.config.model_type])
        elif plan.kind == "encoder-decoder":
            unused, keep = DECODER, _encoder
        self._model = load_model(
            loader,
            plan.path,
            folder.name,
            dtype=plan.dtype,
            device=device,
            device_map=device_map,
            load_in_8bit=load_in_8bit,
            trust_remote_code=trust_remote_code,
            unused=unused,
            keep=keep,
        )
        self._call = self._model.get_text_features if plan.kind == "dual" else self._model
        self._arguments = _arguments(self._model, plan.kind, folder.name)
        if is_fixed_length(plan.config):
            self._arguments.discard("attention_mask")
        self._pooling = plan.pooling
        self._head = build_head(folder, plan.steps).to(self.device)
        # A cache serves the next token: there is none.
        self._model.config.use_cache = False

    @property
    def device(self) -> torch.device:
        """Where tokens go first."""
        device: torch.device = self._model.device
        # Weights that accelerate holds back are nowhere; it moves the tokens itself.
        return torch.device("cpu") if device.type == "meta" else device

    @torch.inference_mode()
    def __call__(self, tokens: Tokens) -> torch.Tensor:
        """The vectors of a batch of texts, (B, D) float32, on the model's device."""
        given = {
            "input_ids": tokens.ids,
            "attention_mask": tokens.mask,
            "token_type_ids": tokens.types,
        }
        output = self._call(
            **{
                name: value.to(self.device, non_blocking=True)
                for name, value in given.items()
                if name in self._arguments
            }
        )
        if not self._pooling:  # a tensor, until transformers 5
            vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
        else:
            hidden = getattr(output, "last_hidden_state", None)
            if hidden is None:
                raise ValueError(
                    f"a text model must give last_hidden_state, {type(self._model).__name__} "
                    f"gives {', '.join(output)}; choose another model"
                )
            mask = tokens.mask.to(hidden.device)
            vectors = torch.cat([pool(hidden, mask, how) for how in self._pooling], dim=1)
        return self._head.to(vectors.device)(vectors.float())


def _text_side(model: Any) -> Any:
    """The model without what it has for pictures or sounds."""
    for name in OTHER_SIDES:
        if hasattr(model, name):
            setattr(model, name, None)
    return model


def _encoder(model: Any) -> Any:
    return model.get_encoder()


def _arguments(model: Any, kind: str, name: str) -> set[str]:
    """What the model takes of tokens, mask and segments."""
    # of the class: a model that is spread over devices has other methods
    method = type(model).get_text_features if kind == "dual" else type(model).forward
    known = inspect.signature(method).parameters
    if "attention_mask" not in known:
        raise ValueError(
            f"model {name!r} must take an attention_mask, a {type(model).__name__} takes none: "
            f"padding would change its vectors; choose another model"
        )
    return {"input_ids", "attention_mask", "token_type_ids"} & set(known)
