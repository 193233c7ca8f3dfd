"""What turns the inputs of items, texts or pictures, into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

__all__ = ["Encoder"]

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
