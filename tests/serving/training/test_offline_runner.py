"""The offline runner: what it writes, that it goes on after a kill, that nothing counts twice."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_world import ITEMS, USERS, Deployment, events, run_once, same, write_model

from recbole_mars.alignment import export_embeddings
from recbole_mars.serving import (
    Donors,
    KnownWorld,
    Scorer,
    Snapshots,
    TokenTable,
    TrainedModel,
    UserRecord,
    whole_folder,
)
from recbole_mars.serving.commands import offline
from recbole_mars.serving.embedding import LocalEmbedder, RayEmbedder
from recbole_mars.serving.events import Event, EventsLost, LocalLog, open_queue
from recbole_mars.serving.offline import OfflineRunner
from recbole_mars.serving.stores import LMDBStore, StoreError, open_store
from recbole_mars.serving.users import embedding_key, user_key


def contents(folder: Path) -> dict[bytes, bytes]:
    """All users' records of a store and all items' embeddings."""
    with LMDBStore(folder) as store:
        return {key: value for key, value in store.scan(b"") if not key.startswith(b"m/")}


def record(deployment: Deployment, user: str) -> UserRecord:
    return UserRecord.from_bytes(contents(deployment.root / "store")[user_key(user)])


def test_users_and_items_are_embedded_as_stage_one_exports_them(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    with LMDBStore(tmp_path / "other") as store:
        runner = OfflineRunner(deployment.model, store, deployment.snapshots)
    model, world = runner.scorer.model, runner.world
    everyone = np.arange(1, len(USERS) + 1)
    exported = export_embeddings(
        model.alignment,
        world.log(model.n_items),
        np.zeros(0, dtype=int),
        everyone,
        max_length=6,
        progress=False,
    )
    for place, user in enumerate(USERS):
        found = record(deployment, user)
        np.testing.assert_allclose(found.embedding, exported.donor_embeddings[place], atol=1e-6)
        assert found.user == place + 1
    pairs = contents(tmp_path / "store")
    for place, item in enumerate(ITEMS, 1):
        key = embedding_key(item)
        assert (key in pairs) == exported.item_seen[place]
        if key in pairs:
            found = np.frombuffer(pairs[key], "<f4")
            np.testing.assert_allclose(found, exported.item_embeddings[place], atol=1e-6)


def test_the_snapshot_has_all_users_and_the_active_ones_as_donors(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    folder = deployment.snapshots.current().folder
    tokens = TokenTable.load(folder / "users" / "tokens")
    embeddings = np.load(folder / "users" / "embeddings.npy")
    assert sorted(tokens) == sorted(USERS)
    for place, user in enumerate(tokens):
        assert (embeddings[place] == record(deployment, user).embedding).all()
    donors = Donors.load(folder / "donors")
    assert list(donors.tokens) == USERS[12:]
    assert (np.diff(donors.bounds) == 6).all()  # the latest six of eight behaviours
    pairs = contents(tmp_path / "store")
    seen = [item for item in ITEMS if embedding_key(item) in pairs]
    assert list(TokenTable.load(folder / "items" / "tokens")) == seen
    embeddings = np.load(folder / "items" / "embeddings.npy")
    assert embeddings.tobytes() == b"".join(pairs[embedding_key(item)] for item in seen)
    deployment.run_offline(with_events=True)
    later = deployment.snapshots.current().folder
    assert later != folder
    assert np.load(later / "items" / "embeddings.npy").tobytes() == embeddings.tobytes()


def test_events_reach_histories_once(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    before = contents(tmp_path / "store")
    told = [
        Event("u1", "i3", 5.0, 100.0),
        Event("u1", "i4", 2.0, 101.0),
        Event("new", "i1", 4.0, 50.0),
        Event("u1", "i3", 5.0, 100.0),  # told twice by its producer
        Event("u2", "no item of ours", 5.0, 1.0),
    ]
    deployment.append(told)
    deployment.run_offline(with_events=True)
    first = record(deployment, "u1")
    assert first.items[-2:].tolist() == [3, 4]
    assert first.liked[-2:].tolist() == [True, False]
    assert first.opinions[-2:].tolist() == [5.0, 2.0]
    assert first.trained.tolist() == [True, True, False, False]
    assert (first.seen, first.user) == (4, 1)
    new = record(deployment, "new")
    assert (new.seen, new.user, new.group, len(new.embedding)) == (1, 0, -1, 4)
    after = contents(tmp_path / "store")
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {user_key("u1"), user_key("new")}
    deployment.append(told)
    deployment.run_offline(with_events=True)
    assert contents(tmp_path / "store") == after


def test_what_was_shown_in_vain_reaches_no_history_of_a_model_of_clicks(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, clicks_only=True)
    deployment.append([Event("u1", "i3", 5.0, 100.0), Event("u1", "i4", 2.0, 101.0)])
    deployment.append([Event("u2", "i4", 2.0, 101.0)])
    before = record(deployment, "u2").to_bytes()
    deployment.run_offline(with_events=True)
    found = record(deployment, "u1")
    assert (found.items[-1], found.seen) == (3, 3)
    assert record(deployment, "u2").to_bytes() == before


def test_the_embedding_after_events_is_that_of_the_whole_history(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.append(events(200))
    deployment.run_offline(with_events=True)
    scorer = Scorer.load(deployment.snapshots.current().folder)
    for user in (*USERS, "new0"):
        found = record(deployment, user)
        anew = found.chosen(np.arange(len(found)))
        np.testing.assert_allclose(found.embedding, scorer.embed([anew])[0], atol=1e-6)


def test_new_users_become_donors_and_unchanged_ones_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment(tmp_path)
    active = [Event("busy", ITEMS[place % 12], 4.0, float(place)) for place in range(10)]
    deployment.append([*active, Event(USERS[-1], "i1", 1.0, 1e6)])
    embedded: list[int] = []
    whole = Scorer.embed_behaviours

    def counted(self, records):
        embedded.extend(len(each) for each in records)
        return whole(self, records)

    monkeypatch.setattr(Scorer, "embed_behaviours", counted)
    deployment.run_offline(with_events=True)
    donors = Donors.load(deployment.snapshots.current().folder / "donors")
    assert list(donors.tokens) == [*USERS[12:], "busy"]
    # Two users' embeddings and their donors' rows; the other seven donors are as they were.
    assert len(embedded) == 4
    with LMDBStore(tmp_path / "afresh") as store, deployment.queue() as queue:
        snapshots = Snapshots(tmp_path / "afresh-snapshots")
        OfflineRunner(deployment.model, store, snapshots).run(queue)
    afresh = Donors.load(snapshots.current().folder / "donors")
    for name in ("bounds", "items", "liked", "times", "seen"):
        assert (getattr(donors, name) == getattr(afresh, name)).all(), name
    np.testing.assert_allclose(donors.users, afresh.users, atol=1e-6)


def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    whole, killed = Deployment(tmp_path / "whole"), Deployment(tmp_path / "killed", publish=False)
    told = events(9000)
    for deployment in (whole, killed):
        deployment.append(told)
    whole.run_offline(with_events=True)
    for kill in range(25):
        child = os.fork()
        if not child:
            killed.run_offline(with_events=True)
            os._exit(0)
        time.sleep(0.004 * kill)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    killed.run_offline(with_events=True)
    assert contents(tmp_path / "killed" / "store") == contents(tmp_path / "whole" / "store")
    names = ("bounds.npy", "items.npy", "embeddings.npy")
    for name in names:
        one, other = (d.snapshots.current().folder / "donors" / name for d in (whole, killed))
        assert one.read_bytes() == other.read_bytes()


def test_a_cluster_gives_the_same_bytes(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    embedder = RayEmbedder(model, "local", workers=2)
    found = []
    for number, own in enumerate((embedder, None)):
        with LMDBStore(tmp_path / f"store{number}") as store:
            snapshots = Snapshots(tmp_path / f"snapshots{number}")
            OfflineRunner(model, store, snapshots, embedder=own).run()
        found.append(contents(tmp_path / f"store{number}"))
    assert found[0] == found[1]
    batches = [
        list(OfflineRunner(model, LMDBStore(tmp_path / "s"), snapshots).world.records(9))
    ] * 9
    local = LocalEmbedder(Scorer.load(snapshots.current().folder))
    one, other = ([[r.to_bytes() for _, r in b] for b in e.map(batches)] for e in (embedder, local))
    assert one == other
    # A worker that dies fails a round; the next one has another.
    embedder._ray.kill(embedder._workers[0])
    with pytest.raises(ConnectionError, match="a worker on the Ray cluster is lost"):
        list(embedder.map(batches))
    assert [[r.to_bytes() for _, r in b] for b in embedder.map(batches)] == other
    # What a worker itself raises is no lost worker.
    wrong, _ = UserRecord().with_behaviours([99], [True], [5.0], [1.0], keep=9)
    with pytest.raises(IndexError):
        list(embedder.map([[("u", wrong)]]))
    embedder.close()
    with pytest.raises(ValueError, match="workers must be >= 1, got 0"):
        RayEmbedder(model, "local", workers=0)


def test_redis_comes_to_the_same(tmp_path: Path, redis_server) -> None:
    deployment, told = Deployment(tmp_path), events(300)
    deployment.append(told)
    deployment.run_offline(with_events=True)
    address = f"{redis_server.address}?stream=clicks"
    with open_store(redis_server.address) as store, open_queue(address, group="offline") as queue:
        snapshots = Snapshots(tmp_path / "of-redis")
        runner = OfflineRunner(deployment.model, store, snapshots)
        for begin in range(0, 300, 100):
            queue.append(told[begin : begin + 100])
            runner.run(queue)
        pairs = contents(tmp_path / "store")
        for user in {event.user for event in told}:
            one = UserRecord.from_bytes(store.get(user_key(user)))
            other = UserRecord.from_bytes(pairs[user_key(user)])
            assert (one.items == other.items).all()
            np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-6)
    one, other = (
        Donors.load(each.current().folder / "donors") for each in (snapshots, deployment.snapshots)
    )
    assert list(one.tokens) == list(other.tokens)
    assert (one.items == other.items).all()


def test_a_value_far_from_all_ratings_is_left_out(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, agreement=True)
    before = contents(tmp_path / "store")
    deployment.append([Event("u1", "i3", 1e9, 100.0), Event("u2", "i3", 5.0, 100.0)])
    deployment.run_offline(with_events=True)
    after = contents(tmp_path / "store")
    assert after[user_key("u1")] == before[user_key("u1")]
    assert after[user_key("u2")] != before[user_key("u2")]


def test_the_models_folder_may_be_written_to(tmp_path: Path) -> None:
    """Its files are copied, not linked: a running service has those of the snapshot mapped."""
    deployment = Deployment(tmp_path)
    deployment.run_offline()
    for path in (deployment.model / "items").iterdir():
        path.write_bytes(b"other")
    for name in deployment.snapshots.names():
        deployment.snapshots.at(name)
    inodes = [
        (deployment.snapshots.root / name / "model" / "model.json").stat().st_ino
        for name in deployment.snapshots.names()
    ]
    assert len(set(inodes)) == 1  # versions share what they have in common


def test_a_model_exchanged_under_a_runner_is_refused(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "d")
    other = write_model(tmp_path / "other", seed=5)
    with LMDBStore(deployment.root / "store") as store:
        runner = OfflineRunner(deployment.model, store, deployment.snapshots)
        shutil.rmtree(deployment.model)
        other.rename(deployment.model)
        with pytest.raises(ValueError, match="has changed since the runner began"):
            runner.run()
    assert deployment.snapshots.names() == ["00000001"]


@pytest.mark.parametrize("pointed", [True, False])
def test_a_damaged_current_snapshot_is_stepped_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pointed: bool
) -> None:
    """What was trained on the queue lives on in the newest version that is whole."""
    deployment = Deployment(tmp_path)
    deployment.append(events(40))
    run_once(deployment)
    trained = deployment.weights()
    deployment.run_offline()
    if pointed:
        (deployment.snapshots.root / "00000003" / "model" / "model.json").unlink()
    else:
        (deployment.snapshots.root / "CURRENT").write_text("00000009\n")
    deployment.run_offline()
    newest = max(deployment.snapshots.names())
    assert deployment.snapshots.current_name() == newest == "00000004"
    assert "the next is made from 0000000" in caplog.text
    assert same(deployment.weights(), trained)


def test_a_round_that_fails_is_done_again(tmp_path: Path, monkeypatch) -> None:
    """What could not be written does not count as done."""
    deployment = Deployment(tmp_path)
    deployment.append(events(30))
    with LMDBStore(tmp_path / "store") as store, deployment.queue() as queue:
        runner = OfflineRunner(deployment.model, store, deployment.snapshots)
        put_many = store.put_many

        def away(pairs):
            raise StoreError("the store is away")

        monkeypatch.setattr(store, "put_many", away)
        with pytest.raises(StoreError):
            runner.run(queue)
        monkeypatch.setattr(store, "put_many", put_many)
        runner.run(queue)
    other = Deployment(tmp_path / "other")
    other.append(events(30))
    other.run_offline(with_events=True)
    assert contents(tmp_path / "store") == contents(tmp_path / "other" / "store")


def test_records_are_written_before_what_they_account_for(tmp_path: Path, monkeypatch) -> None:
    """The nodes of a cluster do not fail together: whichever write fails, nothing is lost."""
    whole = Deployment(tmp_path / "whole")
    whole.append(events(30))
    whole.run_offline(with_events=True)
    for failing in range(2):
        deployment = Deployment(tmp_path / str(failing))
        deployment.append(events(30))
        with LMDBStore(deployment.root / "store") as store, deployment.queue() as queue:
            runner = OfflineRunner(deployment.model, store, deployment.snapshots)
            put_many, calls = store.put_many, []

            def put(pairs, put_many=put_many, calls=calls, failing=failing):
                calls.append(None)
                if len(calls) == failing + 1:
                    raise StoreError("a node is away")
                put_many(pairs)

            monkeypatch.setattr(store, "put_many", put)
            with pytest.raises(StoreError):
                runner.consume(queue)
            OfflineRunner(deployment.model, store, deployment.snapshots).run(queue)
        assert contents(deployment.root / "store") == contents(whole.root / "store")


def options(deployment: Deployment, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    offline.add_arguments(parser)
    places = {
        "model": deployment.model,
        "snapshots": deployment.snapshots.root,
        "store": deployment.root / "store",
    }
    named = [text for name, place in places.items() for text in (f"--{name}", str(place))]
    return parser.parse_args([*named, "--quiet", *more])


def test_one_runner_publishes(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    with (
        offline._alone(deployment.snapshots),
        pytest.raises(ValueError, match="another offline runner publishes to"),
    ):
        offline.run(options(deployment))
    deployment.append(events(3))
    log = ("--events", str(tmp_path / "log"))
    for _ in range(2):  # the second has nothing to tell
        offline.run(options(deployment, *log))
        assert deployment.snapshots.current_name() == "00000002"
    offline.run(options(deployment, *log, "--donors", "trained"))
    assert deployment.snapshots.current_name() == "00000003"


def test_a_queue_that_began_anew_is_taken_up_if_told_so(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.append(events(30))
    deployment.run_offline(with_events=True)
    shutil.rmtree(tmp_path / "log")
    deployment.append(events(20, seed=2))
    before = contents(tmp_path / "store")
    with pytest.raises(EventsLost):
        offline.run(options(deployment, "--events", str(tmp_path / "log")))
    assert contents(tmp_path / "store") == before
    offline.run(options(deployment, "--events", str(tmp_path / "log"), "--accept-loss"))
    other = Deployment(tmp_path / "other")
    other.append(events(30))
    other.append(events(20, seed=2))
    other.run_offline(with_events=True)
    assert contents(tmp_path / "store") == contents(tmp_path / "other" / "store")
    offline.run(options(deployment, "--events", str(tmp_path / "log")))  # as before


def test_a_queue_of_another_kind_is_taken_up_if_told_so(tmp_path: Path, redis_server) -> None:
    deployment, other = Deployment(tmp_path), Deployment(tmp_path / "other")
    deployment.append(events(30))
    deployment.run_offline(with_events=True)
    address = f"{redis_server.address}?stream=later"
    with open_queue(address, group="test") as queue:
        queue.append(events(20, seed=2))
    with pytest.raises(EventsLost, match="digits, got"):
        offline.run(options(deployment, "--events", address))
    offline.run(options(deployment, "--events", address, "--accept-loss"))
    for told in (events(30), events(20, seed=2)):
        other.append(told)
    other.run_offline(with_events=True)
    assert contents(tmp_path / "store") == contents(tmp_path / "other" / "store")


def test_a_round_ends_though_more_is_coming(tmp_path: Path, monkeypatch) -> None:
    deployment = Deployment(tmp_path)
    read, asked = LocalLog.read, []

    def busy(queue: LocalLog, *args) -> list[tuple[str, Event]]:
        asked.append(args)
        queue.append(events(3, seed=len(asked)))
        return read(queue, *args)

    monkeypatch.setattr(LocalLog, "read", busy)
    deployment.run_offline(with_events=True)
    assert len(asked) == 1
    assert deployment.snapshots.current_name() == "00000002"


def test_a_round_takes_from_a_long_queue_until_the_next_is_due(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("recbole_mars.serving.offline._EVENTS", 10)
    deployment = Deployment(tmp_path)
    deployment.append(events(100))
    answers = iter([True, True, False])
    with LMDBStore(tmp_path / "store") as store, deployment.queue() as queue:
        runner = OfflineRunner(deployment.model, store, deployment.snapshots)
        first = runner.run(queue, go_on=lambda: next(answers))
        assert first.notes["offset"] == queue.read(None, 20)[-1][0]
        assert runner.run(queue).notes["offset"] == queue.read(None, 100)[-1][0]


def test_a_store_that_was_emptied_is_filled_anew(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.append(events(30))
    deployment.run_offline(with_events=True)
    whole = contents(tmp_path / "store")
    with LMDBStore(tmp_path / "store") as store, deployment.queue() as queue:
        runner = OfflineRunner(deployment.model, store, deployment.snapshots)
        store.delete_many([key for key, _ in store.scan(b"")])
        assert runner.run(queue).notes["donors"] > 0
    assert contents(tmp_path / "store") == whole


def test_rounds_go_on_when_one_fails(tmp_path: Path, monkeypatch, caplog) -> None:
    deployment = Deployment(tmp_path)
    rounds = []

    def run(self, queue, keep, **more):
        rounds.append(keep)
        if len(rounds) == 1:
            raise StoreError("the store is away")
        raise KeyboardInterrupt

    monkeypatch.setattr(OfflineRunner, "run", run)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(KeyboardInterrupt):
            offline.run(options(deployment, "--every-minutes", "0.001"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert len(rounds) == 2
    assert "this round failed, the next one goes on from there: the store is away" in caplog.text
    rounds.clear()
    with pytest.raises(StoreError):
        offline.run(options(deployment))


@pytest.mark.parametrize("change", [{"like_from": 3.0}, {"max_length": 5}])
def test_a_store_filled_by_other_rules_is_refused(tmp_path: Path, change: dict) -> None:
    """The same users, items and embeddings, but events were read otherwise."""
    deployment = Deployment(tmp_path, augmented=False)
    folder = tmp_path / "changed"
    model = TrainedModel.load(deployment.model)
    requests = replace(model.settings.requests, **change)
    changed = replace(model, settings=replace(model.settings, requests=requests))
    with whole_folder(folder, {}) as aside:
        changed.save(aside)
        KnownWorld.load(deployment.model / "world").save(aside / "world")
    with LMDBStore(tmp_path / "store") as store, pytest.raises(ValueError, match="another model"):
        OfflineRunner(folder, store, deployment.snapshots)


def test_a_store_of_another_model_is_refused(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    other = write_model(tmp_path / "other", augmented=False)
    with LMDBStore(tmp_path / "store") as store, pytest.raises(ValueError, match="another model"):
        OfflineRunner(other, store, deployment.snapshots)


def test_snapshots_of_another_model_are_left_alone(tmp_path: Path) -> None:
    """Its service would find its store another one's, and its streamed weights would be gone."""
    deployment = Deployment(tmp_path)
    other = write_model(tmp_path / "other", augmented=False)
    with (
        LMDBStore(tmp_path / "new") as store,
        pytest.raises(ValueError, match=r"has the snapshots of another model than .*other"),
    ):
        OfflineRunner(other, store, deployment.snapshots)
    assert deployment.snapshots.names() == ["00000001"]


def test_folders_that_are_swapped_are_left_as_they_were(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.append(events(3))
    places = ("model", "snapshots", "store", "log")
    before = sorted(tmp_path.rglob("*"))
    for wrong in places:
        for name in places[1:]:
            if name != wrong:
                place = {"log": "events"}.get(name, name)
                with pytest.raises((ValueError, OSError), match=f"{wrong}"):
                    offline.run(options(deployment, f"--{place}", str(tmp_path / wrong)))
    made = {path.name for path in tmp_path.rglob("*")} - {path.name for path in before}
    assert made <= {".runner.lock"}


def test_a_full_disk_while_publishing_leaves_the_old_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment(tmp_path)

    def full(self: Donors, folder: Path) -> None:
        folder.mkdir()
        (folder / "items.npy").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Donors, "save", full)
        with pytest.raises(OSError, match="No space left"):
            deployment.run_offline()
    assert deployment.snapshots.names() == ["00000001"]
    deployment.snapshots.current()
    deployment.run_offline()
    assert deployment.snapshots.current_name() == "00000002"


def test_donors_is_one_of_two_words(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    with LMDBStore(tmp_path / "store") as store, pytest.raises(ValueError, match="got 'some'"):
        OfflineRunner(model, store, Snapshots(tmp_path / "snapshots"), donors="some")
