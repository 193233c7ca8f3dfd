"""Rows kept in fewer bytes: what they come back as, and what models make of them."""

import numpy as np
import pytest
import torch

from recbole_mars.ctr import Modality
from recbole_mars.ctr.contents import FrozenFeatures
from recbole_mars.ctr.frozen_rows import STORAGES, FrozenRows
from recbole_mars.ctr.similarities import ItemSimilarities


def kept(rows, storage):
    return FrozenRows(np.asarray(rows), lambda block, part: block, storage)


def test_int8_by_hand():
    rows = kept([[0.0, 0.0], [2.54, -1.0], [1e-30, 2e-30]], "int8")
    assert rows.kept.tolist() == [[0, 0], [127, -50], [64, 127]]
    expected = np.hypot(2.54, 1) * np.array([127, -50]) / np.hypot(127, 50)
    np.testing.assert_allclose(rows(torch.tensor([1])), [expected], rtol=1e-6)
    assert not rows(torch.tensor([0])).any()


@pytest.mark.parametrize(("storage", "error"), list(zip(STORAGES, (0.0, 5e-4, 5e-3))))
def test_rows_come_back_with_their_norm(monkeypatch, storage, error):
    monkeypatch.setattr("recbole_mars.ctr.frozen_rows.BLOCK", 64)  # several blocks
    matrix = np.random.default_rng(0).normal(size=(50, 24)).astype(np.float32)
    rows = kept(matrix, storage)
    found = rows(torch.tensor([7, 3]))
    assert found.dtype == torch.float32
    torch.testing.assert_close(rows(slice(3, 4)), found[1:])
    largest = np.abs(matrix[[7, 3]]).max()
    np.testing.assert_allclose(found, matrix[[7, 3]], atol=error * largest, rtol=0)
    norms = np.linalg.norm(matrix[[7, 3]], axis=1)
    np.testing.assert_allclose(
        found.norm(dim=1), norms, rtol=2e-4 if storage == "float16" else 1e-6
    )
    bytes_a_row = {"float32": 4 * 24, "float16": 2 * 24, "int8": 24 + 4}
    assert rows.nbytes == 50 * bytes_a_row[storage]
    assert not rows.state_dict()


def test_rounding_again_changes_nothing():
    matrix = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    once = kept(matrix, "int8")
    again = kept(once(slice(None)).numpy(), "int8")
    assert torch.equal(once.kept, again.kept)
    torch.testing.assert_close(once.scales, again.scales)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_follow_their_module(storage, dtype):
    rows = kept(np.eye(3, dtype=np.float32), storage).to(dtype)
    assert rows(torch.tensor([1])).dtype == rows.dtype == dtype
    torch.testing.assert_close(rows(torch.tensor([1])), torch.tensor([[0, 1, 0]], dtype=dtype))


@pytest.mark.parametrize("storage", ["float16", "int8"])
@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize(("scale", "error"), [("cosine", 0.003), ("quantile", 0.015)])
def test_small_storage_hardly_moves_similarities(monkeypatch, storage, table, scale, error):
    monkeypatch.setattr("recbole_mars.ctr.similarities._TABLE_BYTES", 1 << 20 if table else 0)
    items = Modality("text", np.random.default_rng(0).normal(size=(90, 32)), np.arange(90) > 0)
    first, second = torch.arange(1, 90), torch.arange(1, 90).roll(1)
    exact = ItemSimilarities(items, scale)._of_pairs(first, second)
    found = ItemSimilarities(items._replace(storage=storage), scale)._of_pairs(first, second)
    torch.testing.assert_close(found, exact, atol=error, rtol=0)
    own = ItemSimilarities(items._replace(storage=storage))
    assert own._of_pairs(first, first).tolist() == [1.0] * 89  # an item is like itself


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_small_storage_hardly_moves_features(two_modalities, storage):
    for modality in two_modalities:
        exact, present = FrozenFeatures(modality)(torch.arange(len(modality.present)))
        small = FrozenFeatures(modality._replace(storage=storage))
        found, same = small(torch.arange(len(modality.present)))
        assert torch.equal(present, same)
        assert not found[~present].any()
        torch.testing.assert_close(found, exact, atol=0.02, rtol=0)


def test_an_unknown_storage():
    with pytest.raises(ValueError, match="storage must be one of float32, float16, int8, got 'x'"):
        kept([[1.0]], "x")
