"""Multimodal embeddings of users, behaviours and items, for retrieval.

Dimension letters: Q queries, H donors, R donor rows, I items, D width, B batch, L length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from recbole_mars.alignment.batches import Stretches, batches_by_length, read_sequences
from recbole_mars.alignment.network import AlignmentNetwork
from recbole_mars.alignment.pooling import pooled_user_embedding, running_user_embedding
from recbole_mars.data import TRAIN, InteractionLog, pad_ragged

__all__ = ["AlignmentExport", "export_embeddings"]


@dataclass(frozen=True)
class AlignmentExport:
    """Embeddings of the users who ask, of the donors who are asked, and of the items.

    query_rows: (Q,) int64 rows of the log, as they were given.
    query_embeddings: (Q, D) float32, emb_user^mm before each query row; zeros before a user's
        first behaviour.
    donor_users: (H,) int64 user ids, ascending.
    donor_embeddings: (H, D) float32, emb_user^mm over the donor's training behaviours.
    donor_rows: (R,) int64 rows of the log, ascending: the donors' training behaviours.
    donor_row_embeddings: (R, D) float16, emb_item^mm of each in its donor's sequence.
    item_embeddings: (I, D) float32, mean of emb_item^mm over the item's training behaviours.
    item_seen: (I,) bool, whether it has any; the embedding is zeros where not.
    """

    query_rows: np.ndarray
    query_embeddings: np.ndarray
    donor_users: np.ndarray
    donor_embeddings: np.ndarray
    donor_rows: np.ndarray
    donor_row_embeddings: np.ndarray
    item_embeddings: np.ndarray
    item_seen: np.ndarray


def export_embeddings(
    network: AlignmentNetwork,
    log: InteractionLog,
    query_rows: np.ndarray,
    donor_users: np.ndarray,
    *,
    max_length: int = 200,
    batch_users: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> AlignmentExport:
    """Embed queries, donors and items with a trained network.

    A query is embedded from the latest max_length behaviours before its row, of any phase, for
    they are its past, just as forward on that history alone would. The queries of a user with no
    more behaviours than that are read in one pass; beyond, each costs a pass of its own. A donor
    is embedded from the latest max_length of the training behaviours, and an item from all
    training behaviours of all users.

    query_rows: (Q,) rows of the log. donor_users: user ids, in any order.
    Raises ValueError for rows or users out of range, or a donor without training behaviours.
    """
    query_rows = np.asarray(query_rows, dtype=np.int64)
    donor_users = np.unique(np.asarray(donor_users, dtype=np.int64))
    if max_length < 1:
        raise ValueError(f"max_length must be >= 1, got {max_length}")
    if len(query_rows) and not 0 <= query_rows.min() <= query_rows.max() < len(log):
        raise ValueError(f"query_rows must lie in 0..{len(log) - 1}, the rows of the log")
    if len(donor_users) and not 0 < donor_users[0] <= donor_users[-1] < log.n_users:
        raise ValueError(f"donor_users must lie in 1..{log.n_users - 1}")
    idle = donor_users[log.training_counts()[donor_users] == 0]
    if len(idle):
        raise ValueError(
            f"donor_users must have training behaviours, {len(idle)} have none, "
            f"for example user {idle[0]}"
        )
    reader = _Reader(network.to(device), log, max_length, batch_users, progress)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        queries = reader.queries(query_rows)
        donors = reader.donors(donor_users)
        items = reader.items()
    network.train(was_training)
    return AlignmentExport(query_rows, queries, donor_users, *donors, *items)


class _Reader:
    """A network reading stretches of a log."""

    def __init__(
        self,
        network: AlignmentNetwork,
        log: InteractionLog,
        max_length: int,
        batch_users: int,
        progress: bool,
    ) -> None:
        self.network = network
        self.log = log
        self.max_length = max_length
        self.batch_users = batch_users
        self.progress = progress
        self.device = network.id_embedding.weight.device
        self.width = network.settings.width

    def queries(self, query_rows: np.ndarray) -> np.ndarray:
        """The user's embedding before each row, (Q, D)."""
        begins = self.log.offsets[self.log.users[query_rows]]
        starts = np.maximum(begins, query_rows - self.max_length)
        # Causal states do not know what follows: histories with one start share one pass.
        causal = self.network.settings.attention == "causal"
        _, owner = np.unique(starts if causal else query_rows, return_inverse=True)
        passes = int(owner.max()) + 1 if len(owner) else 0
        pass_starts, pass_ends = np.zeros((2, passes), dtype=np.int64)
        pass_starts[owner] = starts
        np.maximum.at(pass_ends, owner, query_rows)
        by_pass, counts = np.argsort(owner, kind="stable"), np.bincount(owner, minlength=passes)
        bounds = np.cumsum(counts) - counts

        found = np.zeros((len(query_rows), self.width), dtype=np.float32)
        every_row = np.arange(len(self.log))
        lengths = pass_ends - pass_starts
        for batch in self._batches(lengths, "queries"):
            rows = pad_ragged(every_row, pass_starts[batch], lengths[batch])
            embeddings, mask = self._embed(rows)
            # One place more, for the state after the last behaviour.
            states = running_user_embedding(F.pad(embeddings, (0, 0, 0, 1)), F.pad(mask, (0, 1)))
            asked = pad_ragged(by_pass, bounds[batch], counts[batch])
            slots, asked = np.nonzero(asked >= 0)[0], asked[asked >= 0]
            steps = query_rows[asked] - starts[asked]
            found[asked] = states[slots, steps].cpu().numpy()
        return found

    def donors(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Embeddings of the donors, (H, D), their rows, (R,), and those of the rows, (R, D)."""
        training = np.flatnonzero(self.log.phases == TRAIN)
        counts = self.log.training_counts()
        lengths = np.minimum(counts[users], self.max_length)
        starts = np.cumsum(counts)[users] - lengths
        bases = np.cumsum(lengths) - lengths
        pooled = np.zeros((len(users), self.width), dtype=np.float32)
        donor_rows = np.zeros(int(lengths.sum()), dtype=np.int64)
        row_embeddings = np.zeros((len(donor_rows), self.width), dtype=np.float16)
        for batch in self._batches(lengths, "donors"):
            rows = pad_ragged(training, starts[batch], lengths[batch])
            embeddings, mask = self._embed(rows)
            pooled[batch] = pooled_user_embedding(embeddings, mask).cpu().numpy()
            places = (bases[batch, None] + np.arange(rows.shape[1]))[rows >= 0]
            donor_rows[places] = rows[rows >= 0]
            row_embeddings[places] = embeddings[mask].cpu().numpy()
        return pooled, donor_rows, row_embeddings

    def items(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean embedding of every item, (I, D), and whether it has one, (I,) bool."""
        training = self.log.phases == TRAIN
        stretches = Stretches.cover(self.log, training, self.max_length, self.max_length // 2)
        sums = torch.zeros(self.log.n_items, self.width, device=self.device)
        for batch in self._batches(stretches.lengths, "items"):
            rows, counted = stretches.rows(batch)
            embeddings, _ = self._embed(rows)
            items = torch.from_numpy(self.log.items[rows[counted]]).to(self.device)
            sums.index_add_(0, items, embeddings[torch.from_numpy(counted).to(self.device)])
        counts = np.bincount(self.log.items[training], minlength=self.log.n_items)
        means = sums.cpu().numpy() / np.maximum(counts, 1)[:, None].astype(np.float32)
        return means, counts > 0

    def _batches(self, lengths: np.ndarray, title: str) -> Iterator[np.ndarray]:
        (filled,) = np.nonzero(lengths)
        batches = batches_by_length(lengths[filled], self.batch_users)
        for batch in tqdm(batches, desc=f"embedding {title}", disable=not self.progress):
            yield filled[batch]

    def _embed(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        sequences = read_sequences(self.log, rows, self.device)
        return self.network.embed(*sequences), sequences.mask
