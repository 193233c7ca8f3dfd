"""Metrics of scored impressions, by hand, and left out where they are undefined."""

import dataclasses
import math

import numpy as np
import pytest

from recbole_mars.evaluation import Impressions


def impressions(users, groups, labels, scores):
    n = len(users)
    return Impressions(*map(np.array, (users, groups, labels, scores)), np.arange(n))


def test_metrics_by_hand():
    found = impressions(
        users=[1, 1, 1, 2, 2],
        groups=[0, 0, 0, 2, 2],
        labels=[1, 0, 0, 1, 0],
        scores=[0.5, 0.25, 0.75, 0.5, 0.5],
    )
    metrics = found.metrics()
    # Clicks at 0.5, 0.5; others at 0.25, 0.75, 0.5: of six pairs 2 won, 2 tied.
    assert metrics.pop("auc") == pytest.approx((2 + 2 / 2) / 6)
    assert metrics.pop("auc_low") == pytest.approx(1 / 2)
    assert metrics.pop("auc_high") == pytest.approx(1 / 2)
    assert metrics.pop("user_auc") == pytest.approx((3 * 1 / 2 + 2 * 1 / 2) / 5)
    losses = [-math.log(p) for p in (0.5, 0.75, 0.25, 0.5, 0.5)]
    assert metrics.pop("log_loss") == pytest.approx(sum(losses) / 5)
    assert metrics == {}  # nobody is mid-active
    assert found.rows("low").tolist() == [True] * 3 + [False] * 2
    assert found.rows("all").all()


def test_cold_items_and_requests_by_hand():
    known = {"cold": np.array([1, 1, 0, 0, 0], dtype=bool), "requests": np.array([5, 6, 5, 6, 6])}
    columns = [1, 2, 3, 4, 5], [0] * 5, [1, 0, 0, 1, 0], [0.5, 0.25, 0.75, 0.5, 0.5]
    metrics = dataclasses.replace(impressions(*columns), **known).metrics()
    assert metrics["auc_cold"] == 1.0
    # 5: the click at 0.5 below 0.75. 6: the click at 0.5 above 0.25 and even with 0.5.
    assert metrics["request_auc"] == pytest.approx((2 * 0 + 3 * 0.75) / 5)
    assert not {"auc_cold", "request_auc"} & set(impressions(*columns).metrics())


def test_undefined_metrics_are_left_out():
    found = impressions([1, 2], [0, 1], [1, 0], [0.9, 0.1])
    assert set(found.metrics()) == {"log_loss", "auc"}  # no user, no group has both classes
    assert set(found.intervals()) == {"log_loss", "auc"}
    clicks = impressions([1, 1], [0, 0], [1, 1], [0.9, 0.1])
    assert set(clicks.metrics()) == {"log_loss"}


def test_intervals_hold_the_metric():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    scores = (0.3 * labels + generator.random(200)) / 1.3
    found = impressions(np.arange(200), np.zeros(200, dtype=int), labels, scores)
    for name, (low, high) in found.intervals().items():
        assert low < found.metrics()[name] < high
    assert set(found.intervals()) == {"log_loss", "auc", "auc_low"}
