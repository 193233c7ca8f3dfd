"""The page that shows items beside their nearest ones."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from recbole_mars.features import FeatureTable, neighbours_page
from recbole_mars.features.neighbours_page import nearest, write_neighbours_page


def table(n: int = 60, seed: int = 0) -> FeatureTable:
    matrix = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    matrix[3] = 0
    present = np.arange(n) != 3
    return FeatureTable("text", tuple(f"i{k}" for k in range(n)), matrix, present)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_nearest_against_a_loop(monkeypatch, block: int) -> None:
    monkeypatch.setattr(neighbours_page, "BLOCK", block)
    features = table()
    among, rows = np.flatnonzero(features.present)[5:], np.array([20, 59, 11])
    found, cosines = nearest(features, rows, among, 4)
    x = np.asarray(features.matrix, dtype=np.float64)
    for row, ids, values in zip(rows, found, cosines):
        scores = {
            k: x[row] @ x[k] / np.linalg.norm(x[row]) / np.linalg.norm(x[k])
            for k in among
            if k != row
        }
        expected = sorted(scores, key=lambda k: -scores[k])[:4]
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(values, [scores[k] for k in expected], rtol=1e-5)


def test_few_items() -> None:
    found, _ = nearest(table(5), np.array([0]), np.array([0, 1, 2]), 10)
    assert sorted(found[0]) == [1, 2]


def test_page(tmp_path) -> None:
    features = table()
    texts = [f"<script>alert({k})</script> & more" for k in range(60)]
    images = {}
    for k in range(0, 60, 2):
        images[f"i{k}"] = tmp_path / f"{k}.png"
        Image.new("RGB", (300, 40), (k, 0, 0)).save(images[f"i{k}"])
    images["i4"].write_bytes(b"broken")
    page = write_neighbours_page(tmp_path / "n.html", {"text": features}, texts, images)
    written = page.read_text()
    assert "<script>" not in written
    assert "&lt;script&gt;" in written
    assert not re.search(r"(src|href)=(?!'data:)", written)
    assert written.count("class=row") == 8
    assert written.count("class=score") == 40
    assert "data:image/jpeg;base64," in written
    assert "59 items with features" in written
    assert "<b>i3</b>" not in written  # it has no features
    again = write_neighbours_page(tmp_path / "m.html", {"text": features}, texts, images)
    assert again.read_text() == written
    assert {file.name for file in tmp_path.glob("*.html*")} == {"n.html", "m.html"}


def test_without_texts_or_pictures_or_neighbours(tmp_path) -> None:
    lonely = FeatureTable("image", ("a",), np.ones((1, 2)), np.ones(1, dtype=bool))
    page = write_neighbours_page(
        tmp_path / "n.html", {"text": table(), "image": lonely}, None, None
    )
    assert "<h2>text</h2>" in page.read_text()
    assert "<h2>image</h2>" not in page.read_text()
