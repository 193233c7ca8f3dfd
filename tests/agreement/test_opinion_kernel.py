"""Parts of the kernel by hand, and contents as directions."""

import numpy as np
import pytest

from recbole_mars.agreement import KernelParts, content_directions

ROOT = 0.5**0.5
TEXT = np.array([[0, 0], [1, 0], [ROOT, ROOT], [0, 0], [-1, 0]])  # item 3 has none
IMAGE = np.array([[0.0], [1], [1], [-1], [0]])
FACTORS = [
    np.array([[0.0, 0], [1, 2], [3, -1], [0, 0], [1, 1]]),
    np.array([[0.0, 0], [2, 0], [0, 5], [1, 0], [0, 1]]),
]


@pytest.fixture
def log(make_log):
    return make_log([1, 1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 4, 1, 2])


@pytest.fixture
def fold():
    return np.array([0, 1, 0])  # user 1's factors are the second ones


def parts_of(log, fold, factors=(), rows=(0, 1, 2, 3), **contents):
    parts, rows = KernelParts(factors, contents), np.array(rows)
    return dict(zip(parts.names, parts.of(log.items[rows], rows, fold[log.users[rows[0]]])))


def test_names_tell_the_parts(log):
    everything = KernelParts(FACTORS, {"text": TEXT, "image": IMAGE})
    expected = ["user", "drift 8", "drift 64", "agreement"]
    expected += ["text 0.5", "text 0.15", "image 0.5", "image 0.15"]
    assert everything.names == expected
    assert everything.of(log.items[:4], np.arange(4), 1).shape == (8, 4, 4)
    plain = KernelParts([], {})
    assert plain.names == ["user", "drift 8", "drift 64"]
    assert plain.of(log.items[4:], np.arange(4, 7), 0).shape == (3, 3, 3)


def test_user_and_drift_by_hand(log, fold):
    found = parts_of(log, fold, rows=[0, 1, 3])
    assert (found["user"] == 1).all()
    steps = np.array([[0, 1, 3], [1, 0, 2], [3, 2, 0]])
    np.testing.assert_allclose(found["drift 8"], np.exp(-steps / 8))
    np.testing.assert_allclose(found["drift 64"], np.exp(-steps / 64))


def test_a_user_gets_the_factors_of_the_own_fold(log, fold):
    """Items 1, 2, 3, 1 with the second factors, items 4, 1, 2 with the first."""
    first = parts_of(log, fold, FACTORS)["agreement"]
    assert first.tolist() == [[4, 0, 2, 4], [0, 25, 0, 0], [2, 0, 1, 2], [4, 0, 2, 4]]
    second = parts_of(log, fold, FACTORS, rows=[4, 5, 6])["agreement"]
    assert second.tolist() == [[2, 3, 2], [3, 5, 1], [2, 1, 10]]


def test_contents_by_hand(log, fold):
    """Items 1, 2 are at 45 degrees, items 1, 4 at 180; item 3 has no text."""
    found = parts_of(log, fold, text=TEXT, image=IMAGE)
    for width in (0.5, 0.15):
        near = np.exp(-(1 - ROOT) / width)
        expected = [[1, near, 0, 1], [near, 1, 0, near], [0, 0, 0, 0], [1, near, 0, 1]]
        np.testing.assert_allclose(found[f"text {width:g}"], expected, atol=1e-12)
        other = np.exp(-2 / width)
        expected = [[1, 1, other, 1], [1, 1, other, 1], [other, other, 1, other], [1, 1, other, 1]]
        np.testing.assert_allclose(found[f"image {width:g}"], expected, atol=1e-12)
    far = parts_of(log, fold, rows=[4, 5], text=TEXT)["text 0.5"]
    np.testing.assert_allclose(far, [[1, np.exp(-4)], [np.exp(-4), 1]])


def test_parts_are_symmetric_and_positive_semi_definite():
    random = np.random.default_rng(0)
    items = random.integers(1, 30, 60)
    contents = {"text": content_directions(random.normal(size=(30, 5)))}
    factors = [random.normal(size=(30, 4))]
    for part in KernelParts(factors, contents).of(items, np.arange(60), 0):
        np.testing.assert_allclose(part, part.T, atol=1e-14)
        assert np.linalg.eigvalsh(part).min() > -1e-9


@pytest.mark.parametrize("factors", [(), FACTORS], ids=["plain", "factors"])
def test_behaviours_with_others_are_a_corner_of_all_with_all(factors):
    items, positions = np.array([1, 2, 3, 1, 4, 2]), np.arange(6)
    parts = KernelParts(factors, {"text": TEXT.astype(np.float32), "image": IMAGE})
    whole = parts.of(items, positions, 1)
    steps = np.subtract.outer(positions[4:], positions[:4]).T
    corner = list(parts.between(items[:4], items[4:], steps, 1))
    np.testing.assert_allclose(corner, whole[:, :4, 4:], rtol=1e-6)
    assert {part.dtype for part in corner} == {np.dtype(np.float64)}
    np.testing.assert_allclose(
        list(parts.alone(items, 1)), np.diagonal(whole, axis1=1, axis2=2), rtol=1e-6
    )


# -- directions --------------------------------------------------------------------------------


def test_directions_by_hand():
    """The mean of those that are there is (2, 1); the third item is on it."""
    features = np.array([[0.0, 0], [5, 5], [-1, -3], [2, 1], [0, 0]])
    found = content_directions(features)
    expected = [[0, 0], [0.6, 0.8], [-0.6, -0.8], [0, 0], [0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_directions_are_centred_unit_rows():
    random = np.random.default_rng(1)
    features = random.normal(size=(50, 7)).astype(np.float32)
    features[[0, 9]] = 0
    found = content_directions(features)
    there = features.any(axis=1)
    assert found.shape == (50, 7)
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), there, atol=1e-12)
    moved = np.where(there[:, None], 3 * features + random.normal(size=7), 0)
    np.testing.assert_allclose(content_directions(moved), found, atol=1e-6)


def test_many_dimensions_keep_their_cosines():
    """Features of rank 20 in 300 dimensions fit into 256."""
    random = np.random.default_rng(2)
    features = random.normal(size=(80, 20)) @ random.normal(size=(20, 300)) + 5
    features[0] = 0
    found = content_directions(features)
    assert found.shape == (80, 256)
    assert not found[0].any()
    centred = features[1:] - features[1:].mean(axis=0)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(found[1:] @ found[1:].T, units @ units.T, atol=1e-10)


def test_of_too_many_dimensions_the_strongest_are_kept():
    random = np.random.default_rng(3)
    features = random.normal(size=(400, 300)) * np.r_[np.full(256, 10.0), np.full(44, 0.01)]
    found = content_directions(features)
    kept = content_directions(features[:, :256])
    np.testing.assert_allclose(found @ found.T, kept @ kept.T, atol=1e-3)


@pytest.mark.parametrize("width", [3, 300])
def test_no_item_has_contents(width):
    assert content_directions(np.zeros((4, width))).tolist() == [[0.0]] * 4
