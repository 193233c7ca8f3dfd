"""Agreement where all that is known is who clicked what: do people with clicks like the user's
click the target?

Dimension letters: N rows of the log, n clicks of a user, R targets, I items, K width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from recbole_mars.agreement.click_counts import ClickCounts
from recbole_mars.agreement.click_factors import fit_click_factors, unit_rows
from recbole_mars.agreement.columns import ColumnScale
from recbole_mars.agreement.kernel import content_directions
from recbole_mars.agreement.process import one_thread
from recbole_mars.data import TRAIN, InteractionLog, load_columns, save_columns

__all__ = [
    "CLICK_COLUMNS",
    "ClickAgreement",
    "ClickAgreementSettings",
    "FittedClickAgreement",
    "agree_on_clicks",
]

_VIEWS = ("coarse", "fine", "text", "image")
_MODALITIES = _VIEWS[2:]
_COUNTS = ("clicks", "clicks_lately", "clicks_now", "since_click")
CLICK_COLUMNS = (
    *(f"{view}{kind}" for view in _VIEWS for kind in ("", "_nearest", "_recent")),
    "history",
    *_COUNTS,
)
_FINER = 4  # directions of the fine view to one of the coarse
_FADE = 0.8  # of a click's weight with each later one
_FORMAT = 1
_CONTENT = "contents/"
_TARGETS = 512  # at once


@dataclass(frozen=True)
class ClickAgreementSettings:
    """How agreement on clicks is computed.

    factors: directions of the coarse view of who clicks what, the fine one has four times as many;
    0 leaves both out. folds: parts of the users; what a user is told of comes from the others.
    max_length: own clicks that are looked back at. counts: whether it is told how often and how
    lately the target was clicked. withheld: share of the training rows whose target is shown as one
    that nobody clicked yet, so that a model learns what contents say of new items (DropoutNet,
    Volkovs et al. 2017). Raises ValueError for numbers out of range.
    """

    factors: int = 16
    folds: int = 10
    max_length: int = 400
    counts: bool = True
    withheld: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("factors", 0), ("folds", 2), ("max_length", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if not 0 <= self.withheld < 1:
            raise ValueError(f"withheld must be >= 0 and < 1, got {self.withheld}")


class ClickAgreement(NamedTuple):
    """CLICK_COLUMNS of every row of a log, (N, 17) float32, and what gives those of other pairs."""

    columns: np.ndarray
    fitted: FittedClickAgreement

    def standardised(self) -> np.ndarray:
        """The columns with mean 0 and variance 1 over the training rows, (N, 17) float32."""
        return self.fitted.scale.apply(self.columns)


@dataclass(frozen=True, eq=False)
class FittedClickAgreement:
    """What agree_on_clicks estimated, and what it makes of one user's clicks and any candidates.

    factors: (folds, I, K) float32, for the users of a fold from the clicks of all others; the first
    directions are the coarse view. contents: unit rows by modality, (I, D) float32. counts: of the
    training part, without clicks if they are left out. max_length: own clicks looked back at.
    scale: of the columns. fold: (n_users,), the fold of each user id.

    Raises ValueError naming the part that does not fit the others.
    """

    factors: np.ndarray
    contents: Mapping[str, np.ndarray]
    counts: ClickCounts
    max_length: int
    scale: ColumnScale
    fold: np.ndarray

    def __post_init__(self) -> None:
        width = (len(CLICK_COLUMNS),)
        checks = {
            "column means": (self.scale.means.shape, width),
            "column spreads": (self.scale.spreads.shape, width),
            "keys of clicks": (self.counts.keys.shape, self.counts.times.shape),
            **{name: (len(matrix), self.n_items) for name, matrix in self.contents.items()},
        }
        for name, (got, needed) in checks.items():
            if got != needed:
                raise ValueError(f"{name} of agreement must be {needed}, got {got}; fit it anew")
        if not set(self.contents) <= set(_MODALITIES):
            raise ValueError(f"contents must be of {_MODALITIES}, got {sorted(self.contents)}")
        if len(self.fold) and not 0 <= self.fold.min() <= self.fold.max() < len(self.factors):
            raise ValueError(
                f"folds of users must lie in 0..{len(self.factors) - 1}, got {self.fold.max()}"
            )

    @property
    def n_items(self) -> int:
        """Number of item ids, padding included."""
        return self.factors.shape[1]

    def expect(
        self,
        items: np.ndarray,
        candidates: np.ndarray,
        fold: int = 0,
        n_clicks: int | None = None,
        time: float = np.inf,
    ) -> np.ndarray:
        """CLICK_COLUMNS of candidates as a user's next click, standardised, (C, 17) float32.

        Equal to what agree_on_clicks gives a row of this user and item, after the same clicks.
        items: (L,), the oldest first; the latest max_length are enough. candidates: (C,). 0 stands
        for an unknown item. fold: the user's, any for a new one. n_clicks: of the user in all, if
        these are the latest only. time: now, in the log's unit; clicks of others from then on do
        not count. Raises ValueError for ids or a fold out of range.
        """
        items, candidates = self._ids(items, "items"), self._ids(candidates, "candidates")
        if not (isinstance(fold, (int, np.integer)) and 0 <= fold < len(self.factors)):
            raise ValueError(f"fold must lie in 0..{len(self.factors) - 1}, got {fold}")
        if np.isnan(time):
            raise ValueError("time must be a number, or inf for after all clicks, got nan")
        total = len(items) if n_clicks is None else n_clicks
        if total < len(items):
            raise ValueError(f"n_clicks must be >= {len(items)}, as are given, got {total}")
        items = items[len(items) - min(len(items), self.max_length) :]
        columns = np.zeros((len(candidates), len(CLICK_COLUMNS)))
        seen = np.full(len(candidates), len(items))
        self.look(columns, items, candidates, seen, fold)
        columns[:, CLICK_COLUMNS.index("history")] = np.log1p(total)
        self.count(columns, candidates, np.full(len(candidates), time))
        return self.scale.apply(columns)

    def look(
        self,
        columns: np.ndarray,
        clicks: np.ndarray,
        targets: np.ndarray,
        seen: np.ndarray,
        fold: int,
    ) -> None:
        """Fill in, in place, how near targets are to a user's clicks, in all views.

        columns: (R, 17). clicks: (n,) items in the order of time. targets: (R,). seen: (R,), how
        many of the clicks were before each target.
        """
        with one_thread():
            for view, vectors in self._views(fold):
                first = CLICK_COLUMNS.index(view)
                columns[:, first : first + 3] = nearness(
                    unit_rows(vectors[clicks]), unit_rows(vectors[targets]), seen, self.max_length
                )

    def count(self, columns: np.ndarray, targets: np.ndarray, times: np.ndarray) -> None:
        """Fill in, in place, how often targets were clicked before. columns: (R, 17)."""
        if len(self.counts.times):
            columns[:, -len(_COUNTS) :] = self.counts.before(targets, times)

    def withhold(self, columns: np.ndarray, rows: np.ndarray) -> None:
        """Show the targets of some rows, in place, as ones that nobody clicked yet.

        columns: (N, 17). rows: (R,) places in it.
        """
        shown = columns[rows]
        shown[:, : CLICK_COLUMNS.index(_MODALITIES[0])] = 0
        self.count(shown, np.zeros(len(rows), dtype=np.int64), np.full(len(rows), -np.inf))
        columns[rows] = shown

    def _views(self, fold: int) -> Iterator[tuple[str, np.ndarray]]:
        if self.factors.shape[-1]:
            factors = self.factors[fold]
            yield "coarse", factors[:, : factors.shape[-1] // _FINER]
            yield "fine", factors
        yield from self.contents.items()

    def _ids(self, items: np.ndarray, name: str) -> np.ndarray:
        given = np.asarray(items)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise ValueError(
                f"{name} must be a list of ids, got shape {given.shape} of {given.dtype}"
            )
        items = given.astype(np.int64)
        if items.size and not 0 <= items.min() <= items.max() < self.n_items:
            raise ValueError(
                f"{name} must lie in 0..{self.n_items - 1}, got {items.min()}..{items.max()}; "
                "give 0 for an item that is newer"
            )
        return items

    def save(self, folder: Path) -> None:
        """Write it as a folder of .npy files and JSON, whole or not at all.

        Raises ValueError if the folder is there.
        """
        if folder.exists():
            raise ValueError(f"{folder} must not exist yet; remove it or choose another")
        columns = {
            "factors": self.factors,
            "times": self.counts.times,
            "keys": self.counts.keys,
            "column_means": self.scale.means,
            "column_spreads": self.scale.spreads,
            "fold": self.fold,
        }
        columns.update((_CONTENT + name, matrix) for name, matrix in self.contents.items())
        save_columns(folder, columns, {"clicks_format": _FORMAT, "max_length": self.max_length})

    @classmethod
    def load(cls, folder: Path, mmap: bool = True) -> FittedClickAgreement:
        """What save wrote. mmap: map the arrays, so that processes share them, else read them.

        Raises ValueError naming the folder if it is not whole or of another version.
        """
        columns, notes = load_columns(folder)
        if notes.get("clicks_format") != _FORMAT:
            raise ValueError(
                f"{folder} must be of format {_FORMAT} of agreement on clicks, got "
                f"{notes.get('clicks_format')}; fit it anew"
            )
        take = np.asarray if mmap else np.array  # no memmap: its own class makes it slow
        columns = {name: take(values) for name, values in columns.items()}
        try:
            return cls(
                factors=columns["factors"],
                contents={
                    name[len(_CONTENT) :]: matrix
                    for name, matrix in columns.items()
                    if name.startswith(_CONTENT)
                },
                counts=ClickCounts(columns["times"], columns["keys"]),
                max_length=notes["max_length"],
                scale=ColumnScale(columns["column_means"], columns["column_spreads"]),
                fold=columns["fold"],
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"{folder} must hold all parts of agreement: {error}") from error


def nearness(
    clicks: np.ndarray, targets: np.ndarray, seen: np.ndarray, max_length: int
) -> np.ndarray:
    """How near targets are to the clicks before them, (R, 3); zeros where there are none.

    The cosine with the mean click, the highest with one click, and the mean over clicks of which
    each counts 0.8 times as much as the next.

    clicks: (n, K) and targets: (R, K), rows of length 1 or 0. seen: (R,), how many clicks were
    before each target; the latest max_length of these count.
    """
    found = np.zeros((len(targets), 3))
    n_clicks = int(seen.max(initial=0))
    if not n_clicks:
        return found
    sums = np.concatenate([np.zeros((1, clicks.shape[1])), clicks[:n_clicks].cumsum(0)])
    lengths = np.linalg.norm(sums[seen] - sums[np.maximum(seen - max_length, 0)], axis=1)
    alike = clicks[:n_clicks] @ targets.T
    ages = seen - 1 - np.arange(n_clicks)[:, None]
    counts = (ages >= 0) & (ages < max_length)
    total = np.where(counts, alike, 0).sum(0)
    found[:, 0] = np.divide(total, lengths, out=found[:, 0], where=lengths > 1e-9)
    weights = np.where(counts, _FADE ** np.maximum(ages, 0), 0)
    some = seen > 0
    found[some, 1] = np.where(counts, alike, -1).max(0)[some]
    found[some, 2] = (weights * alike).sum(0)[some] / weights.sum(0)[some]
    return found


def agree_on_clicks(
    log: InteractionLog,
    features: Mapping[str, np.ndarray],
    settings: ClickAgreementSettings,
    *,
    progress: bool = False,
) -> ClickAgreement:
    """How near each row's item is to what its user clicked before, and how often it was clicked.

    Own clicks before the row count in every split, a sampled negative having those of the click
    that it was drawn for. Others' count only from the training part: all of them for item vectors,
    which a user's own clicks never shape; those strictly before the row for the counts, with the
    user's own.

    features: by modality, "text" or "image", (I, D), zeros where an item has none. Raises
    ValueError if there is no training click.
    """
    behaviours, places = log.behaviours(), log.behaviour_places()
    lent = behaviours.phases == TRAIN
    users, items, times = (
        column[lent] for column in (behaviours.users, behaviours.items, behaviours.times)
    )
    if not len(users):
        raise ValueError("the training part must hold clicks, found none")
    fold = np.random.default_rng(settings.seed).integers(0, settings.folds, log.n_users)
    width = settings.factors * _FINER
    factors = np.zeros((settings.folds, log.n_items, width), dtype=np.float32)
    for part in tqdm(range(settings.folds), "click factors", disable=not (progress and width)):
        others = fold[users] != part
        factors[part] = fit_click_factors(
            users[others], items[others], log.n_items, width, settings.seed
        )
    kept = len(users) if settings.counts else 0
    fitted = FittedClickAgreement(
        factors=factors,
        contents={
            name: content_directions(matrix).astype(np.float32) for name, matrix in features.items()
        },
        counts=ClickCounts.of(items[:kept], times[:kept]),
        max_length=settings.max_length,
        scale=ColumnScale(np.zeros(len(CLICK_COLUMNS)), np.ones(len(CLICK_COLUMNS))),
        fold=fold.astype(np.min_scalar_type(settings.folds)),
    )
    columns = np.zeros((len(log), len(CLICK_COLUMNS)))
    past = places - behaviours.offsets[log.users]
    columns[:, CLICK_COLUMNS.index("history")] = np.log1p(past)
    fitted.count(columns, log.items, log.times)
    for user in tqdm(np.unique(log.users), "agreement on clicks", disable=not progress):
        own = behaviours.items[behaviours.offsets[user] : behaviours.offsets[user + 1]]
        for first in range(log.offsets[user], log.offsets[user + 1], _TARGETS):
            rows = slice(first, min(first + _TARGETS, log.offsets[user + 1]))
            oldest = max(past[first] - settings.max_length, 0)
            part = int(fold[user])
            fitted.look(columns[rows], own[oldest:], log.items[rows], past[rows] - oldest, part)
    training = log.phases == TRAIN
    drawn = np.random.default_rng((settings.seed, 1)).random(len(log))
    fitted.withhold(columns, np.flatnonzero(training & (drawn < settings.withheld)))
    table = columns.astype(np.float32)
    scale = ColumnScale.of(table, training)
    return ClickAgreement(table, replace(fitted, scale=scale))
