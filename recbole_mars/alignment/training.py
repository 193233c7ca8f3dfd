"""Training of the alignment network: one pass a user, resumable after every epoch.

Dimension letters: B batch, L length, S stretches.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from recbole_mars.alignment.batches import Stretches, batches_by_length, read_sequences
from recbole_mars.alignment.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from recbole_mars.alignment.network import AlignmentNetwork
from recbole_mars.data import TRAIN, VALID, InteractionLog

__all__ = ["TrainingHistory", "TrainingSettings", "train_alignment"]

PRECISIONS = ("float32", "bfloat16")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training, checked when made.

    epochs: passes over the training rows at most. patience: epochs without a better validation
    AUC before it stops. batch_users: stretches of behaviours in a batch, mostly one a user.
    learning_rate, weight_decay: of AdamW. max_length: behaviours in a stretch at most.
    seed: of the order of the batches, of the items drawn for L_stein and of dropout.
    precision: of the matrix products in training, "float32" or "bfloat16" by torch.autocast;
        weights, losses and validation stay in float32. bfloat16 pays for long stretches on
        processors that compute in it, and leaves the AUC within the spread of seeds.

    Raises ValueError for a value out of range.
    """

    epochs: int = 20
    batch_users: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    max_length: int = 200
    patience: int = 3
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_users", "max_length", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {self.precision!r}")


@dataclass(frozen=True)
class TrainingHistory:
    """What happened in training.

    epochs: one record an epoch with the means of "loss" (eq. 14), "ctr", "align" and "entropy",
    and with "auc" on the validation rows, where they can be judged.
    best_epoch: number, from 1, of the epoch whose weights the network now has.
    """

    epochs: tuple[dict[str, float], ...]
    best_epoch: int


def train_alignment(
    network: AlignmentNetwork,
    log: InteractionLog,
    *,
    settings: TrainingSettings,
    folder: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> TrainingHistory:
    """Train the network on the TRAIN rows of the log; it is left with its best weights.

    Every training row, the first of a user included, is a target once an epoch; sampled negatives
    are targets only, and in no history. A target's history is all that came before it, or, of users
    with more than max_length rows, what their stretch of max_length holds before it: a quarter of
    that at least, in validation the half. Training stops by the AUC of the VALID rows; without any,
    or if they hold one class only, all epochs are trained and the last one is kept.

    With a folder a checkpoint is written there after every epoch: the same call after a crash
    goes on from it and ends in the same weights as if never stopped. A checkpoint that is damaged
    or of other settings or data is reported in the log, and training starts anew.

    Raises ValueError if the training labels are all equal, and FloatingPointError if the loss is
    no longer finite.
    """
    train_rows, valid_rows = log.phases == TRAIN, log.phases == VALID
    if len(np.unique(log.labels[train_rows] > 0)) < 2:
        raise ValueError(
            "training labels must hold both classes, got "
            f"{np.unique(log.labels[train_rows]).tolist()}; check the threshold that makes them"
        )
    validated = len(np.unique(log.labels[valid_rows] > 0)) == 2
    if not validated:
        _log.warning(
            "%d validation rows do not hold both classes: all %d epochs are trained",
            valid_rows.sum(),
            settings.epochs,
        )
    _log.info(
        "%d of %d items have both modalities and take part in L_stein",
        int(network.paired.sum()),
        network.n_items - 1,
    )
    device = torch.device(device)
    network.to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,  # one pass over the weights, of which a large catalogue's ids are the most
    )
    length = _rows_of(log, settings.max_length)
    training = Stretches.cover(log, train_rows, length, length // 4)
    validation = Stretches.cover(log, valid_rows, length, length // 2)

    records: list[dict[str, float]] = []
    best: dict[str, torch.Tensor] = {}
    path, run = None, ""
    if folder is not None:
        path, run = Path(folder) / "alignment.pt", _fingerprint(network, log, settings)
        state = load_checkpoint(path, run)
        if state is not None:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            records, best = state["records"], state["best"]
            _log.info("%s holds %d epochs: training goes on from there", path, len(records))

    while len(records) < settings.epochs and not _out_of_patience(records, settings.patience):
        epoch = len(records) + 1
        record = _train_epoch(network, optimizer, log, training, settings, epoch, progress)
        if validated:
            record["auc"] = _validate(network, log, validation, settings.batch_users)
        records.append(record)
        _log.info("epoch %d: %s", epoch, ", ".join(f"{k} {v:.4f}" for k, v in record.items()))
        if _best_epoch(records) == epoch:
            best = {name: value.clone() for name, value in network.state_dict().items()}
        if path is not None:
            state = {
                "run": run,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "records": records,
                "best": best,
            }
            save_checkpoint(path, state)
    network.load_state_dict(best)
    network.eval()
    return TrainingHistory(tuple(records), _best_epoch(records))


def _train_epoch(
    network: AlignmentNetwork,
    optimizer: torch.optim.Optimizer,
    log: InteractionLog,
    stretches: Stretches,
    settings: TrainingSettings,
    epoch: int,
    progress: bool,
) -> dict[str, float]:
    """One epoch; returns the means over the targets of the loss and of its parts."""
    device = network.id_embedding.weight.device
    half = settings.precision == "bfloat16"
    # Each epoch draws from its own seed, so that a resumed run needs no memory of the others.
    generator = np.random.default_rng([settings.seed, epoch])
    batches = batches_by_length(stretches.lengths, settings.batch_users, generator)
    sums: dict[str, float] = {}
    n_targets = 0
    network.train()
    with _seeded(int(generator.integers(2**63)), device):
        for batch in tqdm(batches, desc=f"alignment {epoch}", leave=False, disable=not progress):
            rows, counted = stretches.rows(batch)
            items, mask, labels, hidden = read_sequences(log, rows, device)
            targets = torch.from_numpy(counted).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss, parts = network.loss(items, mask, labels, targets, hidden)
            # In one copy, for each is a wait for the GPU.
            values = torch.stack([loss.detach(), *parts.values()]).tolist()
            if not np.isfinite(values[0]):
                raise FloatingPointError(
                    f"the alignment loss became {values[0]} in epoch {epoch}; lower "
                    f"learning_rate ({settings.learning_rate}) or scale the features"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            n = int(counted.sum())
            n_targets += n
            for name, value in zip(("loss", *parts), values):
                sums[name] = sums.get(name, 0.0) + n * value
    return {name: value / n_targets for name, value in sums.items()}


@torch.inference_mode()
def _validate(
    network: AlignmentNetwork, log: InteractionLog, stretches: Stretches, batch_size: int
) -> float:
    """AUC over the counted rows of the stretches."""
    device = network.id_embedding.weight.device
    network.eval()
    scores, labels = [], []
    for batch in batches_by_length(stretches.lengths, batch_size):
        rows, counted = stretches.rows(batch)
        logits = network(*read_sequences(log, rows, device)).logits.cpu().numpy()
        scores.append(logits[counted])
        labels.append(log.labels[rows[counted]])
    return _auc(np.concatenate(scores), np.concatenate(labels) > 0)


def _auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties counting half, from the ranks."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n_positive = int(positive.sum())
    n_pairs = n_positive * (len(positive) - n_positive)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / n_pairs)


def _best_epoch(records: list[dict[str, float]]) -> int:
    """Number of the first epoch with the highest AUC, or of the last without any AUC."""
    if "auc" not in records[-1]:
        return len(records)
    return int(np.argmax([record["auc"] for record in records])) + 1


def _out_of_patience(records: list[dict[str, float]], patience: int) -> bool:
    return bool(records) and len(records) - _best_epoch(records) >= patience


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators, which dropout draws from, and put them back afterwards."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _rows_of(log: InteractionLog, behaviours: int) -> int:
    """Rows that hold so many behaviours, with what was drawn for each."""
    drawn = 0 if log.drawn is None else int(log.drawn.sum())
    return behaviours * round(len(log) / max(1, len(log) - drawn))


def _fingerprint(network: AlignmentNetwork, log: InteractionLog, settings: TrainingSettings) -> str:
    buffers = [buffer.cpu().numpy() for buffer in network.buffers()]
    columns = [log.users, log.items, log.labels, log.phases]
    columns += [] if log.drawn is None else [log.drawn]
    weights = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    return fingerprint(f"{network.settings}{weights}{settings}", columns + buffers)
