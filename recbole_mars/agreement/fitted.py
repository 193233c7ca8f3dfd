"""Agreement for pairs of user and item that are in no log, as an online service meets them.

Dimension letters: L behaviours of a user, W of them that are looked back at, C candidates,
I items, K factors, D content dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_mars.agreement.columns import AGREEMENT_COLUMNS, ColumnScale
from recbole_mars.agreement.item_effects import ItemTotals
from recbole_mars.agreement.kernel import KernelParts
from recbole_mars.agreement.own_past import OwnOpinions, OwnPast
from recbole_mars.agreement.process import condition, one_thread, posterior
from recbole_mars.data import load_columns, look_back, save_columns

__all__ = ["NEW_USER_FOLD", "FittedAgreement"]

# Nothing was learnt from a new user, so every fold is fair to him; a mean of the folds is not to
# be had, since item factors are known up to a rotation only.
NEW_USER_FOLD = 0
_FORMAT = 1
_CONTENT = "contents/"


@dataclass(frozen=True, eq=False)
class FittedAgreement:
    """What `agree` estimated, and what it makes of one user's past and any candidates.

    opinion_mean, opinion_spread: of the training opinions. totals: of each item's. factors: (folds,
    I, K) float32, K = 0 if they were left out. contents: directions by modality, (I, D) float32.
    weights: of the kernel's parts by name, and "noise". max_length: how far a posterior looks back.
    scale: of the columns. fold: (n_users,), the fold of each user id.

    Raises ValueError naming the part that does not fit the others.
    """

    opinion_mean: float
    opinion_spread: float
    totals: ItemTotals
    factors: np.ndarray
    contents: Mapping[str, np.ndarray]
    weights: Mapping[str, float]
    max_length: int
    scale: ColumnScale
    fold: np.ndarray

    def __post_init__(self) -> None:
        n_folds, n_items = self.totals.priors.shape
        width = (len(AGREEMENT_COLUMNS),)
        names = [*self._parts.names, "noise"]
        checks: dict[str, tuple[Any, Any]] = {
            "item counts": (self.totals.counts.shape, (n_items,)),
            "item sums": (self.totals.sums.shape, (n_items,)),
            "factors": (self.factors.shape[:-1], (n_folds, n_items)),
            "column means": (self.scale.means.shape, width),
            "column spreads": (self.scale.spreads.shape, width),
            "weights": ([*self.weights], names),
            **{name: (len(matrix), n_items) for name, matrix in self.contents.items()},
        }
        for name, (got, needed) in checks.items():
            if got != needed:
                raise ValueError(f"{name} of agreement must be {needed}, got {got}; fit it anew")
        if len(self.fold) and not 0 <= self.fold.min() <= self.fold.max() < n_folds:
            raise ValueError(f"folds of users must lie in 0..{n_folds - 1}, got {self.fold.max()}")

    @property
    def _parts(self) -> KernelParts:
        return KernelParts([*self.factors] if self.factors.shape[-1] else [], self.contents)

    @property
    def n_items(self) -> int:
        """Number of item ids, padding included."""
        return len(self.totals.counts)

    # -- one user ------------------------------------------------------------------------------

    def expect(
        self,
        items: np.ndarray,
        opinions: np.ndarray,
        counted: np.ndarray,
        candidates: np.ndarray,
        fold: int = NEW_USER_FOLD,
        n_behaviours: int | None = None,
    ) -> np.ndarray:
        """AGREEMENT_COLUMNS of candidates as a user's next behaviour, standardised, (C, 5) float32.

        Equal to what `agree` gives a validation or test row of this user and item, after the same
        past. candidates: (C,); 0 stands for an unknown item, of which nobody has an opinion.
        For the rest, and for errors, see `past`.
        """
        return self.expect_after(
            self.past(items, opinions, counted, fold, n_behaviours), candidates
        )

    def past(
        self,
        items: np.ndarray,
        opinions: np.ndarray,
        counted: np.ndarray,
        fold: int = NEW_USER_FOLD,
        n_behaviours: int | None = None,
    ) -> OwnPast:
        """What depends on the user alone: worth keeping until the next behaviour.

        items: (L,), the oldest first, 0 for unknown ones. opinions: (L,), as they were given to
        `agree`. counted: (L,) bool, whether the opinion is among the training ones, which then is
        not taken for another user's. fold: the user's, any for a new one. n_behaviours: of the
        user in all, if these are the latest ones only; the answer is the same as long as they
        are at least max_length - 1, and no counted behaviour that is left out was with an item
        that comes up again.

        Raises ValueError for arrays of other shapes or different lengths, ids or a fold out of
        range, opinions that are not finite, and opinions that cannot have been counted.
        """
        items, counted = self._ids(items, "items"), np.asarray(counted, dtype=bool)
        opinions = np.asarray(opinions, dtype=np.float64)
        total = len(items) if n_behaviours is None else n_behaviours
        if not items.shape == opinions.shape == counted.shape:
            lengths = [items.shape, opinions.shape, counted.shape]
            raise ValueError(f"items, opinions and counted must have one length, got {lengths}")
        if total < len(items):
            raise ValueError(f"n_behaviours must be >= {len(items)}, as are given, got {total}")
        if not np.isfinite(opinions).all():
            raise ValueError("opinions must be finite, got NaN or infinity")
        if not 0 <= fold < len(self.totals.priors):
            raise ValueError(f"fold must lie in 0..{len(self.totals.priors) - 1}, got {fold}")
        values = (opinions - self.opinion_mean) / self.opinion_spread
        own = OwnOpinions.of(items[counted], values[counted])
        if (own.numbers > self.totals.counts[own.items]).any():
            raise ValueError("counted must mark training opinions only, got more than there were")
        window = min(look_back(total, self.max_length, self.max_length // 2), len(items))
        items, values = items[len(items) - window :], values[len(items) - window :]
        rest = values - self._others(own, items, fold)[0]
        positions = np.arange(window)
        steps = np.abs(np.subtract.outer(positions, positions))
        with one_thread():
            kernel = np.zeros((window, window))
            for weight, part in zip(
                self.weights.values(), self._parts.between(items, items, steps, fold)
            ):
                kernel += weight * part
            root, innovations = condition(kernel, rest, self.weights["noise"])
        return OwnPast(fold, total, own, items, root, innovations)

    def expect_after(self, past: OwnPast, candidates: np.ndarray) -> np.ndarray:
        """As `expect`, after a past that is kept. candidates: (C,). Returns (C, 5) float32."""
        candidates = self._ids(candidates, "candidates")
        item, number = self._others(past.own, candidates, past.fold)
        covariance = np.zeros((len(past.items), len(candidates)))
        variance = np.zeros(len(candidates))
        steps = np.arange(len(past.items), 0, -1)[:, None]
        with one_thread():
            across = self._parts.between(past.items, candidates, steps, past.fold)
            alone = self._parts.alone(candidates, past.fold)
            for weight, part, prior in zip(self.weights.values(), across, alone):
                covariance += weight * part
                variance += weight * prior
            means, variances = posterior(past.root, past.innovations, covariance, variance)
        columns = np.empty((len(candidates), len(AGREEMENT_COLUMNS)), dtype=np.float32)
        columns[:, 0], columns[:, 1] = item, np.log1p(number)
        columns[:, 2], columns[:, 3] = means, np.sqrt(variances)
        columns[:, 4] = np.log1p(past.n_behaviours)
        return self.scale.apply(columns)

    def _others(
        self, own: OwnOpinions, items: np.ndarray, fold: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shrunk mean of all other users for each item, and the number of their opinions."""
        own_number, own_sum = own.at(items)
        number = self.totals.counts[items] - own_number
        total = self.totals.sums[items] - own_sum
        return self.totals.shrunk(number, total, self.totals.priors[fold, items]), number

    def _ids(self, items: np.ndarray, name: str) -> np.ndarray:
        items = np.asarray(items, dtype=np.int64)
        if items.ndim != 1:
            raise ValueError(f"{name} must be a list of ids, got shape {items.shape}")
        if items.size and not 0 <= items.min() <= items.max() < self.n_items:
            raise ValueError(
                f"{name} must lie in 0..{self.n_items - 1}, got {items.min()}..{items.max()}; "
                "give 0 for an item that is newer"
            )
        return items

    # -- on disk -------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write it as a folder of .npy files and JSON, whole or not at all.

        Raises ValueError if the folder is there.
        """
        if folder.exists():
            raise ValueError(f"{folder} must not exist yet; remove it or choose another")
        columns = {
            "counts": self.totals.counts,
            "sums": self.totals.sums,
            "priors": self.totals.priors,
            "column_means": self.scale.means,
            "column_spreads": self.scale.spreads,
            "fold": self.fold,
            "factors": self.factors,
        }
        columns.update((_CONTENT + name, matrix) for name, matrix in self.contents.items())
        notes = {
            "format": _FORMAT,
            "opinion_mean": self.opinion_mean,
            "opinion_spread": self.opinion_spread,
            "strength": self.totals.strength,
            "max_length": self.max_length,
            "weights": dict(self.weights),
        }
        save_columns(folder, columns, notes)

    @classmethod
    def load(cls, folder: Path, mmap: bool = True) -> FittedAgreement:
        """What save wrote. mmap: map the arrays, so that processes share them, else read them.

        Raises ValueError naming the folder if it is not whole or of another version.
        """
        columns, notes = load_columns(folder)
        if notes.get("format") != _FORMAT:
            raise ValueError(
                f"{folder} must be of agreement's format {_FORMAT}, got {notes.get('format')}; "
                "fit it anew"
            )
        take = np.asarray if mmap else np.array  # no memmap: its own class makes it slow
        columns = {name: take(values) for name, values in columns.items()}
        try:
            return cls(
                opinion_mean=notes["opinion_mean"],
                opinion_spread=notes["opinion_spread"],
                totals=ItemTotals(
                    columns["counts"], columns["sums"], columns["priors"], notes["strength"]
                ),
                factors=columns["factors"],
                contents={
                    name[len(_CONTENT) :]: matrix
                    for name, matrix in columns.items()
                    if name.startswith(_CONTENT)
                },
                weights=notes["weights"],
                max_length=notes["max_length"],
                scale=ColumnScale(columns["column_means"], columns["column_spreads"]),
                fold=columns["fold"],
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"{folder} must hold all parts of agreement: {error}") from error
