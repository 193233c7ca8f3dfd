"""Embedding many users: in this process, or by the workers of a Ray cluster, to the same bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from recbole_mars.serving.model_folder import TrainedModel
from recbole_mars.serving.scoring import Scorer
from recbole_mars.serving.users import UserRecord

__all__ = ["LocalEmbedder", "RayEmbedder", "Users"]

Users = list[tuple[str, UserRecord]]


class LocalEmbedder:
    """Embeds users with the model of this process, by one thread.

    How a sum is shared out among threads moves its last bits; one thread gives every machine of a
    kind the same.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def map(self, batches: Iterable[Users]) -> Iterator[Users]:
        """The batches, each user's record with its embedding (MARS, eq. 13), in their order."""
        for users in batches:
            with _one_thread():
                embeddings = self.scorer.embed([record for _, record in users])
            yield [
                (user, replace(record, space=self.scorer.space, embedding=embedding))
                for (user, record), embedding in zip(users, embeddings)
            ]


class RayEmbedder:
    """Embeds users on a Ray cluster: as LocalEmbedder, a worker a batch.

    model: the model's folder, which every machine finds under this path. address: of the cluster,
    "auto" for the one of this machine, "local" to start one here. workers: processes, of one core
    each; None: as many as the cluster has cores.
    Raises ValueError if workers < 1, ConnectionError if there is no cluster at the address.
    """

    def __init__(self, model: Path, address: str, workers: int | None = None) -> None:
        import ray  # takes seconds, and is for clusters

        if workers is not None and workers < 1:
            raise ValueError(f"workers must be >= 1, got {workers}")
        ray.init(address, ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
        self._count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._kind: Any = ray.remote(num_cpus=1)(_Worker)
        self._ray: Any = ray
        self._model = str(model.resolve())
        self._workers: list[Any] = []

    def map(self, batches: Iterable[Users]) -> Iterator[Users]:
        """See LocalEmbedder. Two batches a worker are on their way at once.

        Raises ConnectionError if a worker or the cluster is lost; the next call makes the workers
        anew. What a worker itself raises is raised here.
        """
        with self._reporting():
            while len(self._workers) < self._count:
                self._workers.append(self._kind.remote(self._model))
        waiting: deque[Any] = deque()
        for number, users in enumerate(batches):
            if len(waiting) == 2 * len(self._workers):
                yield self._answer(waiting.popleft())
            worker = self._workers[number % len(self._workers)]
            told = [(user, record.to_bytes()) for user, record in users]
            with self._reporting():
                waiting.append(worker.embed.remote(told))
        while waiting:
            yield self._answer(waiting.popleft())

    def close(self) -> None:
        """Give the workers back."""
        while self._workers:
            with suppress(self._ray.exceptions.RayError):  # dead already
                self._ray.kill(self._workers.pop())

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            self.close()
            raise ConnectionError(
                f"a worker on the Ray cluster is lost: {error}; the next use makes them anew"
            ) from error

    def _answer(self, reference: Any) -> Users:
        with self._reporting():
            told = self._ray.get(reference)
        return [(user, UserRecord.from_bytes(data)) for user, data in told]


class _Worker:
    """What runs on the cluster; users travel as the store's bytes."""

    def __init__(self, model: str) -> None:
        self._embedder = LocalEmbedder(Scorer(TrainedModel.load(Path(model)), None))

    def embed(self, told: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        users = [(user, UserRecord.from_bytes(data)) for user, data in told]
        (placed,) = self._embedder.map([users])
        return [(user, record.to_bytes()) for user, record in placed]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
