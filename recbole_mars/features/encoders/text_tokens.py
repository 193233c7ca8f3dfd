"""From texts to tokens, alike from any number of threads.

B batch, L length.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

__all__ = ["TextTokenizer", "Tokens"]


@dataclass(frozen=True)
class Tokens:
    """Tokens of a batch, padded on the right.

    ids: (B, L) int64. mask: (B, L) int64, 1 for tokens, 0 for padding. types: (B, L) int64, of
    models that tell segments apart. truncated: texts that were cut.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    types: torch.Tensor
    truncated: tuple[int, ...]

    def pin_memory(self) -> Tokens:
        """The same in memory that a GPU reads by itself."""
        return replace(
            self,
            ids=self.ids.pin_memory(),
            mask=self.mask.pin_memory(),
            types=self.types.pin_memory(),
        )


class TextTokenizer:
    """A tokenizer of `transformers`, set up once, for batches as long as their longest text.

    tokenizer: is changed, so it should not be used elsewhere. max_length: tokens at most, with
    those that the tokenizer adds. pad_to: pad every batch to this, None for the longest text.
    vocabulary: tokens that the model knows, None if it takes any. prompt: comes before each text.
    lower_case: the texts, with their prompt.

    Raises ValueError if max_length leaves no room for the text.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        vocabulary: int | None,
        pad_to: int | None = None,
        prompt: str = "",
        lower_case: bool = False,
    ) -> None:
        added = tokenizer.num_special_tokens_to_add()
        if max_length <= added:
            raise ValueError(
                f"max_length must be > {added}, the tokens that the tokenizer adds to a text, "
                f"got {max_length}; 128 suits titles with a plot"
            )
        self.max_length = max_length
        self.pad_to = pad_to
        self.prompt = prompt
        self.lower_case = lower_case
        self.vocabulary = vocabulary
        self.pad_id = _pad_id(tokenizer, vocabulary)
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        self._lock = threading.Lock()
        if self._backend is not None:
            # transformers sets these anew at each call, when another thread may be at work;
            # the backend alone, set once, is safe.
            self._backend.no_padding()
            self._backend.enable_truncation(max_length, direction=tokenizer.truncation_side)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenize texts, at least one; a text may have no token at all.

        Raises ValueError if a token is none that the model knows.
        """
        texts = [self.prompt + text for text in texts]
        if self.lower_case:
            texts = [text.lower() for text in texts]
        ids, types, truncated = self._encode(texts)
        length = self.pad_to or max(1, *map(len, ids))
        tokens = torch.full((len(ids), length), self.pad_id)
        mask = torch.zeros_like(tokens)
        segments = torch.zeros_like(tokens)
        for row, (some, kind) in enumerate(zip(ids, types)):
            tokens[row, : len(some)] = torch.tensor(some, dtype=torch.int64)
            mask[row, : len(some)] = 1
            segments[row, : len(some)] = torch.tensor(kind, dtype=torch.int64)
        largest = int(tokens.max())
        if self.vocabulary is not None and largest >= self.vocabulary:
            # Said here: a GPU would say it after the fact, and then compute no more.
            raise ValueError(
                f"tokens must be < {self.vocabulary}, what the model knows, got {largest}; the "
                f"folder's tokenizer is another model's, get the folder anew"
            )
        return Tokens(tokens, mask, segments, truncated)

    def _encode(
        self, texts: Sequence[str]
    ) -> tuple[list[list[int]], list[list[int]], tuple[int, ...]]:
        """Ids and segments by text, at most max_length, and which texts had more."""
        if self._backend is not None:
            encodings = self._backend.encode_batch(texts)
            cut = tuple(row for row, some in enumerate(encodings) if some.overflowing)
            return [some.ids for some in encodings], [some.type_ids for some in encodings], cut
        with self._lock:  # one in Python makes no promise
            whole = self._tokenizer(texts, padding=False, truncation=False)["input_ids"]
            kept = self._tokenizer(
                texts, padding=False, truncation=True, max_length=self.max_length
            )["input_ids"]
        cut = tuple(row for row, some in enumerate(whole) if len(some) > self.max_length)
        # One text is one segment; what such a tokenizer says of its own tokens is not reliable.
        return kept, [[0] * len(some) for some in kept], cut


def _pad_id(tokenizer: Any, vocabulary: int | None) -> int:
    """What padding is filled with: masked, so any token that the model knows will do."""
    # A tokenizer may have been given a padding token that its model was not.
    ids = tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id
    known = (some for some in ids if some is not None and (vocabulary is None or some < vocabulary))
    return next(known, 0)
