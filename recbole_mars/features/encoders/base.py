"""What turns the inputs of items, texts or pictures, into vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

__all__ = ["BatchEncoder", "Encoder", "PreparedBatch"]

Input = TypeVar("Input", contravariant=True)


class Encoder(Protocol[Input]):
    """Encodes a catalogue: `Encoder[str]` reads texts, `Encoder[Path]` reads picture files.

    name: short and stable; with `settings` it decides whether stored features are still valid.

    An encoder sees only inputs that are there: the extraction leaves out empty texts and pictures
    that do not decode. It may fit itself to the inputs, so one call gets the whole catalogue.
    """

    name: str

    def settings(self) -> dict[str, Any]:
        """Everything besides the inputs that changes the output, as JSON values."""

    def encode(self, inputs: Sequence[Input], progress: bool = False) -> np.ndarray:
        """One vector an input, (n, D) float32; an input it can say nothing of gets zeros."""


@dataclass(frozen=True)
class PreparedBatch:
    """Inputs of a batch, ready for the model.

    content: what `encode_batch` takes: of the inputs that are not broken, in their order.
    size: how many those are.
    broken: position in the batch → why that input cannot be read.
    truncated: positions of inputs that were cut to what the model takes.
    """

    content: Any
    size: int
    broken: Mapping[int, str] = field(default_factory=dict)
    truncated: Sequence[int] = ()


@runtime_checkable
class BatchEncoder(Protocol[Input]):
    """A pretrained model, which encodes each input by itself, a batch at a time.

    An input's vector does not depend on the others in its batch, beyond rounding. So a long
    extraction can be split into batches, interrupted, resumed and spread over machines.

    name: short and stable; with `settings` it decides whether stored features are still valid.
    """

    name: str

    def settings(self) -> dict[str, Any]:
        """Everything besides the inputs that changes the output beyond rounding, as JSON values.

        Reads the model's files, but need not load the model.
        """

    def provenance(self) -> dict[str, Any]:
        """What else a user wants to know of the model, as JSON values: its name, versions."""

    def load(self) -> None:
        """Load the model; a second call does nothing."""

    def lengths(self, inputs: Sequence[Input]) -> Sequence[int]:
        """How much work an input is, roughly: inputs of like length share a batch."""

    def prepare(self, inputs: Sequence[Input]) -> PreparedBatch:
        """Tokenize texts or decode pictures; called from several threads at once, after load."""

    def encode_batch(self, batch: PreparedBatch) -> np.ndarray:
        """Run the model: (batch.size, D) float32."""
