"""Principal components are exact, however the rows come, and whitened ones are white."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from recbole_mars.features import Projection
from recbole_mars.features.stores import reduction


def cloud(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows with clearly different variances in random directions, off the origin."""
    generator = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(generator.normal(size=(width, width)))
    sizes = 2.0 ** -np.arange(width)[: min(width, 12)]
    return 3 + generator.normal(size=(rows, len(sizes))) * sizes @ rotation[: len(sizes)]


def assert_same(one: Projection, other: Projection, tolerance: float = 1e-9) -> None:
    for field in ("mean", "components", "variances", "total_variance"):
        found, expected = getattr(one, field), getattr(other, field)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_by_hand() -> None:
    # Along (3, 4) / 5 at -5, 0 and 5; across it, -(4, -3) / 5, at 1, -2 and 1; about (10, 20).
    along, across = np.array([0.6, 0.8]), np.array([-0.8, 0.6])
    rows = np.array([10, 20]) + np.outer([-5, 0, 5], along) + np.outer([1, -2, 1], across)
    projection = Projection.fit([rows], 2)
    np.testing.assert_allclose(projection.mean, [10, 20])
    np.testing.assert_allclose(projection.variances, [25, 3])
    np.testing.assert_allclose(projection.components, [along, -across], atol=1e-12)
    np.testing.assert_allclose(projection.apply(rows), [[-5, -1], [0, 2], [5, -1]], atol=1e-6)
    assert (projection.width, projection.explained) == (2, 1.0)
    one = Projection.fit([rows], 1, whiten=True)
    np.testing.assert_allclose(one.explained, 25 / 28)
    np.testing.assert_allclose(one.apply(rows), [[-1], [0], [1]], atol=1e-6)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(200, 12), (12, 12), (13, 12), (9, 40), (41, 40)])
def test_against_sklearn(rows: int, width: int, whiten: bool) -> None:
    matrix, kept = cloud(rows, width), 5
    projection = Projection.fit([matrix], kept, whiten)
    pca = PCA(kept, whiten=whiten, svd_solver="full").fit(matrix)
    signs = np.sign((projection.components * pca.components_).sum(axis=1))
    np.testing.assert_allclose(projection.components, pca.components_ * signs[:, None], atol=1e-8)
    np.testing.assert_allclose(projection.variances, pca.explained_variance_, rtol=1e-8)
    np.testing.assert_allclose(projection.explained, pca.explained_variance_ratio_.sum())
    expected = pca.transform(matrix) * signs
    np.testing.assert_allclose(projection.apply(matrix), expected, rtol=1e-5, atol=1e-5)
    assert projection.apply(matrix).dtype == np.float32


@pytest.mark.parametrize("heights", [[1] * 60, [0, 1, 2, 57], [30, 30], [59, 0, 1], [7, 20, 33]])
@pytest.mark.parametrize("width", [4, 59, 60, 61, 100])
def test_blocks_do_not_matter(monkeypatch, heights: list[int], width: int) -> None:
    matrix = cloud(60, width)
    whole = Projection.fit([matrix], 4)
    assert_same(Projection.fit(np.split(matrix, np.cumsum(heights)[:-1]), 4), whole)
    monkeypatch.setattr(reduction, "BLOCK", 7)
    assert_same(Projection.fit(iter([matrix]), 4), whole)
    np.testing.assert_allclose(whole.apply(matrix), whole.apply(matrix.copy()), rtol=1e-6)


@pytest.mark.parametrize(("rows", "width"), [(500, 10), (8, 30)])
def test_whitened_covariance_is_the_identity(rows: int, width: int) -> None:
    matrix = cloud(rows, width)
    projection = Projection.fit([matrix], 6, whiten=True)
    whitened = projection.apply(matrix).astype(np.float64)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(6), atol=1e-5)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("offset", [1.0, -1e5])
@pytest.mark.parametrize(("rows", "width"), [(300, 8), (6, 20)])
def test_moving_the_origin_changes_nothing(rows: int, width: int, offset: float) -> None:
    matrix = cloud(rows, width)
    direction = np.random.default_rng(1).normal(size=width)
    moved = matrix + offset * direction
    blocks, moved_blocks = np.array_split(matrix, 3), np.array_split(moved, 3)
    projection, other = Projection.fit(blocks, 4), Projection.fit(moved_blocks, 4)
    np.testing.assert_allclose(other.components, projection.components, atol=1e-7)
    np.testing.assert_allclose(other.variances, projection.variances, rtol=1e-7)
    np.testing.assert_allclose(other.apply(moved), projection.apply(matrix), atol=1e-6)


def test_distances_are_kept() -> None:
    matrix = cloud(30, 8)
    reduced = Projection.fit([matrix], 8).apply(matrix).astype(np.float64)
    for one, other in ((0, 1), (3, 17)):
        expected = np.linalg.norm(matrix[one] - matrix[other])
        np.testing.assert_allclose(np.linalg.norm(reduced[one] - reduced[other]), expected, 1e-6)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(("rows", "width", "rank"), [(100, 20, 3), (10, 50, 3), (3, 50, 2)])
def test_vanishing_directions_are_dropped(caplog, rows, width, rank, whiten: bool) -> None:
    generator = np.random.default_rng(0)
    matrix = 5 + generator.normal(size=(rows, 3)) @ generator.normal(size=(3, width))
    with caplog.at_level(logging.INFO):
        projection = Projection.fit([matrix], 7, whiten)
    assert projection.width == rank
    assert f"{rows} items with {width} dimensions admit {rank} components, not 7" in caplog.text
    np.testing.assert_allclose(projection.explained, 1.0)
    assert np.abs(projection.apply(matrix)).max() < 100


def test_signs() -> None:
    matrix = cloud(100, 12)
    components = Projection.fit([matrix], 12).components
    assert (components[np.arange(len(components)), np.abs(components).argmax(axis=1)] > 0).all()
    assert_same(Projection.fit([matrix[::-1]], 12), Projection.fit([matrix], 12))
    # (1, -1) and (-1, 1) have entries as large as each other: the first one is made positive.
    rows = np.outer(np.arange(-7.0, 8.0), [0.1, -0.1]) / 3
    for seed in range(20):
        shuffled = np.random.default_rng(seed).permutation(rows)
        [component] = Projection.fit([shuffled], 1).components
        np.testing.assert_allclose(component, [0.5**0.5, -(0.5**0.5)])


def test_float16_memory_maps(tmp_path) -> None:
    np.save(tmp_path / "x.npy", cloud(50, 8).astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    projection = Projection.fit([mapped], 4)
    assert_same(projection, Projection.fit([np.array(mapped, dtype=np.float64)], 4))
    assert projection.apply(mapped).shape == (50, 4)
    assert projection.apply(mapped[:0]).shape == (0, 4)


@pytest.mark.parametrize("whiten", [False, True])
def test_save_and_load(tmp_path, whiten: bool) -> None:
    projection = Projection.fit([cloud(50, 8)], 4, whiten)
    path = projection.save(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "projection.npz"
    assert [file.name for file in path.parent.iterdir()] == ["projection.npz"]
    loaded = Projection.load(path.parent)
    assert_same(loaded, projection, tolerance=0)
    assert loaded.whiten is whiten
    np.testing.assert_array_equal(loaded.apply(cloud(9, 8)), projection.apply(cloud(9, 8)))
    content = path.read_bytes()
    projection.save(path.parent)
    assert path.read_bytes() == content


def test_damaged_files(tmp_path) -> None:
    complaint = r"cannot read a projection from .*projection\.npz: .*; fit and save it anew"
    with pytest.raises(ValueError, match=complaint):
        Projection.load(tmp_path)
    path = Projection.fit([cloud(50, 8)], 4).save(tmp_path)
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (
        b"",
        b"text",
        content[:-50],
        content[:middle] + b"\xff" + content[middle + 1 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=complaint):
            Projection.load(tmp_path)
    np.savez(path, mean=np.array([object()]))
    with pytest.raises(ValueError, match=complaint):
        Projection.load(tmp_path)
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(ValueError, match=complaint):
        Projection.load(tmp_path)


@pytest.mark.parametrize(
    ("blocks", "width", "complaint"),
    [
        ([np.eye(3)], 0, "width must be >= 1, got 0"),
        ([], 2, "at least 2 items with features, got 0"),
        ([np.zeros((0, 3)), np.ones((1, 3))], 2, "at least 2 items with features, got 1"),
        ([np.full((7, 3), 0.1)], 2, "must vary .* all 7 items are equal"),
        ([np.full((2, 9), 1e6 / 3)], 2, "must vary .* all 2 items are equal"),
        ([np.zeros((5, 2))], 2, "must vary"),
        ([np.ones((2, 3)), np.ones((2, 4))], 2, r"shape \(n, 3\), got float64 of shape \(2, 4\)"),
        ([np.ones(3)], 2, r"shape \(n, D\), got float64 of shape \(3,\)"),
        ([np.ones((3, 0))], 2, r"got float64 of shape \(3, 0\)"),
        ([np.ones((3, 2), dtype=int)], 2, "must be floats"),
        ([np.array([[1.0, 2], [np.nan, 1]])], 2, "must be finite, .* in row 1"),
    ],
)
def test_what_cannot_be_fitted(blocks: list, width: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Projection.fit(blocks, width)


def test_what_cannot_be_applied(monkeypatch) -> None:
    projection = Projection.fit([cloud(50, 8)], 4)
    with pytest.raises(ValueError, match=r"shape \(n, 8\), got float64 of shape \(2, 4\)"):
        projection.apply(np.ones((2, 4)))
    monkeypatch.setattr(reduction, "BLOCK", 2)
    rows = np.ones((5, 8), dtype=np.float32)
    rows[3] = np.inf
    with pytest.raises(ValueError, match="found NaN or infinity in row 3"):
        projection.apply(rows)


@pytest.mark.parametrize(
    ("mean", "components", "variances", "complaint"),
    [
        (np.zeros(3), np.zeros((2, 4)), np.ones(2), r"got \(3,\), \(2, 4\) and \(2,\)"),
        (np.zeros(3), np.zeros((2, 3)), np.ones(3), r"got \(3,\), \(2, 3\) and \(3,\)"),
        (np.zeros((1, 3)), np.zeros((2, 1, 3)), np.ones(2), "must have mean"),
        (np.zeros(3), np.full((2, 3), np.nan), np.ones(2), "finite values and variances > 0"),
        (np.zeros(3), np.zeros((2, 3)), np.array([1.0, 0.0]), "finite values and variances > 0"),
    ],
)
def test_what_is_no_projection(mean, components, variances, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Projection(mean, components, variances, 1.0, False)


def test_real_features(shared_data: Path) -> None:
    matrix = np.load(shared_data / "ml-100k" / "features" / "text_feat.npy", mmap_mode="r")
    projection = Projection.fit([matrix], 64)
    pca = PCA(64, svd_solver="full").fit(matrix.astype(np.float64))
    np.testing.assert_allclose(projection.variances, pca.explained_variance_, rtol=1e-9)
    assert 0.5 < projection.explained < 0.9
