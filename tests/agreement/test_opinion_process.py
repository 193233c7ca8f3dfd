"""The Gaussian process over a user's opinions: posteriors, and the weights of its kernel."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from threadpoolctl import threadpool_info, threadpool_limits

from recbole_mars.agreement import condition, fit_weights, one_step_ahead, posterior
from recbole_mars.agreement.process import one_thread


def random_kernel(random, length, rank=4):
    vectors = random.normal(size=(length, rank))
    return vectors @ vectors.T


def posterior_at(kernel, opinions, noise, step):
    """Mean and variance at a step, given all behaviours before it."""
    past = slice(0, step)
    matrix = kernel[past, past] + noise * np.eye(step)
    gain = np.linalg.solve(matrix, kernel[past, step])
    return gain @ opinions[past], kernel[step, step] - gain @ kernel[past, step]


def test_two_behaviours_by_hand():
    """k21 / (k11 + noise) = 1/4 of the first opinion, 0.5²/2 off the prior variance."""
    kernel = np.array([[1.0, 0.5], [0.5, 2.0]])
    means, variances = one_step_ahead(kernel, np.array([2.0, -3.0]), 1.0)
    np.testing.assert_allclose(means, [0, 0.5], atol=1e-15)
    np.testing.assert_allclose(variances, [1, 1.875])


@pytest.mark.parametrize("noise", [0.01, 0.7, 5.0])
def test_posteriors_equal_a_loop(noise):
    random = np.random.default_rng(0)
    kernel, opinions = random_kernel(random, 25), random.normal(size=25)
    means, variances = one_step_ahead(kernel, opinions, noise)
    expected = [posterior_at(kernel, opinions, noise, step) for step in range(25)]
    np.testing.assert_allclose(np.stack([means, variances], 1), expected, rtol=1e-8, atol=1e-10)
    assert means[0] == pytest.approx(0, abs=1e-15)
    assert variances[0] == pytest.approx(kernel[0, 0])


def test_one_behaviour():
    means, variances = one_step_ahead(np.array([[0.3]]), np.array([4.0]), 0.5)
    assert (means[0], variances[0]) == (pytest.approx(0, abs=1e-15), pytest.approx(0.3))


def test_a_kernel_of_nothing_predicts_nothing():
    means, variances = one_step_ahead(np.zeros((5, 5)), np.arange(5.0), 0.5)
    np.testing.assert_allclose(means, 0, atol=1e-15)
    assert (variances >= 0).all()
    np.testing.assert_allclose(variances, 0, atol=1e-15)


def test_later_opinions_never_change_earlier_means():
    random = np.random.default_rng(1)
    kernel, opinions = random_kernel(random, 30), random.normal(size=30)
    means, variances = one_step_ahead(kernel, opinions, 0.5)
    for step in (0, 10, 29):
        changed = np.where(np.arange(30) < step, opinions, 3 * opinions - 7)
        again, same = one_step_ahead(kernel, changed, 0.5)
        np.testing.assert_allclose(again[: step + 1], means[: step + 1], atol=1e-12)
        np.testing.assert_allclose(same, variances, atol=1e-12)
        assert (np.abs(again - means)[step + 1 :] > 1e-3).all()


def test_the_arguments_are_left_as_they_are():
    kernel = np.eye(3)
    one_step_ahead(kernel, np.ones(3), 0.5)
    assert np.array_equal(kernel, np.eye(3))


@pytest.mark.parametrize("noise", [0.01, 0.7])
def test_targets_after_a_past_equal_the_next_step(noise):
    """Each of three targets is asked of as if it were the next behaviour."""
    random = np.random.default_rng(3)
    kernel, opinions = random_kernel(random, 12), random.normal(size=12)
    root, innovations = condition(kernel[:9, :9], opinions[:9], noise)
    found = posterior(root, innovations, kernel[:9, 9:], kernel.diagonal()[9:])
    for place, target in enumerate((9, 10, 11)):
        order = [*range(9), target]
        expected = posterior_at(kernel[np.ix_(order, order)], opinions[order], noise, 9)
        np.testing.assert_allclose([part[place] for part in found], expected, atol=1e-9)


def test_without_a_past_the_prior_remains():
    past = condition(np.zeros((0, 0)), np.zeros(0), 0.5)
    means, variances = posterior(*past, np.zeros((0, 2)), np.array([0.3, 2.0]))
    assert (means.tolist(), variances.tolist()) == ([0, 0], [0.3, 2.0])


def test_one_thread_and_then_as_before():
    def threads():
        return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}

    with threadpool_limits(limits=2, user_api="blas"):
        with one_thread():
            assert threads() == {1}
        assert threads() == {2}


# -- weights -----------------------------------------------------------------------------------


def simulated(weights, noise, n_users=250, length=20):
    """Users whose parts are a constant, a kernel of their items, and one that has no weight."""
    random = np.random.default_rng(2)
    samples = []
    for _ in range(n_users):
        parts = [np.ones((length, length))]
        parts += [random_kernel(random, length) / 4 for _ in weights[1:]]
        covariance = np.tensordot(weights, parts, 1) + noise * np.eye(length)
        opinions = np.linalg.cholesky(covariance) @ random.normal(size=length)
        samples.append((np.stack(parts), opinions))
    return samples


def log_likelihood(samples, weights):
    return sum(
        multivariate_normal(
            cov=np.tensordot(weights[:-1], parts, 1) + weights[-1] * np.eye(len(opinions))
        ).logpdf(opinions)
        for parts, opinions in samples
    )


def test_planted_weights_are_recovered_and_the_likelihood_is_maximal():
    samples = simulated([0.5, 0.8], 0.4)
    found = fit_weights(samples, [0.1, 0.1, 0.7])
    np.testing.assert_allclose(found, [0.5, 0.8, 0.4], rtol=0.2)
    best = log_likelihood(samples, found)
    for part in range(3):
        for factor in (0.9, 1.1):
            moved = found.copy()
            moved[part] *= factor
            assert log_likelihood(samples, moved) < best - 0.01
        step = np.ones(3)
        step[part] = 1.001
        slope = log_likelihood(samples, found * step) - log_likelihood(samples, found / step)
        assert abs(slope / 0.002) < 0.5  # a step of 10 % loses some 10


def test_a_part_without_support_loses_its_weight():
    found = fit_weights(simulated([0.5, 0.8, 0.0], 0.4), [0.1, 0.1, 0.1, 0.7])
    assert found[2] < 0.02
    np.testing.assert_allclose(found[[0, 1, 3]], [0.5, 0.8, 0.4], rtol=0.2)


def test_the_start_hardly_matters():
    samples = simulated([0.5, 0.8], 0.4)
    near, far = (fit_weights(samples, start) for start in ([0.1, 0.1, 0.7], [5.0, 0.01, 3.0]))
    np.testing.assert_allclose(far, near, rtol=0.02)


def test_a_start_of_zero_and_users_of_several_lengths():
    samples = [
        (parts[:, :length, :length], opinions[:length])
        for length, (parts, opinions) in zip([1, 2, 9, 20] * 50, simulated([0.5, 0.8], 0.4))
    ]
    found = fit_weights(samples, [0.0, 0.1, 0.7])
    assert (found > 0).all()
    assert log_likelihood(samples, found) > log_likelihood(samples, [0.1, 0.1, 0.7])
