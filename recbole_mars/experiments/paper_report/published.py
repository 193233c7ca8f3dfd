"""What a paper prints, as it stands there: the data, its comparison and its ablations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Paper", "PaperResult", "compact"]


class PaperResult(NamedTuple):
    """A method's AUC and its RelaImpr in percent, nan where it is not printed."""

    auc: float
    rela_impr: float = math.nan


def compact(name: str) -> str:
    """A name without case and punctuation: "Random-Seq" and "random_seq" are one."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


@dataclass(frozen=True)
class Paper:
    """Figures of one paper.

    measured: its own method's row; base: the one that gains refer to. splits: compact names of
    ours that its figures may stand beside, () for any. note: what they are, for the reader;
    counts: how it counts otherwise than we do, to end a sentence.
    datasets: its names by compact names of ours. statistics: of its data sets. baselines: rows by
    compact names of our methods. ablations: rows by the key of ours that is switched off.
    overall, without: rows of its comparison and its ablations, a result for each data set in the
    order of statistics.
    """

    measured: str
    base: str
    splits: tuple[str, ...]
    note: str
    counts: str
    datasets: Mapping[str, str]
    statistics: Mapping[str, Mapping[str, float]]
    baselines: Mapping[str, str]
    ablations: Mapping[str, str]
    overall: Mapping[str, tuple[PaperResult, ...]]
    without: Mapping[str, tuple[PaperResult, ...]]

    def name_of(self, dataset: str) -> str | None:
        """What the paper calls a data set of ours, None if it has none of that name."""
        return self.datasets.get(compact(dataset))

    def row_of(self, method: str) -> str:
        """The row of a method of ours, "" if the paper has none of that name."""
        own = {compact(self.measured): self.measured}
        return {**self.baselines, **own}.get(compact(method), "")

    def statistics_of(self, dataset: str) -> Mapping[str, float]:
        """By the names of `dataset_statistics`; empty if the paper has no such data set."""
        return self.statistics.get(self.name_of(dataset) or "", {})

    def result(self, dataset: str, row: str) -> PaperResult | None:
        """A row of the comparison, None where the paper has none."""
        return self._result(self.overall, dataset, row)

    def ablation(self, dataset: str, row: str) -> PaperResult | None:
        """A row of the ablations, None where the paper has none."""
        return self._result(self.without, dataset, row)

    def best_baseline(self, dataset: str) -> tuple[str, PaperResult] | None:
        """The baseline with the highest (test) AUC, None for a data set of our own."""
        found = {row: self.result(dataset, row) for row in self.baselines.values()}
        known = {row: result for row, result in found.items() if result is not None}
        return max(known.items(), key=lambda pair: pair[1].auc) if known else None

    def _result(
        self, table: Mapping[str, tuple[PaperResult, ...]], dataset: str, row: str
    ) -> PaperResult | None:
        name = self.name_of(dataset)
        if name is None or row not in table:
            return None
        return table[row][list(self.statistics).index(name)]
