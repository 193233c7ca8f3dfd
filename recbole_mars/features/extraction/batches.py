"""Running an encoder over batches, the next ones being prepared while the model works."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch

from recbole_mars.features.encoders import BatchEncoder, PreparedBatch
from recbole_mars.features.extraction.parts import Part, merge_parts

__all__ = ["Batch", "default_workers", "encode_batches"]

Tag = TypeVar("Tag")


@dataclass(frozen=True)
class Batch:
    """Inputs to encode together: n texts or files, and their digests, (n, 32) uint8."""

    inputs: Sequence[Any]
    digests: np.ndarray

    def halves(self) -> tuple[Batch, Batch]:
        """The first and the second half."""
        k = len(self.inputs) // 2
        return Batch(self.inputs[:k], self.digests[:k]), Batch(self.inputs[k:], self.digests[k:])


def default_workers() -> int:
    """Threads that prepare batches, if the user does not say: one a core, 16 at most."""
    return min(16, os.cpu_count() or 1)


def encode_batches(
    encoder: BatchEncoder[Any],
    batches: Iterable[tuple[Tag, Batch]],
    precision: str,
    workers: int | None = None,
) -> Iterator[tuple[Tag, Part]]:
    """Encode batches in their order, each with a tag that comes back with its result.

    precision: of the vectors, "float16" or "float32". workers: threads that prepare batches, that
    is decode pictures or tokenize texts. They stay a few batches ahead of the model.

    Where a batch does not fit into memory, it is encoded by halves. Raises ValueError if a single
    input does not fit, or a vector is not finite or too large for `precision`.
    """
    workers = workers or default_workers()
    source = iter(batches)
    with ThreadPoolExecutor(workers, "prepare") as pool:
        waiting: deque[tuple[Tag, Batch, Future[PreparedBatch]]] = deque()
        try:
            while True:
                for tag, batch in islice(source, workers + 1 - len(waiting)):
                    waiting.append((tag, batch, pool.submit(encoder.prepare, batch.inputs)))
                if not waiting:
                    return
                tag, batch, prepared = waiting.popleft()
                yield tag, _encode(encoder, batch, prepared.result(), precision)
        finally:
            for *_, future in waiting:
                future.cancel()


def _encode(
    encoder: BatchEncoder[Any], batch: Batch, prepared: PreparedBatch, precision: str
) -> Part:
    too_large = ""
    try:
        vectors = encoder.encode_batch(prepared) if prepared.size else np.zeros((0, 0))
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        too_large = str(error) or type(error).__name__
    if too_large:  # only now: the error holds the memory of the failed step
        del prepared
        torch.cuda.empty_cache()
        if len(batch.inputs) == 1:
            raise ValueError(
                f"encoder {encoder.name!r} runs out of memory on a single input, "
                f"{_shortened(batch.inputs[0])}: {too_large}; use a smaller model, a lower "
                f"precision, a device with more memory, or let it read less (max_length, "
                f"max_pixels)"
            )
        warnings.warn(
            f"a batch of {len(batch.inputs)} does not fit into memory and is encoded by halves; "
            f"a smaller batch size is faster",
            RuntimeWarning,
            stacklevel=2,
        )
        halves = [
            _encode(encoder, half, encoder.prepare(half.inputs), precision)
            for half in batch.halves()
        ]
        return merge_parts(halves)
    broken = sorted(prepared.broken)
    whole = [k for k in range(len(batch.inputs)) if k not in prepared.broken]
    if vectors.shape[:1] != (len(whole),) or vectors.ndim != 2:
        raise ValueError(
            f"encoder {encoder.name!r} must return shape ({len(whole)}, D), got {vectors.shape}"
        )
    truncated = np.zeros(len(batch.inputs), dtype=bool)
    truncated[list(prepared.truncated)] = True
    with np.errstate(over="ignore", under="ignore"):
        stored = vectors.astype(precision)
    bad = ~np.isfinite(stored).all(axis=1) | (vectors.any(axis=1) & ~stored.any(axis=1))
    if bad.any():
        culprit = batch.inputs[whole[int(np.flatnonzero(bad)[0])]]
        what = "beyond float16" if np.isfinite(vectors).all() else "not finite"
        raise ValueError(
            f"encoder {encoder.name!r} must give finite vectors, found values that are {what} for "
            f"{bad.sum()} inputs, the first {_shortened(culprit)}; "
            f"compute in bfloat16 or float32, and store float32"
        )
    return Part(
        batch.digests[whole],
        stored,
        truncated[whole],
        batch.digests[broken],
        np.array([prepared.broken[k] for k in broken], dtype=str),
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _shortened(item: Any) -> str:
    text = repr(str(item))
    return text if len(text) <= 80 else f"{text[:77]}..."
