"""Item factors against a planted covariance, pure noise, and the edges."""

import numpy as np
import pytest

from recbole_mars.agreement import fit_item_factors

USERS, ITEMS, EACH = 300, 40, 20


def planted(seed, strength, noise=0.5, rank=2):
    """Opinions with the covariance truth @ truth.T of the items; item 0 has none."""
    random = np.random.default_rng(seed)
    truth = strength * random.normal(size=(ITEMS, rank))
    truth[0] = 0
    tastes = random.normal(size=(USERS, rank))
    users = np.repeat(np.arange(USERS), EACH)
    items = np.concatenate([random.permutation(ITEMS - 1)[:EACH] + 1 for _ in range(USERS)])
    opinions = np.einsum("nk,nk->n", tastes[users], truth[items])
    return truth, (users, items, opinions + noise * random.normal(size=len(users)))


def test_a_planted_covariance_is_recovered():
    """Six factors are offered, two are there. The scale is what takes long to converge."""
    truth, opinions = planted(0, strength=0.8)
    apart = ~np.eye(ITEMS, dtype=bool)
    expected = (truth @ truth.T)[apart]
    found = fit_item_factors(*opinions, USERS, ITEMS, 6)
    assert np.corrcoef((found @ found.T)[apart], expected)[0, 1] > 0.97
    found = fit_item_factors(*opinions, USERS, ITEMS, 6, iterations=500)
    covariance = (found @ found.T)[apart]
    assert np.corrcoef(covariance, expected)[0, 1] > 0.97
    assert (covariance @ expected) / (expected @ expected) == pytest.approx(1, abs=0.1)
    sizes = np.linalg.svd(found, compute_uv=False)
    assert sizes[1] > 0.5 * sizes[0]
    assert sizes[2] < 1e-3 * sizes[0]


def test_noise_shrinks_to_almost_nothing():
    """Opinions have variance 1; by chance an item may seem to have a factor of its own."""
    sizes = []
    for seed in range(5):
        _, opinions = planted(seed, strength=0.0, noise=1.0)
        found = fit_item_factors(*opinions, USERS, ITEMS, 6)
        sizes.append(np.abs(found @ found.T).max())
    assert max(sizes) < 0.2
    assert np.median(sizes) < 1e-3


def test_few_opinions_an_item_are_shrunk_more_than_many():
    truth, (users, items, opinions) = planted(2, strength=0.8)
    rare = (items == 1) & (np.cumsum(items == 1) > 3)
    found = fit_item_factors(users, items, opinions, USERS, ITEMS, 2)
    kept = fit_item_factors(users[~rare], items[~rare], opinions[~rare], USERS, ITEMS, 2)
    assert 0 < np.linalg.norm(kept[1]) < np.linalg.norm(truth[1])
    others = (found @ found.T)[2:, 2:], (kept @ kept.T)[2:, 2:]
    assert np.corrcoef(others[0].ravel(), others[1].ravel())[0, 1] > 0.99


def test_items_without_an_opinion_are_zeros():
    _, opinions = planted(3, strength=0.8)
    found = fit_item_factors(*opinions, USERS + 5, ITEMS + 3, 3)
    met = found.any(axis=1)
    assert found.shape == (ITEMS + 3, 3)
    assert not met[0]
    assert met[1:ITEMS].all()
    assert not met[ITEMS:].any()


def test_the_scale_of_opinions_is_the_scale_of_factors():
    _, (users, items, opinions) = planted(4, strength=0.8)
    found = fit_item_factors(users, items, opinions, USERS, ITEMS, 3)
    larger = fit_item_factors(users, items, 10 * opinions, USERS, ITEMS, 3)
    np.testing.assert_allclose(larger @ larger.T, 100 * (found @ found.T), rtol=1e-6, atol=1e-6)


def test_repeated_meetings_are_observations_of_their_own():
    """In any order of rows; who contradicts all that he said has said nothing."""
    _, (users, items, opinions) = planted(5, strength=0.8)
    twice = [np.tile(part, 2) for part in (users, items, opinions)]
    order = np.random.default_rng(0).permutation(len(twice[0]))
    found = fit_item_factors(*twice, USERS, ITEMS, 3)
    shuffled = fit_item_factors(*(part[order] for part in twice), USERS, ITEMS, 3)
    np.testing.assert_allclose(found, shuffled, atol=1e-8)
    both = np.concatenate([opinions, -opinions])
    contradicted = fit_item_factors(*twice[:2], both, USERS, ITEMS, 3)
    assert np.abs(contradicted).max() < 1e-3 < np.abs(found).max()


def test_deterministic_under_a_seed_and_hardly_moved_by_it():
    _, opinions = planted(6, strength=0.8)
    one, same, other = (fit_item_factors(*opinions, USERS, ITEMS, 3, seed=s) for s in (0, 0, 1))
    np.testing.assert_allclose(one, same, atol=1e-9)
    assert np.abs(one - other).max() > 1e-3
    covariances = (one @ one.T).ravel(), (other @ other.T).ravel()
    assert np.corrcoef(*covariances)[0, 1] > 0.99


def test_errors():
    _, opinions = planted(7, strength=0.8)
    with pytest.raises(ValueError, match="n_factors must be >= 1, got 0"):
        fit_item_factors(*opinions, USERS, ITEMS, 0)
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="opinions must not be empty"):
        fit_item_factors(nothing, nothing, np.zeros(0), USERS, ITEMS, 2)
