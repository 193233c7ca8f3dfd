"""The sampler of a search: seeded, continued by its scores, without repetition."""

import builtins

import pytest

from recbole_mars.plugin.tuning import Sampler

SPACE = {"rate": list(range(10)), "layers": [[8], [16, 8], [4]]}


def draw(seed, trials, space=SPACE, score=lambda values: values["rate"] / 10):
    sampler, found = Sampler(space, seed), []
    for _ in range(trials):
        found.append(sampler.ask())
        sampler.tell(score(found[-1]))
    return found


def test_the_same_seed_and_scores_give_the_same_trials():
    assert draw(1, 25) == draw(1, 25)
    assert draw(1, 8) != draw(2, 8)
    assert draw(1, 8) == draw(1, 8, score=lambda values: None)  # the first are random


def test_no_trial_twice_until_the_space_is_empty():
    found = draw(3, 30)
    assert len({str(values) for values in found}) == 30
    assert all(values["rate"] in SPACE["rate"] for values in found)
    assert [8] in [values["layers"] for values in found]  # lists stay lists
    sampler = Sampler({"a": [1]}, 1)
    assert sampler.ask() == {"a": 1}
    sampler.tell(0.5)
    with pytest.raises(ValueError, match="no new settings"):
        sampler.ask()


def test_good_values_are_drawn_more_often():
    space = {"rate": list(range(5)), "other": list(range(50))}
    found = [
        values["rate"]
        for seed in range(5)
        for values in draw(seed, 50, space, lambda values: values["rate"] / 5)[20:]
    ]
    # By chance 30 of these 150 would have the best value, more than 50 with probability 1e-5.
    assert found.count(4) > 50


def test_without_hyperopt(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("hyperopt"):
            raise ImportError("no hyperopt here")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"recbole_mars\[tuning\]"):
        Sampler(SPACE, 1)
