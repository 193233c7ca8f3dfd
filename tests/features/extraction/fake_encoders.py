"""A stand-in for a pretrained model whose vectors tell who shared a batch."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_mars.features import PreparedBatch, load_image


class FakeModel:
    """Encodes an input by its hash, and in the last column by all that shared its batch.

    A real model's rounding depends on the batch as well: equal bytes then mean equal batches.

    delay: seconds a batch. largest: batch that fits into memory. broken: inputs that cannot be
    read. kill_when: a part of an input at which the process dies, as long as the file that the
    environment's FAKE_MODEL_DIES names is there; it goes with the first, unless `always`.

    seen: the inputs of each batch that this object encoded. loads: calls of load.
    """

    name = "fake"

    def __init__(
        self,
        delay: float = 0.0,
        largest: int = 10**9,
        scale: float = 1.0,
        kill_when: str = "",
        always: bool = False,
        broken: Sequence[str] = (),
    ) -> None:
        self.delay, self.largest, self.scale, self.broken = delay, largest, scale, broken
        self.kill_when, self.always = kill_when, always
        self.seen: list[list[str]] = []
        self.loads = 0

    def settings(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def provenance(self) -> dict[str, Any]:
        return {"model": "fake"}

    def load(self) -> None:
        self.loads += 1

    def lengths(self, inputs: Sequence[Any]) -> list[int]:
        return [len(str(x)) if isinstance(x, str) else 0 for x in inputs]

    def prepare(self, inputs: Sequence[Any]) -> PreparedBatch:
        broken, content = {}, []
        for k, item in enumerate(inputs):
            try:
                if isinstance(item, Path):
                    load_image(item)
                if item in self.broken:
                    raise ValueError(f"{item} is broken")
                content.append(item)
            except ValueError as error:
                broken[k] = str(error)
        truncated = [k for k, item in enumerate(inputs) if len(str(item)) > 200]
        return PreparedBatch(content, len(content), broken, truncated)

    def encode_batch(self, batch: PreparedBatch) -> np.ndarray:
        if batch.size > self.largest:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried too much")
        self.seen.append([str(item) for item in batch.content])
        time.sleep(self.delay)
        if self.kill_when and self.kill_when in "".join(self.seen[-1]):
            self._die()
        own = np.array([self._hash(str(item)) for item in batch.content])
        together = sum(row[0] for row in own)
        return np.column_stack([own, np.full(len(own), together)]).astype(np.float32) * self.scale

    @property
    def inputs(self) -> list[str]:
        """All inputs that this object encoded."""
        return [item for batch in self.seen for item in batch]

    def _die(self) -> None:
        token = Path(os.environ["FAKE_MODEL_DIES"])
        try:
            if not self.always:
                token.rename(token.with_suffix(".gone"))
        except FileNotFoundError:
            return
        os.kill(os.getpid(), 9)

    @staticmethod
    def _hash(text: str) -> list[float]:
        return [1 + byte / 256 for byte in hashlib.sha256(text.encode()).digest()[:4]]
