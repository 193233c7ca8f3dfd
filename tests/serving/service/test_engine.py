"""The engine says what the scorer says, whatever fails."""

from __future__ import annotations

import json
import logging
import time

import numpy as np
import pytest

from recbole_mars.serving import Request, RequestSettings, UserRecord
from recbole_mars.serving.service import Engine, Question, Recent
from recbole_mars.serving.users import RUNNER_KEY, user_key

CANDIDATES = [f"item{number}" for number in (3, 1, 20, 3)]
IDS = np.array([3, 1, 20, 3])


@pytest.fixture
def engine(snapshots, store, publish):
    publish(1)
    found = Engine(snapshots, store)
    assert found.reload_if_new() == "loaded"
    return found


def scored(scorer, user, record, candidates=IDS, **options):
    return scorer.score([scorer.prepare(Request(user, record, candidates, **options))])[0]


@pytest.mark.parametrize("number", range(1, 10))
def test_answers_are_the_scorers(engine, scorers, records, number):
    user = f"person{number}"
    scorer, record = scorers(1), records[user]
    answer = engine.answer(Question(user, CANDIDATES))
    np.testing.assert_allclose(answer.probabilities, scored(scorer, user, record), atol=1e-6)
    assert answer.augmented == (number >= 6)
    assert answer.user_known is True
    assert answer.known.all()
    assert (answer.degraded, answer.recent_ignored, answer.explanation) == ((), 0, None)
    assert answer.snapshot == "00000001"
    plain = engine.answer(Question(user, CANDIDATES, augment=False))
    expected = scored(scorer, user, record, augment=False)
    np.testing.assert_allclose(plain.probabilities, expected, atol=1e-6)
    assert not plain.augmented
    differs = np.abs(plain.probabilities - answer.probabilities).max() > 1e-4
    assert differs == answer.augmented


def test_unknown_users_and_items_are_scored_and_flagged(engine, scorers):
    answer = engine.answer(Question("nobody", ["item1", "no such item"]))
    expected = scored(scorers(1), "nobody", UserRecord(), np.array([1, 0]))
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)
    assert answer.user_known is False
    assert answer.known.tolist() == [True, False]
    assert not answer.augmented


def test_recent_behaviours_count_as_if_they_were_in_the_record(engine, scorers, records):
    record = records["person6"]
    recent = [Recent("item9", 5.0, 99.0), Recent("item2", 2.0, 98.0), Recent("strange", 5.0, 97.0)]
    told_again = Recent(f"item{record.items[0]}", 1.0, float(record.times[0]))
    answer = engine.answer(Question("person6", CANDIDATES, [*recent, told_again]))
    columns = [np.array(column) for column in ([2, 9], [False, True], [2.0, 5.0], [98.0, 99.0])]
    longer, new = record.with_behaviours(*columns, keep=20)
    assert new == 2
    expected = scored(scorers(1), "person6", longer)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)
    assert answer.recent_ignored == 1
    before = engine.answer(Question("person6", CANDIDATES)).probabilities
    assert np.abs(before - expected).max() > 1e-4


def test_what_was_shown_in_vain_changes_nothing_in_a_model_of_clicks(engine, monkeypatch):
    shown, clicked = Recent("item9", 2.0, 99.0), Recent("item2", 5.0, 98.0)
    with_both = engine.answer(Question("person6", CANDIDATES, [shown, clicked]))
    monkeypatch.setattr(RequestSettings, "remembered", lambda self, liked: liked)
    answer = engine.answer(Question("person6", CANDIDATES, [shown, clicked]))
    expected = engine.answer(Question("person6", CANDIDATES, [clicked])).probabilities
    np.testing.assert_array_equal(answer.probabilities, expected)
    assert answer.recent_ignored == 0
    assert np.abs(with_both.probabilities - expected).max() > 1e-4


def test_an_emptied_store_is_no_store_of_unknown_users(engine, store):
    assert engine.answer(Question("nobody", CANDIDATES)).degraded == ()
    store.pairs.clear()
    for user in ("person6", "nobody"):
        answer = engine.answer(Question(user, CANDIDATES))
        assert (answer.user_known, answer.degraded) == (None, ("store",))


def test_a_mended_snapshot_is_taken_after_a_while(engine, publish, snapshots, monkeypatch):
    name = publish(2)
    path = snapshots.root / name / "model" / "model.json"
    text = path.read_text()
    path.unlink()
    assert engine.reload_if_new() == "refused"
    path.write_text(text)
    assert engine.reload_if_new() == "same"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert engine.reload_if_new() == "loaded"
    (snapshots.root / "CURRENT").write_text("00000077\n")
    assert engine.reload_if_new() == "refused"


def test_a_new_user_borrows_by_recent_behaviours(engine, scorers):
    answer = engine.answer(Question("nobody", CANDIDATES, [Recent("item4", 5.0, 1.0)]))
    record, _ = UserRecord().with_behaviours(
        np.array([4]), np.array([True]), np.array([5.0]), np.array([1.0]), keep=20
    )
    np.testing.assert_allclose(
        answer.probabilities, scored(scorers(1), "nobody", record), atol=1e-6
    )
    assert answer.augmented


def test_the_time_of_a_question_reaches_the_scorer(engine, scorers, monkeypatch):
    seen = []
    kind = type(engine.loaded.scorer)
    prepare = kind.prepare
    monkeypatch.setattr(kind, "prepare", lambda self, r: seen.append(r.time) or prepare(self, r))
    engine.answer(Question("person6", CANDIDATES, time=12.5))
    engine.answer(Question("person6", CANDIDATES))
    assert seen == [12.5, np.inf]


def test_explanations_tell_what_was_borrowed_and_what_it_changed(engine, scorers, records):
    answer = engine.answer(Question("person7", CANDIDATES, explain=True))
    scorer, record = scorers(1), records["person7"]
    prepared = scorer.prepare(Request("person7", record, IDS))
    told = json.loads(json.dumps(answer.to_json()))["explanation"]
    assert told["history_length"] == len(record) == 3
    donors = scorer.donors
    assert [near["user"] for near in told["neighbours"]] == [
        donors.tokens[near.place] for near in prepared.borrowed.neighbours
    ]
    assert len(told["neighbours"]) == 3
    assert [near["similarity"] for near in told["neighbours"]] == pytest.approx(
        [near.similarity for near in prepared.borrowed.neighbours], abs=1e-5
    )
    assert [added["item"] for added in told["added"]] == [
        f"item{item}" for item in prepared.items[:3]
    ]
    for added in told["added"]:
        lender = records[added["donor"]]
        row = lender.items.tolist().index(int(added["item"][4:]))
        assert added["liked"] == lender.liked[row]
        assert -1 <= added["similarity"] <= 1
    pairs = told["probabilities"]
    assert [pair["item"] for pair in pairs] == CANDIDATES
    for name, augment in (("with_augmentation", True), ("without_augmentation", False)):
        expected = scored(scorer, "person7", record, augment=augment)
        np.testing.assert_allclose([pair[name] for pair in pairs], expected, atol=1e-6)
    assert [p["probability"] for p in answer.to_json()["predictions"]] == [
        pair["with_augmentation"] for pair in pairs
    ]


def test_explanations_of_what_is_not_augmented_are_empty(engine):
    told = engine.answer(Question("person1", CANDIDATES, explain=True)).explanation
    assert (told["neighbours"], told["added"], told["history_length"]) == ([], [], 6)
    for pair in told["probabilities"]:
        assert pair["with_augmentation"] == pytest.approx(pair["without_augmentation"], abs=1e-6)


def test_without_the_store_the_request_is_all_that_is_known(engine, scorers, store, caplog):
    caplog.set_level(logging.INFO)
    question = Question("person6", CANDIDATES, [Recent("item4", 5.0, 1.0)])
    before = engine.answer(question).probabilities
    store.fails = True
    for _ in range(2):
        answer = engine.answer(question)
        assert (answer.degraded, answer.user_known) == (("store",), None)
        assert not answer.augmented
    record, _ = UserRecord().with_behaviours(
        np.array([4]), np.array([True]), np.array([5.0]), np.array([1.0]), keep=20
    )
    expected = scored(scorers(1), "person6", record, augment=False)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)
    store.fails = False
    while (again := engine.answer(question)).degraded:  # the store rests for some microseconds
        time.sleep(0.001)
    np.testing.assert_array_equal(again.probabilities, before)
    told = [record.message for record in caplog.records]
    assert told == [
        "store fails (the store in memory is told to fail), answers go on without it",
        "store works again",
    ]


@pytest.mark.parametrize(
    "data", [b"", b"RMU1", UserRecord(items=np.array([500], np.int32)).to_bytes()[:-3]]
)
def test_a_damaged_record_is_a_failing_store(engine, store, data):
    store.put_many({user_key("person6"): data})
    answer = engine.answer(Question("person6", CANDIDATES))
    assert (answer.degraded, answer.user_known) == (("store",), None)
    assert engine.answer(Question("person7", CANDIDATES)).degraded == ()


def test_a_flip_of_any_byte_of_a_record_is_a_failing_store(engine, store, records):
    whole = records["person6"].to_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 0xFF
        store.put_many({user_key("person6"): bytes(flipped)})
        answer = engine.answer(Question("person6", CANDIDATES, [Recent("item4", 5.0, 1.0)]))
        assert (answer.degraded, answer.user_known) == (("store",), None), place


@pytest.mark.parametrize("item", [21, 0, -1])
def test_a_record_with_items_of_another_model_is_a_failing_store(engine, store, records, item):
    longer, _ = records["person6"].with_behaviours(
        np.array([item]), np.array([True]), np.array([5.0]), np.array([99.0]), keep=20
    )
    store.put_many({user_key("person6"): longer.to_bytes()})
    assert engine.answer(Question("person6", CANDIDATES)).degraded == ("store",)


@pytest.mark.parametrize("state", [b'{"model": "another"}', b"no json", b"{}", b"[]"])
def test_a_store_of_another_model_is_not_read(engine, store, state):
    store.put_many({RUNNER_KEY: state})
    for _ in range(2):
        assert engine.answer(Question("person6", CANDIDATES)).degraded == ("store",)
    store.put_many({RUNNER_KEY: b'{"model": "tiny"}'})
    assert engine.answer(Question("person6", CANDIDATES)).degraded == ()


def test_a_new_snapshot_is_compared_with_the_store_anew(engine, publish):
    assert engine.answer(Question("person6", CANDIDATES)).degraded == ()
    publish(1, named="another")
    assert engine.reload_if_new() == "loaded"
    assert engine.answer(Question("person6", CANDIDATES)).degraded == ("store",)


def test_a_failing_search_leaves_augmentation_out(engine, scorers, records, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    kind = type(engine.loaded.scorer.donors)

    def fail(*args, **options):
        raise RuntimeError("the index is broken")

    with monkeypatch.context() as patch:
        patch.setattr(kind, "borrow", fail)
        for _ in range(2):
            answer = engine.answer(Question("person6", CANDIDATES, explain=True))
        assert (answer.degraded, answer.augmented) == (("augmentation",), False)
        assert answer.user_known is True
        expected = scored(scorers(1), "person6", records["person6"], augment=False)
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)
        assert engine.answer(Question("person1", CANDIDATES)).degraded == ()
        patch.setattr(type(engine.loaded.scorer), "prepare", fail)
        with pytest.raises(RuntimeError, match="broken"):
            engine.answer(Question("person6", CANDIDATES, augment=False))
    assert engine.answer(Question("person6", CANDIDATES)).augmented
    assert "augmentation fails, answers go on without it" in caplog.messages


def test_neighbours_that_are_found_at_once_are_searched_for_once(engine, monkeypatch):
    index, asked = engine.loaded.scorer.donors.index, []
    search = type(index).search
    monkeypatch.setattr(
        type(index), "search", lambda *given: asked.append(given[2]) or search(*given)
    )
    answer = engine.answer(Question("person6", CANDIDATES, explain=True))
    assert len(answer.explanation["neighbours"]) == 3
    assert asked == [3]


def test_nothing_is_answered_without_a_snapshot(snapshots, store):
    engine = Engine(snapshots, store)
    assert engine.reload_if_new() == "none"
    assert engine.loaded is None
    with pytest.raises(RuntimeError, match="no snapshot"):
        engine.answer(Question("person6", CANDIDATES))


def test_a_new_snapshot_is_swapped_in_and_questions_keep_theirs(engine, publish, scorers, records):
    posed = engine.pose(Question("person6", CANDIDATES))
    assert engine.reload_if_new() == "same"
    assert publish(2) == "00000002"
    assert engine.reload_if_new() == "loaded"
    later = engine.pose(Question("person6", CANDIDATES))
    scores = engine.score([later, posed, later])
    for each, found, seed in ((posed, scores[1], 1), (later, scores[0], 2), (later, scores[2], 2)):
        answer = engine.reply(each, found)
        assert answer.snapshot == f"0000000{seed}"
        expected = scored(scorers(seed), "person6", records["person6"])
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)
    assert np.abs(scores[0][0] - scores[1][0]).max() > 1e-3


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["model/network.safetensors", "donors/users.npy", "manifest.json"])
def test_a_damaged_snapshot_is_refused_once_and_the_old_one_goes_on(
    engine, publish, snapshots, store, caplog, file
):
    before = engine.answer(Question("person6", CANDIDATES)).probabilities
    flip(snapshots.root / publish(2) / file)
    assert engine.reload_if_new() == "refused"
    assert engine.reload_if_new() == "same"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    answer = engine.answer(Question("person6", CANDIDATES))
    assert answer.snapshot == "00000001"
    np.testing.assert_array_equal(answer.probabilities, before)
    publish(3)
    assert engine.reload_if_new() == "loaded"
    assert engine.answer(Question("person6", CANDIDATES)).snapshot == "00000003"


def test_a_model_that_gives_no_numbers_is_refused(engine, publish, broken, caplog):
    publish(1, model=broken)
    assert engine.reload_if_new() == "refused"
    assert "no number" in caplog.text
    assert engine.loaded.name == "00000001"


def test_what_the_system_refused_is_tried_again(engine, publish, snapshots, monkeypatch):
    publish(2)

    def fail():
        raise OSError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "current", fail)
        assert [engine.reload_if_new() for _ in range(2)] == ["refused", "refused"]
    assert engine.reload_if_new() == "loaded"


def test_a_damaged_name_of_the_current_version_changes_nothing(engine, snapshots):
    (snapshots.root / "CURRENT").write_text("../elsewhere\n")
    assert engine.reload_if_new() == "refused"
    assert engine.loaded.name == "00000001"


def test_an_older_version_can_be_chosen(engine, publish, snapshots):
    publish(2)
    engine.reload_if_new()
    snapshots.choose("00000001")
    assert engine.reload_if_new() == "loaded"
    assert engine.loaded.name == "00000001"


def test_probabilities_that_are_no_numbers_are_no_answer(engine):
    posed = engine.pose(Question("person6", CANDIDATES))
    with pytest.raises(ValueError, match="no number"):
        engine.reply(posed, [np.array([0.5, np.nan, 0.5, 0.5])])


def test_a_first_snapshot_that_is_refused_is_named(snapshots, store, publish, caplog):
    name = publish(1)
    (snapshots.root / name / "model" / "network.safetensors").unlink()
    assert Engine(snapshots, store).reload_if_new() == "refused"
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"snapshot {snapshots.root / name} is refused, none is in use: Damaged")
