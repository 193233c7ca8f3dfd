"""One thread, so that forked processes compute as this one does, and a model in folders."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest
import torch
from small_world import Deployment
from tqdm import tqdm


@pytest.fixture(scope="session", autouse=True)
def _torch_is_whole() -> None:
    # The first optimizer imports for seconds, which forked processes are to find done.
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    # A forked process that is killed with tqdm's own lock, which processes share, keeps it.
    tqdm.set_lock(threading.RLock())


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads, searching = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(searching)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "deployment")
