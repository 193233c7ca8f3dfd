"""Agreement of pairs that are in no log: equal to the table's, by hand, on disk, and refused."""

import csv
import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from recbole_mars.agreement import (
    AGREEMENT_COLUMNS,
    AgreementSettings,
    ColumnScale,
    FittedAgreement,
    ItemTotals,
    agree,
)
from recbole_mars.data import TEST, TRAIN, VALID, InteractionLog

ITEM, SUPPORT, USER, UNCERTAINTY, HISTORY = range(5)
SETTINGS = AgreementSettings(factors=4, sample_users=40, max_length=9)


@pytest.fixture(scope="module")
def mixed(make_log):
    """Users of 2 to 40 behaviours, whose items come up again; half of user 3's are held out, all
    of user 4's, and of others the last two. Item 1 and some others have no contents."""
    random = np.random.default_rng(0)
    lengths = random.integers(2, 15, 60)
    lengths[:5] = 40, 31, 23, 9, 2
    users = np.repeat(np.arange(60) + 1, lengths)
    items = random.integers(1, 25, len(users))
    place = np.concatenate([np.arange(length) for length in lengths])
    left = np.repeat(lengths, lengths) - place
    phases = np.where(left == 1, TEST, np.where(left == 2, VALID, TRAIN))
    phases[(users == 3) & (place > 10) | (users == 4)] = TEST
    contents = random.normal(size=(26, 4))
    contents[[0, 1, 7, 8]] = 0
    tastes = random.normal(size=(61, 4))
    utility = np.einsum("nd,nd->n", tastes[users], contents[items]) + random.normal(size=len(users))
    ratings = np.clip(np.round(3 + utility), 1, 5).astype(np.float32)
    return make_log(users, items, phases, n_items=26), ratings, contents


def asked_of(fitted, log, opinions, row, candidates=None, latest=None):
    """expect() of what the log's row would have been told online."""
    past = np.arange(log.offsets[log.users[row]], row)
    n_behaviours = len(past)
    past = past if latest is None else past[-latest:]
    return fitted.expect(
        log.items[past],
        opinions[past],
        log.phases[past] == TRAIN,
        log.items[[row]] if candidates is None else candidates,
        int(fitted.fold[log.users[row]]),
        n_behaviours,
    )


def check_parity(log, opinions, features, settings, rows):
    found = agree(log, opinions, features, settings)
    expected = found.standardised()
    for row in rows:
        online = asked_of(found.fitted, log, opinions, row)
        assert (online.shape, online.dtype) == ((1, len(AGREEMENT_COLUMNS)), np.float32)
        np.testing.assert_allclose(online[0], expected[row], rtol=0, atol=1e-5)


# -- the same as offline -----------------------------------------------------------------------


@pytest.mark.parametrize("max_length", [2, 9, 12, 400])
@pytest.mark.parametrize("factors", [0, 4])
@pytest.mark.parametrize("modalities", [[], ["text"], ["text", "image"]])
def test_held_out_rows_are_told_the_same_online(mixed, max_length, factors, modalities):
    log, ratings, contents = mixed
    features = {name: contents[:, : 2 + n] for n, name in enumerate(modalities)}
    settings = dataclasses.replace(SETTINGS, max_length=max_length, factors=factors)
    rows = np.flatnonzero(log.phases != TRAIN)
    assert log.users[rows].tolist().count(3) > 10
    check_parity(log, ratings, features, settings, rows)


def test_real_histories():
    """The first 150 users of the ml-100k that RecBole brings, the last two behaviours of each."""
    recbole = Path(find_spec("recbole").origin).parent
    with open(recbole / "dataset_example" / "ml-100k" / "ml-100k.inter") as stream:
        table = np.array(list(csv.reader(stream, delimiter="\t"))[1:], dtype=float)
    table = table[table[:, 0] <= 150]
    users, items, ratings, times = table[np.lexsort((table[:, 3], table[:, 0]))].T
    users, items = users.astype(np.int64), items.astype(np.int64)
    ends = np.flatnonzero(np.r_[users[1:] != users[:-1], True])
    phases = np.zeros(len(users), dtype=np.int8)
    phases[ends], phases[ends - 1] = TEST, VALID
    labels = (ratings >= 4).astype(np.float32)
    log = InteractionLog(users, items, labels, times, phases, 151, items.max() + 1)
    features = {"text": np.random.default_rng(0).normal(size=(log.n_items, 20))}
    settings = AgreementSettings(sample_users=20, sample_length=30, max_length=100)
    check_parity(log, labels, features, settings, np.flatnonzero(phases != TRAIN))


def test_the_own_counted_opinions_are_not_anothers(mixed):
    """Told that they were not counted, the item's mean has them as another user's."""
    log, ratings, _ = mixed
    fitted = agree(log, ratings, {}, SETTINGS).fitted
    past = np.arange(log.offsets[1], log.offsets[2] - 2)
    again = log.items[past][[4]]
    own = int((log.items[past] == again).sum())
    support = [
        np.expm1(
            fitted.scale.means[SUPPORT]
            + fitted.scale.spreads[SUPPORT]
            * fitted.expect(log.items[past], ratings[past], counted, again)[0, SUPPORT]
        )
        for counted in (np.ones(len(past), bool), np.zeros(len(past), bool))
    ]
    assert own >= 1
    assert support[1] - support[0] == pytest.approx(own, abs=1e-3)


def test_a_record_of_the_latest_behaviours_is_enough(mixed):
    """As many as the longest look back, if no item that was counted before comes up again."""
    log, ratings, contents = mixed
    log = dataclasses.replace(log, phases=np.where(log.users <= 3, VALID, log.phases))
    fitted = agree(log, ratings, {"text": contents}, SETTINGS).fitted
    for row in range(log.offsets[1] + 9, log.offsets[4]):
        whole = asked_of(fitted, log, ratings, row)
        latest = asked_of(fitted, log, ratings, row, latest=SETTINGS.max_length - 1)
        np.testing.assert_allclose(latest, whole, atol=1e-6)
    row = log.offsets[2] - 1
    cut = asked_of(fitted, log, ratings, row, latest=2)
    whole = asked_of(fitted, log, ratings, row)
    assert cut[0, UNCERTAINTY] > whole[0, UNCERTAINTY] + 1e-3
    assert cut[0, HISTORY] == whole[0, HISTORY]


def test_candidates_do_not_touch_each_other(mixed):
    log, ratings, contents = mixed
    fitted = agree(log, ratings, {"text": contents}, SETTINGS).fitted
    past = np.arange(log.offsets[2], log.offsets[3])
    own = fitted.past(log.items[past], ratings[past], log.phases[past] == TRAIN, fold=1)
    every = np.arange(log.n_items)
    together = fitted.expect_after(own, every)
    for item in every:
        alone = fitted.expect_after(own, np.array([item]))
        np.testing.assert_allclose(alone, together[[item]], atol=1e-6)
    twice = fitted.expect_after(own, np.array([5, 3, 5]))
    np.testing.assert_allclose(twice, together[[5, 3, 5]], atol=1e-6)
    assert fitted.expect_after(own, np.zeros(0, dtype=np.int64)).shape == (0, 5)


# -- by hand -----------------------------------------------------------------------------------


def by_hand(**changes):
    """Three items, one fold; a user's opinions are alike, whatever the item."""
    parts = {
        "opinion_mean": 3.0,
        "opinion_spread": 2.0,
        "totals": ItemTotals(
            np.array([0.0, 2, 1]), np.array([0.0, 2, -1]), np.array([[0.25, 0.5, 0]]), 2.0
        ),
        "factors": np.zeros((1, 3, 0), dtype=np.float32),
        "contents": {},
        "weights": {"user": 1.0, "drift 8": 0.0, "drift 64": 0.0, "noise": 1.0},
        "max_length": 10,
        "scale": ColumnScale(np.zeros(5), np.ones(5)),
        "fold": np.zeros(4, dtype=np.uint8),
    }
    return FittedAgreement(**{**parts, **changes})


def asked(fitted, items=(1,), opinions=(5.0,), counted=(True,), candidates=(1, 2, 0), **more):
    arguments = (np.array(part) for part in (items, opinions, counted, candidates))
    return fitted.expect(*arguments, **more)


def test_one_behaviour_by_hand():
    """The opinion 5 is 1 in units of the spread; others' of item 1: (2 - 1 + 2 * 0.5) / (1 + 2).
    What remains is 1/3, of which the posterior is half, with half of the prior variance."""
    found = asked(by_hand())
    expected = [
        [2 / 3, np.log(2), 1 / 6, 0.5**0.5, np.log(2)],
        [-1 / 3, np.log(2), 1 / 6, 0.5**0.5, np.log(2)],
        [0.25, 0, 1 / 6, 0.5**0.5, np.log(2)],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    not_counted = asked(by_hand(), counted=[False])
    np.testing.assert_allclose(not_counted[0, :3], [0.75, np.log(3), 0.125], atol=1e-6)


def test_no_behaviour_by_hand():
    found = asked(by_hand(), [], [], [])
    expected = [[0.75, np.log(3), 0, 1, 0], [-1 / 3, np.log(2), 0, 1, 0], [0.25, 0, 0, 1, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_moods_by_hand():
    """Only the mood counts: an opinion three behaviours ago tells e^(-3/8) of it."""
    fitted = by_hand(weights={"user": 0.0, "drift 8": 2.0, "drift 64": 0.0, "noise": 1.0})
    middle = 0.75 * 2 + 3  # what is expected of item 1: nothing remains
    found = asked(fitted, [0, 1, 1], [4.5, middle, middle], [False] * 3)
    kernel = 2 * np.exp(-np.abs(np.subtract.outer(np.arange(4), np.arange(4))) / 8)
    gain = np.linalg.solve(kernel[:3, :3] + np.eye(3), kernel[:3, 3])
    mean, variance = gain[0] * (0.75 - 0.25), 2 - gain @ kernel[:3, 3]
    np.testing.assert_allclose(found[:, USER], mean, atol=1e-6)
    np.testing.assert_allclose(found[:, UNCERTAINTY], variance**0.5, atol=1e-6)


def test_folds_have_their_own_factors_and_priors():
    totals = by_hand().totals._replace(priors=np.array([[0.0, 0, 0], [0.0, 0, 3]]))
    factors = np.array([[[0.0], [1], [1]], [[0.0], [2], [-1]]], dtype=np.float32)
    weights = {"user": 0.0, "drift 8": 0.0, "drift 64": 0.0, "agreement": 1.0, "noise": 1.0}
    fitted = by_hand(totals=totals, factors=factors, weights=weights)
    first, second = (asked(fitted, candidates=[2, 0], fold=fold) for fold in (0, 1))
    np.testing.assert_allclose(first[0, ITEM], -1 / 3, atol=1e-6)
    np.testing.assert_allclose(second[0, ITEM], (-1 + 2 * 3) / 3, atol=1e-6)
    rest = 1 - 1 / 3  # of the opinion on item 1, of which one other said 1
    np.testing.assert_allclose(first[0, USER], 1 / (1 + 1) * rest, atol=1e-6)
    np.testing.assert_allclose(second[0, USER], -2 / (4 + 1) * rest, atol=1e-6)
    assert first[1, [SUPPORT, USER, UNCERTAINTY]].tolist() == [0, 0, 0]  # nobody met item 0
    np.testing.assert_array_equal(asked(fitted, candidates=[2, 0]), first)  # a new user


def test_columns_are_in_the_scale_of_training():
    scale = ColumnScale(np.arange(5.0), np.array([1.0, 2, 4, 8, 16]))
    found, plain = asked(by_hand(scale=scale)), asked(by_hand())
    np.testing.assert_allclose(found, (plain - scale.means) / scale.spreads, atol=1e-6)


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"counted": [True, False]}, r"must have one length, got \[\(1,\), \(1,\), \(2,\)\]"),
        ({"opinions": [[5.0]]}, "must have one length"),
        ({"opinions": [np.nan]}, "opinions must be finite"),
        ({"items": [3]}, r"items must lie in 0\.\.2, got 3\.\.3"),
        ({"candidates": [1, -1]}, r"candidates must lie in 0\.\.2, got -1\.\.1"),
        ({"candidates": [[1, 2]]}, r"candidates must be a list of ids, got shape \(1, 2\)"),
        ({"fold": 1}, r"fold must lie in 0\.\.0, got 1"),
        ({"fold": -1}, "fold must lie in"),
        ({"n_behaviours": 0}, "n_behaviours must be >= 1, as are given, got 0"),
        ({"items": [0]}, "counted must mark training opinions only"),
        ({"items": [2, 2], "opinions": [1, 2], "counted": [True] * 2}, "counted must mark"),
    ],
)
def test_what_cannot_be_asked(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        asked(by_hand(), **changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"factors": np.zeros((1, 4, 0))}, r"factors of agreement must be \(1, 3\), got \(1, 4\)"),
        ({"contents": {"text": np.zeros((2, 1))}}, "weights of agreement must be"),
        ({"weights": {"noise": 1.0}}, "weights of agreement must be"),
        ({"scale": ColumnScale(np.zeros(4), np.ones(5))}, r"column means .* must be \(5,\)"),
        ({"scale": ColumnScale(np.zeros(5), np.ones(4))}, r"column spreads .* must be \(5,\)"),
        ({"fold": np.array([0, 1])}, r"folds of users must lie in 0\.\.0, got 1"),
        ({"totals": by_hand().totals._replace(counts=np.zeros(2))}, "item counts of agreement"),
        ({"totals": by_hand().totals._replace(sums=np.zeros(4))}, "item sums of agreement"),
    ],
)
def test_parts_that_do_not_fit(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        by_hand(**changes)


def test_contents_of_other_items():
    weights = {**by_hand().weights, "text 0.5": 0.0, "text 0.15": 0.0}
    weights["noise"] = weights.pop("noise")  # the last one
    by_hand(contents={"text": np.zeros((3, 1))}, weights=weights)
    with pytest.raises(ValueError, match=r"text of agreement must be 3, got 2"):
        by_hand(contents={"text": np.zeros((2, 1))}, weights=weights)


# -- on disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("factors", [0, 4])
def test_what_is_loaded_answers_the_same(mixed, tmp_path, mmap, factors):
    log, ratings, contents = mixed
    settings = dataclasses.replace(SETTINGS, factors=factors)
    fitted = agree(log, ratings, {"text": contents, "image": contents[:, :2]}, settings).fitted
    fitted.save(tmp_path / "fitted")
    assert {file.suffix for file in (tmp_path / "fitted").iterdir()} == {".npy", ".json"}
    loaded = FittedAgreement.load(tmp_path / "fitted", mmap)
    assert dict(loaded.weights) == dict(fitted.weights)
    assert np.array_equal(loaded.fold, fitted.fold)
    for row in np.flatnonzero(log.phases == TEST)[::7]:
        candidates = np.arange(log.n_items)
        expected = asked_of(fitted, log, ratings, row, candidates)
        np.testing.assert_allclose(
            asked_of(loaded, log, ratings, row, candidates), expected, atol=1e-6
        )


def test_loaded_without_mmap_the_folder_may_go(tmp_path):
    by_hand().save(tmp_path / "fitted")
    loaded = FittedAgreement.load(tmp_path / "fitted", mmap=False)
    for file in (tmp_path / "fitted").iterdir():
        file.write_bytes(b"")
    np.testing.assert_array_equal(asked(loaded), asked(by_hand()))


def test_a_folder_that_is_there_is_refused(tmp_path):
    by_hand().save(tmp_path / "fitted")
    with pytest.raises(ValueError, match="fitted must not exist yet"):
        by_hand(max_length=5).save(tmp_path / "fitted")
    assert FittedAgreement.load(tmp_path / "fitted").max_length == 10


def test_a_folder_that_is_not_whole(tmp_path):
    folder = tmp_path / "fitted"
    with pytest.raises(ValueError, match="fitted must hold contents"):
        FittedAgreement.load(folder)
    by_hand().save(folder)
    contents = folder / "contents.json"
    whole = json.loads(contents.read_text())

    def refused(complaint, **notes):
        contents.write_text(json.dumps({**whole, "notes": {**whole["notes"], **notes}}))
        with pytest.raises(ValueError, match=complaint):
            FittedAgreement.load(folder)

    refused("fitted must be of agreement's format 1, got 7; fit it anew", format=7)
    refused("fitted must hold all parts of agreement: weights of", weights={"noise": 1})
    del whole["notes"]["strength"]
    refused("fitted must hold all parts of agreement: 'strength'")
    file = folder / "2.npy"
    file.write_bytes(file.read_bytes()[:-9])
    refused("fitted must hold contents")
