"""RecBole's HyperTuning from a seed, one trial at a time, so that a search can be continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole.trainer import HyperTuning

__all__ = ["Sampler"]

_ATTEMPTS = 1000  # draws until one is new,
_GUIDED = 20  # of them by the estimator, which may insist on what it has seen; then by chance


class Sampler:
    """Draws settings from lists of values by the tree-structured Parzen estimator of HyperTuning.

    HyperTuning's own loop takes its seed from the clock, prints, and cannot be resumed. Here the
    same space and algorithm are asked for one trial after the other: the same seed and the same
    scores give the same trials, so a search is continued by telling it the scores it had. No
    combination is drawn twice. The first 20 trials are random, the same for equal spaces.

    space: values by key, at least one each. Raises ValueError if hyperopt is not installed.
    """

    def __init__(self, space: Mapping[str, Sequence[Any]], seed: int) -> None:
        try:
            from hyperopt import Trials, rand
            from hyperopt.base import Domain
        except ImportError as error:
            raise ValueError(
                f"a search needs hyperopt ({error}); pip install 'recbole_mars[tuning]', or take "
                "`search` out of the experiment"
            ) from None
        self._space = {key: list(values) for key, values in space.items()}
        places = {key: list(range(len(values))) for key, values in self._space.items()}
        tuning = HyperTuning(None, params_dict={"choice": places}, algo="bayes")
        self._suggest, self._by_chance = tuning.algo, rand.suggest
        self._domain = Domain(None, tuning.space)
        self._trials = Trials()
        self._seed = seed
        self._seen: set[tuple[int, ...]] = set()
        self._open: Any = None

    def ask(self) -> dict[str, Any]:
        """The next settings to try. Raises ValueError if none are left."""
        (number,) = self._trials.new_trial_ids(1)
        for attempt in range(_ATTEMPTS):
            seed = (self._seed * 1_000_003 + number * _ATTEMPTS + attempt) % 2**31
            suggest = self._suggest if attempt < _GUIDED else self._by_chance
            (self._open,) = suggest([number], self._domain, self._trials, seed)
            drawn = {key: int(v[0]) for key, v in self._open["misc"]["vals"].items()}
            places = tuple(drawn[key] for key in self._space)
            if places not in self._seen:
                self._seen.add(places)
                return {key: values[drawn[key]] for key, values in self._space.items()}
        raise ValueError(f"{_ATTEMPTS} draws gave no new settings; ask for fewer trials")

    def tell(self, score: float | None) -> None:
        """The validation AUC of the settings just asked for; None if the trial failed."""
        from hyperopt import JOB_STATE_DONE, STATUS_OK

        # A failed trial counts as the worst possible, so that its surroundings are avoided.
        loss = 0.0 if score is None else -score
        self._open["result"] = {"status": STATUS_OK, "loss": loss}
        self._open["state"] = JOB_STATE_DONE
        self._trials.insert_trial_docs([self._open])
        self._trials.refresh()
