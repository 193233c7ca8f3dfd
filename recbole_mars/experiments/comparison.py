"""What there is to tell of a comparison of two models, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from recbole_mars.evaluation import PairedResult

__all__ = ["ComparisonData", "Gains", "RunCurves", "model_names"]

Gains = Mapping[str, Optional[PairedResult]]  # by "all", "low", "mid", "high"; None: undefined


def model_names(runs: Sequence[RunCurves]) -> tuple[str, str]:
    """Names of base and measured model. Raises ValueError unless the runs have two names."""
    names = list(dict.fromkeys(run.name for run in runs))
    if len(names) != 2:
        raise ValueError(
            f"runs must be of two models, the base first, got {names}; "
            "name the runs of one model alike"
        )
    return names[0], names[1]


def _nothing() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True)
class RunCurves:
    """One training of one model.

    train_loss, valid_auc: one number an epoch. test: "auc", "log_loss", "auc_low", "auc_mid" and
    "auc_high", nan or absent where undefined. intervals: 95 % ends of any of these. seconds: of
    the whole training.
    """

    name: str
    seed: int
    train_loss: Sequence[float]
    valid_auc: Sequence[float]
    test: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    seconds: float


@dataclass(frozen=True, eq=False)
class ComparisonData:
    """What a report shows; what is empty leaves its figure out.

    dataset, command, version: names for the page; command repeats the comparison.
    settings: the resolved configuration. statistics: numbers or texts by the name to show.
    runs: of two models, the base first. gains: by "all", "low", "mid", "high"; None: undefined.
    history_before, history_after: (T,) lengths of the histories of low-active users' targets.
    text_points_before, image_points_before, ..._after: (N, D), row i of all the same item, before
    and after training. All N^2 pairs are compared: a sample of about a thousand items is enough.
    donor_similarities, random_similarities: cosines of low-active users with their donors, and
    with random high-active users.
    alignment_curves: one number an epoch, by name ("loss", "ctr", "align", "entropy",
    "valid_auc", ...).

    Raises ValueError for runs of other than two models, points that do not match, and values
    that are not finite in the arrays.
    """

    dataset: str
    command: str
    version: str
    runs: Sequence[RunCurves]
    gains: Gains
    settings: Mapping[str, object] = field(default_factory=dict)
    statistics: Mapping[str, object] = field(default_factory=dict)
    history_before: np.ndarray = field(default_factory=_nothing)
    history_after: np.ndarray = field(default_factory=_nothing)
    text_points_before: np.ndarray = field(default_factory=_nothing)
    text_points_after: np.ndarray = field(default_factory=_nothing)
    image_points_before: np.ndarray = field(default_factory=_nothing)
    image_points_after: np.ndarray = field(default_factory=_nothing)
    donor_similarities: np.ndarray = field(default_factory=_nothing)
    random_similarities: np.ndarray = field(default_factory=_nothing)
    alignment_curves: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model_names(self.runs)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite, got nan or infinity; leave such rows out")
        shapes = {name: value.shape for name, value in vars(self).items() if "_points_" in name}
        given = {shape for shape in shapes.values() if shape[0] > 0}
        if len(given) > 1 or any(len(shape) != 2 or shape[1] < 2 for shape in given):
            raise ValueError(f"points must be (N, D) of the same N items, D >= 2, got {shapes}")
