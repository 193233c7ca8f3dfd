"""Encoding on a Ray cluster: a copy of the model a worker, shards dealt out as workers get free."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
import torch

from recbole_mars.features.encoders import BatchEncoder
from recbole_mars.features.extraction.batches import Batch, encode_batches
from recbole_mars.features.extraction.execution import Execution
from recbole_mars.features.extraction.parts import Part, merge_parts

__all__ = ["encode_on_cluster"]

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # a shard that brought down as many workers is not tried again


class _Worker:
    """Holds a copy of the model in a process of its own."""

    def __init__(self, encoder: BatchEncoder[Any], precision: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._encoder = encoder
        self._precision = precision
        self._threads = threads
        encoder.load()

    def encode(self, inputs: Sequence[Sequence[Any]], digests: Sequence[np.ndarray]) -> Part:
        """Encode the batches of a shard."""
        batches = enumerate(map(Batch, inputs, digests))
        parts = encode_batches(self._encoder, batches, self._precision, self._threads)
        return merge_parts([part for _, part in parts])


def encode_on_cluster(
    encoder: BatchEncoder[Any],
    shards: Iterable[tuple[int, list[Batch]]],
    precision: str,
    execution: Execution,
) -> Iterator[tuple[int, Part]]:
    """Encode shards, (number, batches), on a Ray cluster; they come back as they are done.

    encoder: not loaded yet; every worker loads it from the same name or folder, and reads pictures
    from the same paths, so these must be on storage that all nodes share. Vectors travel back by
    Ray: workers write nothing.

    A worker that dies is replaced and its shard given out again. Raises ValueError if the cluster
    cannot be reached, no worker starts, a shard brings down three workers, or the encoder does.
    """
    with _connected(str(execution.ray_address)):
        count, threads, gpus = _share_out(encoder, execution.ray_workers)
        remote: Any = ray.remote(num_cpus=threads, num_gpus=gpus)(_Worker)
        logger.info("encoding with %d workers on the Ray cluster, %d cores each", count, threads)

        def start() -> Any:
            return remote.remote(encoder, precision, threads)

        source = iter(shards)
        again: list[tuple[int, list[Batch]]] = []
        lost: Counter[int] = Counter()
        at_work: dict[Any, tuple[Any, tuple[int, list[Batch]]]] = {}

        def give(worker: Any) -> None:
            job = again.pop() if again else next(source, None)
            if job is not None:
                inputs = [batch.inputs for batch in job[1]]
                digests = [batch.digests for batch in job[1]]
                at_work[worker.encode.remote(inputs, digests)] = worker, job

        for _ in range(count):
            give(start())
        while at_work:
            (done, *_), _ = ray.wait(list(at_work))
            worker, job = at_work.pop(done)
            try:
                part = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, ValueError):
                    raise error.cause from None
                raise
            except ray.exceptions.RayError as error:  # the worker, its node, or the result is lost
                if getattr(error, "actor_init_failed", False):
                    reason = str(error).splitlines()[-1]  # after the remote traceback
                    raise ValueError(f"a worker cannot load the model: {reason}") from error
                lost[job[0]] += 1
                if lost[job[0]] >= ATTEMPTS:
                    raise ValueError(
                        f"shard {job[0]} brought down {ATTEMPTS} workers, the last by: {error}; "
                        f"does the model fit into a worker's memory? The shards that are done "
                        f"are kept"
                    ) from error
                logger.warning("a worker died over shard %d; it is replaced", job[0])
                again.append(job)
                give(start())
                continue
            yield job[0], part
            give(worker)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """A connection to the cluster, closed afterwards unless it was open before."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(
            address,
            logging_level=logging.WARNING,
            log_to_driver=False,
            # Workers import this library from where this process has it.
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
        )
    except Exception as error:  # of several kinds, by what is wrong
        raise ValueError(
            f"no Ray cluster at ray_address {address!r}: {error}; start one with "
            f"'ray start --head', or name 'local' for one of this machine"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _share_out(encoder: BatchEncoder[Any], workers: int | None) -> tuple[int, int, float]:
    """How many workers, and what each gets: CPU cores and GPUs."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = sum(int(node.get("CPU", 0)) for node in nodes)
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if getattr(encoder, "device", "cpu") == "cpu":
        gpus = 0
    count = workers or gpus or sum(1 for node in nodes if node.get("CPU"))
    if count < 1:
        raise ValueError("the Ray cluster has neither CPU cores nor GPUs to give")
    most = max(int(node.get("CPU", 0)) for node in nodes)  # a worker lives on one node
    threads = min(most, cores // count)
    if gpus:  # and beside its GPU
        shares = (node["CPU"] // node["GPU"] for node in nodes if node.get("GPU"))
        threads = min(threads, int(min(shares)))
    return count, max(1, threads), min(1.0, gpus / count)
