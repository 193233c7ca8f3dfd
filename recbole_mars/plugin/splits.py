"""RecBole's splits within each user, without a Python loop over the interactions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset

__all__ = ["VectorizedSplits"]


class VectorizedSplits(Dataset):
    """The same rows in the same parts and order as RecBole's own methods of these names."""

    def leave_one_out(self, group_by: str, leave_one_mode: str) -> list[Any]:
        counts = {"valid_and_test": (1, 1), "valid_only": (1, 0), "test_only": (0, 1)}
        if group_by is None:
            raise ValueError("leave one out strategy require a group field")
        if leave_one_mode not in counts:
            raise ValueError(
                f"eval_args' LS must be one of {sorted(counts)}, got {leave_one_mode!r}"
            )
        valid, test = counts[leave_one_mode]

        def bounds(total: int) -> Sequence[int]:
            held_out = min(valid + test, total - 1)  # of two rows one is left for the test set
            return total - held_out, total - min(test, held_out)

        return self._split_within(group_by, bounds)

    def split_by_ratio(self, ratios: Sequence[float], group_by: str | None = None) -> list[Any]:
        if group_by is None:
            return super().split_by_ratio(ratios)
        shares = [ratio / sum(ratios) for ratio in ratios]
        return self._split_within(group_by, lambda n: self._calcu_split_ids(n, shares))

    def _split_within(self, group_by: str, bounds: Callable[[int], Sequence[int]]) -> list[Any]:
        """Cut each group's rows, as they stand, at bounds(number of rows)."""
        groups = self.inter_feat[group_by].numpy()
        if not len(groups):
            raise ValueError(
                "there is nothing to split: no user has a target; a user's first interaction is "
                "none unless min_history is 0"
            )
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.int32)  # groups in their order of appearance
        rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
        ranks = rank[group]
        order = np.argsort(ranks, kind="stable")
        totals = np.bincount(ranks, minlength=len(first))
        sizes, which = np.unique(totals, return_inverse=True)
        cuts = np.array([list(bounds(int(size))) for size in sizes])[which]
        starts = np.cumsum(totals) - totals
        ranks = ranks[order]
        position = np.arange(len(order)) - starts[ranks]
        part = (position[:, None] >= cuts[ranks]).sum(1, dtype=np.int8)
        self._drop_unused_col()
        return [self.copy(self.inter_feat[order[part == i]]) for i in range(cuts.shape[1] + 1)]
