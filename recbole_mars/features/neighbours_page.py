"""A page to look at: some items and their nearest neighbours by features.

Features that are right put a sequel beside its film. Rows that were mixed up, a model that does not
know the language or pictures that are all placeholders are seen at a glance, and in no statistic.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recbole_mars.data.files import write_whole
from recbole_mars.features.catalogue.image import load_image
from recbole_mars.features.stores.table import FeatureTable

__all__ = ["nearest", "write_neighbours_page"]

SHOWN, NEIGHBOURS = 8, 5
MOST = 100_000  # items among which neighbours are looked for
BLOCK = 8192
THUMBNAIL = (84, 112)
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2433; background: #f6f7f9;
       margin: 2rem auto; max-width: 76rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem } p { margin: .3rem 0 }
.row { display: grid; grid-template-columns: 1.25fr repeat(5, 1fr); gap: .6rem; margin: .6rem 0;
       background: #fff; border-radius: 10px; padding: .7rem; box-shadow: 0 1px 3px #0002 }
.item { font-size: .8rem; overflow: hidden; overflow-wrap: anywhere }
.first { border-right: 1px solid #dde1e8; padding-right: .6rem; font-size: .88rem }
img { display: block; height: 7rem; border-radius: 5px; margin-bottom: .35rem }
b { font-weight: 600 } .score { color: #2563a8; font-variant-numeric: tabular-nums }
.grey { color: #66708a }
"""


def nearest(
    features: FeatureTable, rows: np.ndarray, among: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows nearest by cosine to each of `rows`, of those in `among`, itself left out.

    rows: (m,), among: (n,) row numbers of items that have features. Returns rows (m, k) and cosines
    (m, k), best first; k is less if `among` has fewer others.
    """
    k = min(k, len(among) - 1)
    wanted = _directions(features, rows)
    best = np.full((len(rows), k), -1)
    scores = np.full((len(rows), k), -np.inf, dtype=np.float32)
    for start in range(0, len(among), BLOCK):
        block = among[start : start + BLOCK]
        cosines = wanted @ _directions(features, block).T
        cosines[rows[:, None] == block] = -np.inf
        candidates = np.concatenate([best, np.broadcast_to(block, cosines.shape)], axis=1)
        found = np.concatenate([scores, cosines], axis=1)
        order = np.argsort(-found, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(candidates, order, axis=1)
        scores = np.take_along_axis(found, order, axis=1)
    return best, scores


def write_neighbours_page(
    file: str | Path,
    features: Mapping[str, FeatureTable],
    texts: Sequence[str] | None,
    images: Mapping[str, Path] | None,
    seed: int = 0,
) -> Path:
    """Write a self-contained HTML page with some items of each kind of features.

    features: name → of n items, all in the same order. texts: one an item. images: id → picture
    file. The items are drawn by the seed; of large catalogues, neighbours are looked for among
    100,000 items.
    """
    file = Path(file)
    sections = [
        _section(name, table, texts, images or {}, np.random.default_rng(seed))
        for name, table in features.items()
        if table.present.sum() > 1
    ]
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Nearest items</title>"
        f"<style>{STYLE}</style><h1>Do the features make sense?</h1>"
        f"<p>Each row: an item, drawn at random, and the items nearest to it by the cosine of "
        f"their features. Alike items should stand together.</p>{''.join(sections)}</html>\n"
    )
    write_whole(file, page, errors="replace")  # a cut emoji in a title is no reason to fail
    return file


def _section(
    name: str,
    table: FeatureTable,
    texts: Sequence[str] | None,
    images: Mapping[str, Path],
    generator: np.random.Generator,
) -> str:
    among = np.flatnonzero(table.present)
    sampled = len(among) > MOST
    if sampled:
        among = np.sort(generator.choice(among, MOST, replace=False))
    rows = generator.choice(among, min(SHOWN, len(among)), replace=False)
    found, cosines = nearest(table, rows, among, NEIGHBOURS)
    others = _directions(table, generator.choice(among, min(500, len(among)), replace=False))
    pairs = (others @ others.T)[np.triu_indices(len(others), 1)]

    def item(row: int, kind: str, score: str = "") -> str:
        text = texts[row] if texts is not None else ""
        text = text if len(text) <= 110 else f"{text[:107]}..."
        return (
            f"<div class='item {kind}'>{_thumbnail(images.get(table.ids[row]))}"
            f"{score}<b>{html.escape(table.ids[row])}</b> {html.escape(text)}</div>"
        )

    lines = []
    for row, neighbours, values in zip(rows, found, cosines):
        cells = [item(int(row), "first")]
        cells += [
            item(int(k), "", f"<span class=score>{value:.2f}</span> ")
            for k, value in zip(neighbours, values)
        ]
        lines.append(f"<div class=row>{''.join(cells)}</div>")
    note = f", neighbours among {MOST:,} of them" if sampled else ""
    count = int(table.present.sum())
    return (
        f"<h2>{html.escape(name)}</h2><p class=grey>{count:,} items with features"
        f"{note}; cosine to the nearest item {np.median(cosines[:, 0]):.2f} in the median of those "
        f"below, of two items at random {np.median(pairs):.2f}.</p>{''.join(lines)}"
    )


def _directions(features: FeatureTable, rows: np.ndarray) -> np.ndarray:
    vectors = np.asarray(features.matrix[rows], dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _thumbnail(path: Path | None) -> str:
    """The picture in the page itself; nothing where there is none to show."""
    if path is None:
        return ""
    try:
        image = load_image(path)
    except ValueError:
        return ""
    image.thumbnail((2 * THUMBNAIL[0], 2 * THUMBNAIL[1]))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return (
        f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
    )
