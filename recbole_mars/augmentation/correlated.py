"""The item most correlated with each, by which users met them, and behaviours with it.

Dimension letters: I items with padding, M behaviours.
"""

from __future__ import annotations

import hashlib

import numpy as np
from scipy import sparse

from recbole_mars.augmentation.item_rows import ItemRows
from recbole_mars.data import InteractionLog

__all__ = ["SimilarRows", "most_correlated_items"]

_CELLS = 1 << 24  # pairs of a user's items that are counted at once


def most_correlated_items(log: InteractionLog, rows: np.ndarray) -> np.ndarray:
    """The most correlated other item of each, as CoSeRec's memory-based ItemCF-IUF has it.

    Cor(i, j) = sum over users u who met both of 1 / log(1 + n_u), over sqrt(n_i n_j), where n_u is
    how many items u met and n_i how many users met i (Liu et al., 2021, section 4.1; of several
    meetings of one user and item one counts). Of equal ones the smaller id is taken.

    rows: the behaviours that count. Returns (I,) int64, 0 for items that no user met with another.
    """
    pairs = np.unique(log.users[rows] * log.n_items + log.items[rows])
    users, items = np.divmod(pairs, log.n_items)
    per_user = np.bincount(users, minlength=log.n_users)
    per_item = np.bincount(items, minlength=log.n_items)
    values = 1 / np.sqrt(np.log1p(per_user[users]) * per_item[items])
    met = sparse.csr_matrix((values, (users, items)), (log.n_users, log.n_items))
    met_by = met.T.tocsr()
    present = np.flatnonzero(per_item)
    work = np.cumsum(np.bincount(items, per_user[users], minlength=log.n_items)[present])
    best = np.zeros(log.n_items, dtype=np.int64)
    for block in np.split(present, np.flatnonzero(np.diff(work // _CELLS)) + 1):
        if len(block):
            best[block] = _highest(met_by[block] @ met, block)
    return best


def _highest(correlations: sparse.csr_matrix, items: np.ndarray) -> np.ndarray:
    """Column of the highest entry in the row of each of the items, its own column left out."""
    correlations.sort_indices()
    columns, values = correlations.indices, correlations.data
    row = np.repeat(np.arange(len(items)), np.diff(correlations.indptr))
    values[columns == items[row]] = 0  # every row has this entry, so that none is empty
    highest = np.maximum.reduceat(values, correlations.indptr[:-1])
    where = np.flatnonzero((values == highest[row]) & (values > 0))
    found, first = np.unique(row[where], return_index=True)
    best = np.zeros(len(items), dtype=np.int64)
    best[found] = columns[where[first]]
    return best


class SimilarRows:
    """Behaviours with the item most correlated with that of another behaviour.

    pool: which rows may stand for an item; the correlation is counted on them, too. It is one for
    all targets, as in CoSeRec: with donor_time "before" the rows are earlier than the target, but
    which items go together was counted on all of the training part.
    """

    def __init__(self, pool: ItemRows) -> None:
        self.pool = pool
        self.similar_item = most_correlated_items(pool.log, pool.rows)

    def pick(self, behaviours: np.ndarray, targets: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """A row for each behaviour (M,), -1 if there is none. targets, draws: see ItemRows.pick.

        A masked behaviour, -1, has no similar one.
        """
        items = np.where(behaviours < 0, 0, self.pool.log.items[behaviours])
        return self.pool.pick(self.similar_item[items], targets, draws)

    def fingerprint(self) -> str:
        """Hash of the rows and of which items are similar."""
        digest = hashlib.sha256(self.pool.fingerprint().encode())
        digest.update(self.similar_item.tobytes())
        return digest.hexdigest()
