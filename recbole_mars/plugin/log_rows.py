"""Targets as row numbers of the log, where RecBole expects all of their columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Protocol

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_mars.data import HistoryIndex

__all__ = ["ROW_FIELD", "HistoryLengths", "LogRows", "RowNumbers"]

ROW_FIELD = "log_row"  # the target's row in the interaction log


class _Column(Protocol):
    """Values by row of the log; a tensor of all of them is one."""

    def __getitem__(self, rows: Any) -> Any: ...


class RowNumbers:
    """The column of row numbers."""

    def __getitem__(self, rows: Tensor) -> Tensor:
        return rows


class HistoryLengths:
    """The column of history lengths, cut at the longest allowed."""

    def __init__(self, index: HistoryIndex, max_length: int) -> None:
        self.index, self.max_length = index, max_length

    def __getitem__(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self.index.lengths(rows.numpy())).clamp_(max=self.max_length)


class LogRows(Interaction):
    """Some rows of the log as an Interaction whose columns are gathered when they are asked for.

    The splits of a data set, their orders and copies cost one number a row, not all columns.

    rows: (M,) int64. columns: by name, what column[rows] gives values of.
    """

    def __init__(self, rows: Tensor, columns: Mapping[str, _Column]) -> None:
        self.interaction = _Gathered(rows, columns, {})
        self.length = len(rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.interaction[index]
        picked = LogRows.__new__(LogRows)
        picked.interaction = self.interaction.take(index)
        picked.length = len(picked.interaction.rows)
        return picked

    def _reindex(self, index: Any) -> None:
        self.interaction = self.interaction.take(index)


class _Gathered(MutableMapping[str, Tensor]):
    def __init__(
        self, rows: Tensor, columns: Mapping[str, _Column], added: dict[str, Tensor]
    ) -> None:
        self.rows, self.columns, self.added = rows, dict(columns), added

    def take(self, index: Any) -> _Gathered:
        if isinstance(index, range):
            index = slice(index.start, index.stop, index.step)
        elif not isinstance(index, slice):
            places = np.asarray(index)
            index = torch.as_tensor(places if places.size else places.astype(np.int64))
            index = index.reshape(1) if index.dim() == 0 else index
        added = {name: values[index] for name, values in self.added.items()}
        return _Gathered(self.rows[index], self.columns, added)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Gathered:
        added = {name: values.clone() for name, values in self.added.items()}
        return _Gathered(self.rows.clone(), self.columns, added)  # the log's columns are shared

    def __getitem__(self, name: str) -> Tensor:
        return self.added[name] if name in self.added else self.columns[name][self.rows]

    def __setitem__(self, name: str, values: Tensor) -> None:
        self.added[name] = values

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self.added.pop(name, None)
        self.columns.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self.columns or name in self.added

    def __iter__(self) -> Iterator[str]:
        return iter({**self.columns, **self.added})

    def __len__(self) -> int:
        return len({**self.columns, **self.added})
