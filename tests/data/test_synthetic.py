from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from recbole_mars.data import TEST, TRAIN, VALID
from recbole_mars.data.synthetic import SyntheticSettings, generate, to_log, write_atomic

SMALL = SyntheticSettings(n_users=20, n_items=40, n_tastes=4, high_length=(10, 15), image_size=8)


@pytest.fixture(scope="module")
def data():
    return generate(SyntheticSettings())


def nearest_centroid_accuracy(vectors, tastes):
    """Centroids from even items, accuracy on odd ones."""
    known, asked = slice(0, None, 2), slice(1, None, 2)
    centroids = np.stack(
        [vectors[known][tastes[known] == taste].mean(axis=0) for taste in range(tastes.max() + 1)]
    )
    distances = ((vectors[asked][:, None] - centroids) ** 2).sum(axis=-1)
    return (distances.argmin(axis=1) == tastes[asked]).mean()


def test_same_seed_same_data_other_seed_other_data():
    first, again, other = generate(SMALL), generate(SMALL), generate(replace(SMALL, seed=1))
    for name in ("users", "items", "ratings", "timestamps", "categories", "item_tastes"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert first.texts == again.texts
    assert first.images == again.images
    assert not np.array_equal(first.item_tastes, other.item_tastes)
    assert first.texts != other.texts


def test_contents_do_not_change_behaviours():
    plain, noisy = generate(SMALL), generate(replace(SMALL, image_size=12, noise=1.0))
    assert np.array_equal(plain.items, noisy.items)
    assert np.array_equal(plain.ratings, noisy.ratings)
    assert noisy.images != plain.images


def test_shares_and_lengths_are_as_set(data):
    s = data.settings
    lengths = np.bincount(data.users)
    assert data.low_active.sum() == round(s.low_share * s.n_users)
    assert set(lengths[data.low_active]) == set(range(3, 7))
    assert lengths[~data.low_active].min() == 30
    assert lengths[~data.low_active].max() == 60
    assert set(np.bincount(data.user_tastes)) <= {66, 67}
    assert set(np.bincount(data.item_tastes)) == {50}
    own = data.item_tastes[data.items] == data.user_tastes[data.users]
    assert own.mean() == pytest.approx(s.own_share, abs=0.02)


def test_missing_contents_are_as_set(data):
    no_text = {k for k, text in enumerate(data.texts) if text is None}
    no_image = {k for k, image in enumerate(data.images) if image is None}
    assert (len(no_text), len(no_image)) == (15, 30)
    assert len(no_text & no_image) == round(15 * 30 / 300)
    full = generate(replace(SMALL, missing_text=1.0, missing_image=0.0))
    assert set(full.texts) == {None}
    assert None not in full.images


def test_likes_follow_tastes(data):
    own = data.item_tastes[data.items] == data.user_tastes[data.users]
    assert data.labels[own].mean() == pytest.approx(0.9, abs=0.02)
    assert data.labels[~own].mean() == pytest.approx(0.1, abs=0.02)
    assert np.array_equal(data.labels, data.ratings >= 4)
    assert set(data.ratings) == {1, 2, 3, 4, 5}


def test_no_user_meets_an_item_twice_and_time_increases(data):
    pairs = data.users * data.settings.n_items + data.items
    assert len(np.unique(pairs)) == len(pairs)
    same_user = np.diff(data.users) == 0
    assert (np.diff(data.timestamps)[same_user] > 0).all()


def test_popularity_is_skewed(data):
    met = np.sort(np.bincount(data.items, minlength=300))
    assert met[-30:].sum() > 4 * met[:30].sum()
    even = generate(replace(data.settings, popularity=0.0))
    met = np.sort(np.bincount(even.items, minlength=300))
    assert met[-30:].sum() < 2.5 * met[:30].sum()


def test_ids_do_not_reveal_tastes(data):
    for tastes in (data.item_tastes, data.user_tastes):
        neighbours = (tastes[1:] == tastes[:-1]).mean()
        assert neighbours == pytest.approx(1 / 6, abs=0.08)
        assert abs(np.corrcoef(np.arange(len(tastes)), tastes)[0, 1]) < 0.15
    assert abs(np.corrcoef(np.arange(400), data.low_active)[0, 1]) < 0.15


def test_short_histories_leave_the_taste_open_and_long_ones_tell_it(data):
    # The best guess even for one who knows every item's taste: the commonest in the history.
    table = np.zeros((400, 6))
    np.add.at(table, (data.users, data.item_tastes[data.items]), 1)
    right = table.argmax(axis=1) == data.user_tastes
    assert 1 / 6 < right[data.low_active].mean() < 0.75
    assert right[~data.low_active].mean() > 0.97


def test_texts_and_pictures_tell_tastes(data):
    with_text = [k for k, text in enumerate(data.texts) if text is not None]
    words = sorted({word for k in with_text for word in data.texts[k].split()})
    bags = np.array([[data.texts[k].split().count(word) for word in words] for k in with_text])
    text_accuracy = nearest_centroid_accuracy(bags, data.item_tastes[with_text])
    assert text_accuracy > 0.6

    with_image = [k for k, image in enumerate(data.images) if image is not None]
    pixels = np.stack([np.asarray(data.images[k], dtype=float) for k in with_image])
    assert pixels.shape[1:] == (16, 16, 3)
    colours = pixels.mean(axis=(1, 2))
    assert nearest_centroid_accuracy(colours, data.item_tastes[with_image]) > 0.6

    mute = generate(replace(data.settings, noise=1.0))
    bags = np.array(
        [[text.split().count(word) for word in words] for text in mute.texts if text is not None]
    )
    kept = [k for k, text in enumerate(mute.texts) if text is not None]
    assert nearest_centroid_accuracy(bags, mute.item_tastes[kept]) < 0.35


def test_categories_are_weakly_related(data):
    agreement = (data.categories == data.item_tastes).mean()
    assert agreement == pytest.approx(0.3 + 0.7 / 6, abs=0.1)


def test_log_leaves_one_out():
    data = generate(replace(SMALL, low_length=(1, 4), low_share=0.6))
    log = to_log(data)
    assert (log.n_users, log.n_items) == (21, 41)
    assert np.array_equal(log.items, data.items + 1)
    for user in range(1, 21):
        phases = log.phases[log.offsets[user] : log.offsets[user + 1]].tolist()
        held_out = [VALID, TEST] if len(phases) >= 3 else []
        assert phases == [TRAIN] * (len(phases) - len(held_out)) + held_out
    assert log.training_counts()[1:].min() == 1
    assert {1, 2, 3, 4} <= set(np.bincount(log.users)[1:])


def read(file):
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_files_hold_the_data(tmp_path):
    data = generate(SMALL)
    folder = write_atomic(data, tmp_path / "new", "planted")
    assert folder == tmp_path / "new" / "planted"

    rows = read(folder / "planted.inter")
    times = [int(row["timestamp:float"]) for row in rows]
    assert times == sorted(times)
    found = {(row["user_id:token"], row["item_id:token"]): row["rating:float"] for row in rows}
    assert found == {
        (f"u{user}", f"i{item}"): str(rating)
        for user, item, rating in zip(data.users, data.items, data.ratings)
    }
    items = read(folder / "planted.item")
    assert [row["item_id:token"] for row in items] == data.item_tokens
    assert [row["title:token_seq"] or None for row in items] == data.texts
    assert [row["category:token"] for row in items] == [f"c{k}" for k in data.categories]
    assert [row["user_id:token"] for row in read(folder / "planted.user")] == data.user_tokens

    pictured = {f"i{k}.png" for k, image in enumerate(data.images) if image is not None}
    assert {file.name for file in (folder / "images").iterdir()} == pictured
    name = min(pictured)
    with Image.open(folder / "images" / name) as image:
        assert np.array_equal(image, data.images[int(name[1:-4])])

    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    assert truth["user_tastes"]["u3"] == data.user_tastes[3]
    assert list(truth["item_tastes"].values()) == data.item_tastes.tolist()
    assert len(truth["low_active"]) == data.low_active.sum()
    assert truth["settings"]["n_items"] == 40


def test_writing_again_changes_nothing_and_other_data_is_refused(tmp_path):
    data = generate(SMALL)
    folder = write_atomic(data, tmp_path, "planted")
    (folder / "notes.txt").write_text("mine")
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert write_atomic(data, tmp_path, "planted") == folder
    with pytest.raises(
        ValueError, match=r"must be absent or hold this data set, but planted\.inter"
    ):
        write_atomic(generate(replace(SMALL, seed=1)), tmp_path, "planted")
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must be absent"):
        write_atomic(data, tmp_path, "empty")


def test_failed_writing_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(generate(SMALL), tmp_path, "planted")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", ".", "a/b"])
def test_writing_refuses_names(name, tmp_path):
    with pytest.raises(ValueError, match="name must be a plain folder name"):
        write_atomic(generate(SMALL), tmp_path, name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_users": 0}, "n_users must be >= 1, got 0"),
        ({"n_tastes": 301}, "n_tastes must be <= n_items, got 301 > 300"),
        ({"image_size": 0}, "image_size must be >= 1"),
        ({"low_share": 1.5}, r"low_share must lie in 0\.\.1, got 1.5"),
        ({"taste_strength": -0.1}, "taste_strength must lie in"),
        ({"noise": np.nan}, "noise must lie in"),
        ({"missing_image": 2}, "missing_image must lie in"),
        ({"popularity": -1.0}, "popularity must be >= 0, got -1.0"),
        ({"low_length": (0, 3)}, r"low_length must be \(fewest, most\) within 1\.\.250"),
        ({"low_length": (6, 3)}, "low_length must be"),
        ({"high_length": (30, 251)}, r"high_length must be .* got \(30, 251\); raise n_items"),
    ],
)
def test_settings_refuse(options, message):
    with pytest.raises(ValueError, match=message):
        SyntheticSettings(**options)


def test_a_user_may_meet_every_item_of_the_own_taste():
    data = generate(replace(SMALL, own_share=1.0, high_length=(30, 30), low_share=0.0))
    own = data.item_tastes[data.items] == data.user_tastes[data.users]
    assert own.sum() == 20 * 10
    assert own.reshape(20, 30)[:, :10].all()
