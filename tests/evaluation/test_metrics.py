from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from recbole_mars.evaluation import auc, log_loss, rela_impr, user_auc, user_auc_report


def loop_auc(labels, scores):
    """Every pair of a click and a non-click: 1 if in order, 1/2 if tied."""
    clicks = [s for y, s in zip(labels, scores) if y == 1]
    others = [s for y, s in zip(labels, scores) if y == 0]
    wins = sum(1.0 if c > o else 0.5 if c == o else 0.0 for c in clicks for o in others)
    return wins / (len(clicks) * len(others))


def loop_user_auc(users, labels, scores):
    total = weight = 0.0
    for user in sorted(set(users)):
        own = [(y, s) for u, y, s in zip(users, labels, scores) if u == user]
        own_labels, own_scores = zip(*own)
        if len(set(own_labels)) == 2:
            total += len(own) * loop_auc(own_labels, own_scores)
            weight += len(own)
    return total / weight


def impressions(seed, n=60, levels=12):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    labels[:2] = 0, 1
    return rng.integers(8, size=n), labels, rng.integers(levels, size=n) / levels


def test_auc_by_hand():
    # pairs (click, non-click): 0.8>0.1, 0.8>0.4, 0.35>0.1, 0.35<0.4
    assert auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 3 / 4
    assert auc([0, 1, 1], [0.5, 0.5, 0.7]) == (0.5 + 1) / 2
    assert auc([1, 0], [3.0, 3.0]) == 0.5
    assert auc([1, 0], [np.inf, -np.inf]) == 1.0


@pytest.mark.parametrize("levels", [3, 10**9])
@pytest.mark.parametrize("seed", range(4))
def test_auc_equals_loop_and_sklearn(seed, levels):
    _, labels, scores = impressions(seed, levels=levels)
    assert auc(labels, scores) == pytest.approx(loop_auc(labels, scores), abs=1e-14)
    assert auc(labels, scores) == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, scores), abs=1e-14
    )


@pytest.mark.parametrize("seed", range(3))
def test_auc_invariances(seed):
    _, labels, scores = impressions(seed)
    value = auc(labels, scores)
    order = np.random.default_rng(seed).permutation(len(labels))
    assert auc(labels[order], scores[order]) == value
    assert auc(labels, np.exp(3 * scores) - 7) == value
    assert auc(1 - labels, scores) == pytest.approx(1 - value, abs=1e-15)
    assert auc(labels, -scores) == pytest.approx(1 - value, abs=1e-15)
    assert auc(np.repeat(labels, 3), np.repeat(scores, 3)) == value


def test_columns_may_be_lists_arrays_or_tensors():
    users, labels, scores = impressions(0, levels=4)  # quarters are exact in bfloat16
    value = auc(labels, scores)
    assert auc(labels.tolist(), scores.tolist()) == value
    assert auc(labels.astype(bool), scores.astype(np.float16)) == value
    tensor = torch.tensor(scores, dtype=torch.bfloat16, requires_grad=True)
    assert auc(torch.tensor(labels), tensor) == value
    assert user_auc(torch.tensor(users), labels, tensor) == user_auc(users, labels, scores)
    assert user_auc([f"u{user}" for user in users], labels, scores) == pytest.approx(
        user_auc(users, labels, scores), abs=1e-15
    )


def test_scores_one_rounding_step_apart_are_no_tie():
    assert auc([0, 1], [1.0, np.nextafter(1.0, 2.0)]) == 1.0


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "labels must be a non-empty vector"),
        ([[0, 1]], [0.1, 0.2], "labels must be a non-empty vector"),
        ([0, 1], [0.1, np.nan], "scores must not hold NaN, got 1 of 2"),
        ([0, 1], [0.1], "one length, got {'labels': 2, 'scores': 1}"),
        ([0, 2], [0.1, 0.2], "labels must be 0 or 1, got 2"),
        ([0, 0.5], [0.1, 0.2], "labels must be 0 or 1, got 0.5"),
        ([1, 1], [0.1, 0.2], "needs both classes, got only label 1"),
        ([0], [0.1], "needs both classes, got only label 0"),
    ],
)
def test_auc_refuses(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        auc(labels, scores)


def test_user_auc_by_hand():
    users = [7, 7, 7, 3, 3, 9, 5]
    labels = [1, 0, 0, 0, 1, 1, 0]
    scores = [0.5, 0.5, 0.1, 0.9, 0.2, 0.3, 0.4]
    # user 7: (0.5 + 1) / 2 of 3 impressions; user 3: 0 of 2; users 9 and 5 have one class
    report = user_auc_report(users, labels, scores)
    assert report.value == pytest.approx((3 * 0.75 + 2 * 0.0) / 5, abs=1e-15)
    assert (report.users_counted, report.users_excluded, report.impressions_counted) == (2, 2, 5)
    assert user_auc(users, labels, scores) == report.value


@pytest.mark.parametrize("levels", [3, 10**9])
@pytest.mark.parametrize("seed", range(4))
def test_user_auc_equals_loop(seed, levels):
    users, labels, scores = impressions(seed, levels=levels)
    expected = loop_user_auc(users, labels, scores)
    assert user_auc(users, labels, scores) == pytest.approx(expected, abs=1e-14)


def test_user_auc_invariances():
    users, labels, scores = impressions(5)
    value = user_auc(users, labels, scores)
    order = np.random.default_rng(0).permutation(len(users))
    assert user_auc(users[order], labels[order], scores[order]) == pytest.approx(value, abs=1e-15)
    assert user_auc(users, labels, scores + 10.0 * users) == pytest.approx(value, abs=1e-15)
    assert user_auc(100 - users, labels, scores) == pytest.approx(value, abs=1e-15)
    assert user_auc(np.zeros(len(users)), labels, scores) == auc(labels, scores)


def test_user_auc_refuses_users_with_one_class_only():
    with pytest.raises(
        ValueError, match="needs a user with clicks and non-clicks, got none among 2"
    ):
        user_auc([1, 1, 2], [1, 1, 0], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="one length"):
        user_auc([1], [1, 0], [0.1, 0.2])
    with pytest.raises(ValueError, match="user_ids must be a non-empty vector"):
        user_auc([], [], [])


def test_log_loss_by_hand_and_by_sklearn():
    assert log_loss([1, 0], [0.8, 0.4]) == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert log_loss([1, 1], [0.5, 0.5]) == pytest.approx(np.log(2))
    _, labels, scores = impressions(1)
    clear = np.clip(scores, 0.01, 0.99)
    assert log_loss(labels, clear) == pytest.approx(sklearn_metrics.log_loss(labels, clear))
    assert log_loss(1 - labels, 1 - clear) == pytest.approx(log_loss(labels, clear))


def test_log_loss_of_certain_mistakes_is_cut():
    assert log_loss([1, 0], [0.0, 1.0], eps=1e-6) == pytest.approx(-np.log(1e-6))
    assert log_loss([1, 0], [1.0, 0.0]) == pytest.approx(1e-15)
    assert np.isfinite(log_loss([1, 0], np.array([0, 1], dtype=np.float32)))


def test_log_loss_refuses():
    with pytest.raises(ValueError, match=r"probabilities must lie in 0..1, got 1.5; apply the sig"):
        log_loss([1, 0], [1.5, 0.5])
    with pytest.raises(ValueError, match="probabilities must not hold NaN"):
        log_loss([1, 0], [np.nan, 0.5])
    with pytest.raises(ValueError, match="one length"):
        log_loss([1, 0], [0.5])


def test_rela_impr():
    assert rela_impr(0.72, 0.70) == pytest.approx(10.0)
    assert rela_impr(0.6, 0.6) == 0.0
    assert rela_impr(0.5, 0.7) == pytest.approx(-100.0)
    with pytest.raises(ValueError, match=r"base must differ from 0\.5"):
        rela_impr(0.7, 0.5)
