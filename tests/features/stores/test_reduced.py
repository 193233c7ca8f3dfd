"""A store of principal components beside the full one."""

from __future__ import annotations

import numpy as np
import pytest
from fake_encoders import FakeModel
from sklearn.decomposition import PCA

from recbole_mars.features import Execution, FeatureStore, Projection, extract_text, reduce_store

IDS = [f"i{k}" for k in range(40)]
TEXTS = ["" if k == 5 else f"text {k}" for k in range(40)]


def full(folder, texts=TEXTS, dtype: str = "float32") -> FeatureStore:
    extraction = extract_text(
        IDS, texts, FakeModel(), folder, dtype=dtype, execution=Execution(batch_size=40)
    )
    return extraction.store


@pytest.mark.parametrize("whiten", [False, True])
def test_components_of_the_items_that_have_features(tmp_path, whiten: bool) -> None:
    store = full(tmp_path / "full")
    reduced = reduce_store(store, tmp_path / "s", 3, whiten=whiten, dtype="float32")
    has = np.arange(40) != 5
    pca = PCA(3, whiten=whiten).fit(store.matrix[has])
    expected = pca.transform(store.matrix[has])
    found = np.asarray(reduced.matrix[has])
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-4)
    np.testing.assert_array_equal(reduced.present, has)
    np.testing.assert_array_equal(reduced.matrix[5], 0)
    np.testing.assert_array_equal(reduced.sources, store.sources)
    share = reduced.manifest["provenance"]["explained_variance"]
    np.testing.assert_allclose(share, pca.explained_variance_ratio_.sum(), rtol=1e-6)
    again = Projection.load(reduced.folder).apply(store.matrix[has])
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_reused_until_something_changes(tmp_path) -> None:
    store = full(tmp_path / "full")

    def reduce(store=store, width=3, whiten=False, dtype="float16") -> str:
        reduced = reduce_store(store, tmp_path / "s", width, whiten=whiten, dtype=dtype)
        return reduced.manifest["fingerprint"]

    first = reduce()
    written = (tmp_path / "s" / "manifest.json").stat().st_mtime_ns
    assert reduce() == first
    assert (tmp_path / "s" / "manifest.json").stat().st_mtime_ns == written
    others = [reduce(width=2), reduce(whiten=True), reduce(dtype="int8")]
    others.append(reduce(store=full(tmp_path / "other", ["new", *TEXTS[1:]])))
    assert len({first, *others}) == 5
    assert reduce() == first
    (tmp_path / "s" / "features.npy").write_bytes(b"damaged")
    assert reduce() == first


def test_int8(tmp_path) -> None:
    store = full(tmp_path / "full")
    plain = reduce_store(store, tmp_path / "a", 3, whiten=False, dtype="float32")
    small = reduce_store(store, tmp_path / "b", 3, whiten=False, dtype="int8")
    assert small.matrix.quantised.dtype == np.int8
    np.testing.assert_allclose(small.matrix[:], plain.matrix, atol=np.abs(plain.matrix).max() / 200)


def test_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="width must be >= 1"):
        reduce_store(full(tmp_path / "f"), tmp_path / "s", 0, whiten=False, dtype="float16")
    one = extract_text(["a", "b"], ["x", ""], FakeModel(), tmp_path / "one").store
    with pytest.raises(ValueError, match="at least 2 items with features, got 1"):
        reduce_store(one, tmp_path / "s", 2, whiten=False, dtype="float16")
    assert not (tmp_path / "s").exists()
