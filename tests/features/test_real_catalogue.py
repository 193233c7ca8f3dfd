"""The whole way on MovieLens-100K, where the data set is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbole_mars.features import (
    FeatureTable,
    PixelEncoder,
    TfidfEncoder,
    check_against_catalogue,
    extract_images,
    extract_text,
    find_images,
    import_features,
    join_text,
)


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "ml-100k"


@pytest.fixture(scope="module")
def items(folder: Path) -> list[list[str]]:
    lines = (folder / "ml-100k.item").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t") for line in lines]


def nearest(features: FeatureTable, items: list[list[str]], title: str) -> list[str]:
    row = [item[1] for item in items].index(title)
    matrix, _ = features.select([item[0] for item in items])
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
    order = np.argsort(-(matrix @ matrix[row]))
    return [items[k][1] for k in order if k != row][:6]


def test_text_neighbours(tmp_path, items) -> None:
    ids = [item[0] for item in items]
    texts = join_text([[item[column] for item in items] for column in range(1, 7)])
    store = extract_text(ids, texts, TfidfEncoder(64), tmp_path / "text").store
    assert store.present.all()
    assert {"Jaws 2", "Jaws 3-D"} <= set(nearest(store, items, "Jaws"))
    assert {"Aliens", "Alien 3", "Alien: Resurrection"} <= set(nearest(store, items, "Alien"))
    genres = {item[1]: item[3] for item in items}
    assert all("Children's" in genres[title] for title in nearest(store, items, "Toy Story"))


def test_image_neighbours(tmp_path, folder, items) -> None:
    ids = [item[0] for item in items]
    images = find_images(ids, folder, folder / "features" / "ids.csv")
    assert len(images) == 1476
    store = extract_images(ids, images, PixelEncoder(), tmp_path / "image").store
    assert store.present.sum() == 1476
    assert nearest(store, items, "Jaws")[0] == "Jaws 2"


@pytest.mark.parametrize(("kind", "present"), [("text", 1682), ("image", 1476)])
def test_ready_features(folder, items, kind: str, present: int) -> None:
    files = folder / "features" / f"{kind}_feat.npy", folder / "features" / "ids.csv"
    features = import_features(*files, name=kind)
    check_against_catalogue(features, [item[0] for item in items])
    assert features.present.sum() == present
    assert nearest(features, items, "Jaws")[0] == "Jaws 2"
