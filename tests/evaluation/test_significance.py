from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy import stats

from recbole_mars.evaluation import (
    auc,
    bootstrap_interval,
    holm,
    log_loss,
    paired_bootstrap,
    paired_t_test,
    significance,
    summarise,
)


def planted(n, seed, shift=1.0):
    """Normal scores, clicks shifted up: the true AUC is Phi(shift / sqrt 2)."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.4
    return labels, rng.normal(size=n) + shift * labels


def loop_bootstrap(metric, columns, samples, seed):
    """Resample rows one sample at a time and call the metric."""
    rng = np.random.default_rng(seed)
    values = []
    while len(values) < samples:
        rows = rng.integers(len(columns[0]), size=len(columns[0]))
        if len(set(columns[0][rows])) == 2:
            values.append(metric(*(column[rows] for column in columns)))
    return np.array(values)


@pytest.mark.parametrize("decimals", [0, 8])
def test_every_resample_has_the_auc_of_its_rows(decimals, monkeypatch):
    monkeypatch.setattr(significance, "_CHUNK", 7 * 50)  # several chunks, the last one cut
    labels, scores = planted(50, 0)
    scores = scores.round(decimals)
    fast = significance._resampled_aucs(labels, [scores, -scores], 20, seed=3)
    slow = loop_bootstrap(auc, (labels, scores), 20, seed=3)
    np.testing.assert_allclose(fast[0], slow, rtol=0, atol=1e-14)
    np.testing.assert_allclose(fast[1], 1 - slow, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("metric", "function"), [("auc", auc), ("log_loss", log_loss)])
def test_interval_agrees_with_naive_resampling(metric, function):
    labels, scores = planted(80, 1)
    scores = 1 / (1 + np.exp(-scores))
    values = loop_bootstrap(function, (labels, scores), 1000, seed=99)
    interval = bootstrap_interval(labels, scores, metric, confidence=0.9, samples=4000)
    np.testing.assert_allclose(interval, np.quantile(values, [0.05, 0.95]), atol=0.02)


def test_interval_covers_the_planted_auc():
    truth = stats.norm.cdf(1 / np.sqrt(2))
    covered = 0
    for seed in range(200):
        low, high = bootstrap_interval(*planted(150, seed), confidence=0.9, samples=200, seed=seed)
        covered += low <= truth <= high
    assert 165 <= covered <= 195  # 180 expected, 3.5 standard errors either way


def test_interval_is_seeded_nested_and_narrows():
    labels, scores = planted(300, 2)
    low, high = bootstrap_interval(labels, scores, seed=1)
    assert (low, high) == bootstrap_interval(labels, scores, seed=1)
    assert (low, high) != bootstrap_interval(labels, scores, seed=2)
    assert low < auc(labels, scores) < high
    inner_low, inner_high = bootstrap_interval(labels, scores, confidence=0.5, seed=1)
    assert low < inner_low < inner_high < high
    narrow = np.diff(bootstrap_interval(np.tile(labels, 16), np.tile(scores, 16)))
    assert narrow == pytest.approx((high - low) / 4, rel=0.2)


def test_resamples_with_one_class_are_drawn_again():
    labels, scores = np.array([1, 0, 0]), np.array([0.5, 0.1, 0.9])
    values = significance._resampled_aucs(labels, [scores], 500, seed=0)[0]
    assert len(values) == 500
    assert set(values) == {0.0, 0.5, 1.0}
    assert bootstrap_interval([0, 1], [0.1, 0.2]) == (1.0, 1.0)


def test_thousand_resamples_of_ten_thousand_rows_are_fast():
    labels, scores = planted(10_000, 0)
    begin = time.process_time()
    bootstrap_interval(labels, scores)
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "ndcg"}, "metric must be 'auc' or 'log_loss', got 'ndcg'"),
        ({"confidence": 0.0}, "confidence must lie between 0 and 1, got 0.0"),
        ({"confidence": 95}, "confidence must lie between 0 and 1, got 95"),
        ({"samples": 0}, "samples must be >= 1, got 0"),
        ({"labels": [1, 1]}, "needs both classes"),
        ({"labels": [1, 0, 1]}, "one length"),
        ({"scores": [0.1, np.nan]}, "scores must not hold NaN"),
        ({"metric": "log_loss", "scores": [0.1, 2.0]}, "probabilities must lie in"),
    ],
)
def test_interval_refuses(options, message):
    arguments = {"labels": [1, 0], "scores": [0.2, 0.1], **options}
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**arguments)


def test_paired_bootstrap_sees_a_gain_that_single_intervals_hide():
    labels, base = planted(400, 3)
    measured = base + 0.25 * labels
    result = paired_bootstrap(labels, base, measured)
    assert result.difference == pytest.approx(auc(labels, measured) - auc(labels, base))
    assert 0 < result.low < result.difference < result.high
    assert result.p_value == 2 / 1001
    assert bootstrap_interval(labels, base)[1] > bootstrap_interval(labels, measured)[0]


def test_paired_bootstrap_is_antisymmetric():
    labels, base = planted(200, 4)
    measured = base + np.random.default_rng(0).normal(size=200)
    there = paired_bootstrap(labels, base, measured)
    back = paired_bootstrap(labels, measured, base)
    assert there.difference == -back.difference
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p_value == back.p_value


def test_paired_bootstrap_of_equal_rankings_is_certain_of_nothing():
    labels, base = planted(100, 5)
    assert paired_bootstrap(labels, base, 3 * base + 1) == (0.0, 0.0, 0.0, 1.0)


def test_paired_bootstrap_rejects_equal_models_about_as_often_as_it_should():
    rng = np.random.default_rng(0)
    rejected = 0
    for seed in range(200):
        labels, signal = planted(150, seed)
        base, measured = signal + rng.normal(size=150), signal + rng.normal(size=150)
        result = paired_bootstrap(labels, base, measured, samples=200, seed=seed)
        assert (result.p_value < 0.03) <= (not result.low <= 0 <= result.high)
        rejected += result.p_value < 0.05
    assert 1 <= rejected <= 22  # 10 expected, 3.5 standard errors and some small-sample bias


def test_paired_bootstrap_of_several_trainings_is_that_of_their_mean_auc():
    labels, signal = planted(60, 6)
    rng = np.random.default_rng(1)
    base, measured = signal + rng.normal(size=(2, 60)), signal + rng.normal(size=(3, 60))
    result = paired_bootstrap(labels, base, torch.from_numpy(measured), samples=50, seed=4)
    rows = np.random.default_rng(4).integers(60, size=(50, 60))
    gains = [
        np.mean([auc(labels[r], s[r]) for s in measured])
        - np.mean([auc(labels[r], s[r]) for s in base])
        for r in rows
    ]
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(gains, [0.025, 0.975])))
    assert result.difference == pytest.approx(
        np.mean([auc(labels, s) for s in measured]) - np.mean([auc(labels, s) for s in base])
    )
    one = paired_bootstrap(labels, base[0], measured[0], samples=50)
    assert paired_bootstrap(labels, base[:1], measured[:1], samples=50) == one


def test_holm_by_hand():
    # 4 known: 0.01 * 4, 0.02 * 3, max(0.03 * 2, 0.06), then 0.9; the unknown one does not count.
    given = [0.03, 0.01, np.nan, 0.9, 0.02]
    np.testing.assert_allclose(holm(given), [0.06, 0.04, np.nan, 0.9, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    assert holm([0.2]) == 0.2
    assert len(holm([])) == 0


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_holm_wants_probabilities(value):
    with pytest.raises(ValueError, match=r"p_values must lie in 0\.\.1"):
        holm([0.5, value])


def test_t_test_by_hand_and_by_scipy():
    base, measured = [0.70, 0.71, 0.72, 0.70, 0.71], [0.71, 0.73, 0.725, 0.70, 0.72]
    result = paired_t_test(base, measured)
    expected = stats.ttest_rel(measured, base)
    assert result.difference == pytest.approx(0.009)
    assert result.p_value == pytest.approx(expected.pvalue)
    # gains 0.01, 0.02, 0.005, 0, 0.01: sd sqrt(0.00022 / 4); t(0.975, 4) = 2.7764451
    reach = 2.7764451 * np.sqrt(0.00022 / 4 / 5)
    assert (result.low, result.high) == pytest.approx((0.009 - reach, 0.009 + reach), abs=1e-9)


def test_t_test_of_one_seed_or_no_spread_claims_nothing():
    for base, measured in [
        ([0.7], [0.71]),
        ([0.7, 0.7, 0.7], [0.7, 0.7, 0.7]),
        ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4]),  # gains equal but for rounding
    ]:
        result = paired_t_test(base, measured)
        assert result.difference == pytest.approx(measured[0] - base[0])
        assert np.isnan([result.low, result.high, result.p_value]).all()


def test_t_test_refuses():
    with pytest.raises(ValueError, match=r"one length, got \{'base': 2, 'measured': 1\}"):
        paired_t_test([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="base must be a non-empty vector"):
        paired_t_test([], [])
    with pytest.raises(ValueError, match="measured must not hold NaN"):
        paired_t_test([0.1], [np.nan])


def test_summarise():
    assert summarise([1.0, 2.0, 3.0, 6.0]) == (3.0, pytest.approx(np.sqrt(14 / 3)), 4)
    mean, std, n = summarise([0.7])
    assert (mean, n) == (0.7, 1)
    assert np.isnan(std)
    with pytest.raises(ValueError, match="values must be a non-empty vector"):
        summarise([])
