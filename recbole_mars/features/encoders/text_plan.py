"""How a model's vectors of texts are made, from what its folder says and what the user wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recbole_mars.features.encoders.device import pick_dtype
from recbole_mars.features.encoders.model_folder import ModelFolder
from recbole_mars.features.encoders.pretrained import load_config, load_tokenizer
from recbole_mars.features.encoders.sentence_folder import (
    SentenceFolder,
    Step,
    read_sentence_folder,
)
from recbole_mars.features.encoders.text_kind import is_fixed_length, position_limit, text_kind
from recbole_mars.features.encoders.text_tokens import TextTokenizer

__all__ = ["LONGEST", "TextPlan", "plan_text"]

# Where the model admits thousands of tokens: attention's cost grows with the square.
LONGEST = 512


@dataclass(frozen=True)
class TextPlan:
    """Everything about a text model but its weights.

    path: of the transformer. config: its own, of `transformers`. kind: see `text_kind`. pooling:
    concatenated; empty where the model has its own. steps: what follows pooling.
    """

    path: Path
    config: Any
    kind: str
    pooling: tuple[str, ...]
    steps: tuple[Step, ...]
    tokenizer: TextTokenizer
    dtype: torch.dtype

    @property
    def normalizes(self) -> bool:
        """Whether the vectors end as unit vectors."""
        return bool(self.steps) and self.steps[-1].kind == "Normalize"


def plan_text(
    folder: ModelFolder,
    *,
    pooling: str = "auto",
    max_length: int | None = None,
    normalize: bool | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> TextPlan:
    """Decide what the user left open; see `TextEncoder`, which has the same arguments.

    Raises ValueError if the folder says what is not known here, or if it and the arguments
    exclude each other.
    """
    sentence = read_sentence_folder(folder)
    path = folder.path / (sentence.backbone if sentence else "")
    config = load_config(path, folder.name, trust_remote_code)
    tokenizer = load_tokenizer(path, folder.name, trust_remote_code)
    kind = text_kind(config)
    limit = _limit(folder.name, config, tokenizer, sentence, max_length)
    return TextPlan(
        path=path,
        config=config,
        kind=kind,
        pooling=_pooling(folder.name, kind, sentence, pooling),
        steps=_steps(sentence.steps if sentence else (), normalize),
        tokenizer=TextTokenizer(
            tokenizer,
            max_length=limit,
            vocabulary=getattr(config.get_text_config(), "vocab_size", None),
            pad_to=position_limit(config) if is_fixed_length(config) else None,
            prompt=sentence.prompt if sentence else "",
            lower_case=sentence.lower_case if sentence else False,
        ),
        dtype=pick_dtype(dtype, config),
    )


def _pooling(name: str, kind: str, sentence: SentenceFolder | None, wanted: str) -> tuple[str, ...]:
    """How vectors of tokens become one; nothing for a model that does it itself."""
    if kind == "dual":
        if wanted != "auto" or (sentence and sentence.pooling):
            raise ValueError(
                f"pooling must be 'auto' for {name!r}, a model of pictures and texts with a "
                f"pooling of its own, got {(sentence and sentence.pooling) or wanted!r}"
            )
        return ()
    if wanted != "auto":
        return (wanted,)
    if sentence is None:
        # Only the last token of a decoder has seen the whole text.
        return ("last",) if kind == "decoder" else ("mean",)
    if not sentence.pooling:
        raise ValueError(
            f"modules.json of {name!r} must list a Pooling, it has none; set pooling, to 'mean' "
            f"or what the model's card says"
        )
    if sentence.prompt and not sentence.pools_prompt:
        raise ValueError(
            f"model {name!r} leaves its prompt {sentence.prompt!r} out of the pooling, which is "
            f"not known here; encode with sentence-transformers itself and import the vectors"
        )
    return sentence.pooling


def _limit(
    name: str,
    config: Any,
    tokenizer: Any,
    sentence: SentenceFolder | None,
    wanted: int | None,
) -> int:
    """Tokens of a text at most."""
    positions = position_limit(config)
    if wanted is not None:
        if positions is not None and wanted > positions:
            raise ValueError(
                f"max_length must be <= {positions}, the positions of model {name!r}, got "
                f"{wanted}; leave it out for the model's usual limit"
            )
        return wanted
    # A tokenizer that knows no limit says 1e30.
    limits = [positions, sentence.max_length if sentence else None, tokenizer.model_max_length]
    return min(LONGEST, *(int(limit) for limit in limits if limit is not None))


def _steps(steps: Sequence[Step], normalize: bool | None) -> tuple[Step, ...]:
    """The folder's steps, so that they end, or do not end, with unit vectors."""
    ends = bool(steps) and steps[-1].kind == "Normalize"
    if normalize is None or normalize == ends:
        return tuple(steps)
    return (*steps, Step("Normalize", "")) if normalize else tuple(steps[:-1])
