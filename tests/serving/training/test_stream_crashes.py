"""Each event once in effect, whatever is killed and whenever."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_world import Deployment, events, records_of, run_once, same

from recbole_mars.serving import Scorer, Snapshots
from recbole_mars.serving.events import LocalLog
from recbole_mars.serving.stores import LMDBStore
from recbole_mars.serving.training import StreamTrainer, state
from recbole_mars.serving.training.learner import Learner

# Where a kill hurts most: before and after each of these.
STEPS: list[tuple[Any, str]] = [
    (os, "replace"),
    (os, "rename"),
    (state, "save_tensors"),
    (state, "sync"),
    (LMDBStore, "put_many"),
    (LocalLog, "commit"),
    (Learner, "step"),
]


def forked(work: Callable[[], object], kill_after: float | None = None) -> int:
    """Exit status of a child that did the work; minus the signal if it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()  # to the captured output: no one else tells why it ended
        finally:
            sys.stderr.flush()
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)  # without effect on one that has ended
    _, status = os.waitpid(child, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def killed_at(moment: int, work: Callable[[], object]) -> Callable[[], object]:
    """The work, killed at the moment-th of the moments before and after STEPS."""
    left = moment

    def pass_moment() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            pass_moment()
            result = function(*args, **options)
            pass_moment()
            return result

        return call

    def patched() -> object:
        for owner, name in STEPS:
            setattr(owner, name, wrapped(getattr(owner, name)))
        return work()

    return patched


def assert_alike(killed: Deployment, whole: Deployment) -> None:
    assert same(killed.saved(), whole.saved())
    assert records_of(killed) == records_of(whole)
    assert same(killed.weights(), whole.weights())
    notes = [each.snapshots.current().notes["training"] for each in (killed, whole)]
    for note in notes:
        note.pop("run")
    assert notes[0] == notes[1]


@pytest.mark.parametrize("model", [{}, {"network": "DMAE", "agreement": True}], ids=str)
def test_kills_at_random_moments_change_no_bit(tmp_path: Path, model: dict[str, Any]) -> None:
    killed, whole = Deployment(tmp_path / "k", **model), Deployment(tmp_path / "w", **model)
    drawn, kills, told, takes = random.Random(0), 0, 0, 0.0
    finished = True
    while kills < 12:
        if finished:
            told += 1
            for deployment in (killed, whole):
                deployment.append(events(300, seed=told))
            began = time.monotonic()
            run_once(whole)
            # Half of it each time that a child was faster than that on a busy machine.
            takes = min(takes / 2 or float("inf"), time.monotonic() - began)
        status = forked(lambda: run_once(killed), kill_after=drawn.uniform(0.1, 0.8) * takes)
        assert status in (0, -signal.SIGKILL)
        finished = status == 0
        kills += not finished
    assert forked(lambda: run_once(killed)) == 0
    assert_alike(killed, whole)


def test_a_kill_before_or_after_any_write_changes_no_bit(tmp_path: Path) -> None:
    killed, whole = Deployment(tmp_path / "k"), Deployment(tmp_path / "w")
    survived, moment = 0, 0
    # Later children find less to do; one that survives has met all moments of its stage.
    for stage in range(3):
        for deployment in (killed, whole):
            deployment.append(events(28, seed=stage + 1))
        run_once(whole)
        while survived == stage:
            moment += 1
            status = forked(killed_at(moment, lambda: run_once(killed)))
            assert status in (0, -signal.SIGKILL)
            survived += status == 0
        moment = 0
        for deployment in (killed, whole):  # new donors, which the next publication brings
            deployment.run_offline(with_events=True)
        assert_alike(killed, whole)
    # The runner's donors are in use since the second publication.
    bases = [next((each.state / "bases").iterdir()) for each in (killed, whole)]
    donors = [Scorer.load(base).donors for base in bases]
    assert (donors[0].items == donors[1].items).all()
    assert donors[0].seen.sum() > Scorer.load(whole.snapshots.root / "00000001").donors.seen.sum()


def test_a_kill_amid_saving_leaves_nothing_in_the_way(deployment: Deployment) -> None:
    """The library that writes tensors has a temporary file of any name beside the one it writes."""
    deployment.append(events(60))

    def cut_short(tensors: Any, path: Path) -> None:
        for part in (path, path.with_name(".tmpA1b2C3")):
            part.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        state.save_tensors = cut_short  # type: ignore[attr-defined]
        run_once(deployment)

    assert forked(work) == -signal.SIGKILL
    assert list(deployment.state.glob(".step-*/.tmp*"))
    assert forked(lambda: run_once(deployment)) == 0
    names = sorted(path.name for path in deployment.state.iterdir())
    assert [name for name in names if name.startswith((".step", ".tmp"))] == []


def test_a_run_stopped_at_any_event_goes_on_from_there(deployment: Deployment) -> None:
    deployment.append(events(200))
    whole = Deployment(deployment.root / "whole")
    whole.append(events(200))
    run_once(whole)
    drawn = random.Random(1)
    for _ in range(12):
        left = drawn.randrange(1, 40)

        def stopped() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        with deployment.trainer() as trainer:
            trainer.run(stopped=stopped)
    run_once(deployment)
    assert_alike(deployment, whole)


@pytest.mark.parametrize("cut", [1, 3, 8, 50, 10_000])
def test_batches_do_not_depend_on_how_events_are_read(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    whole = Deployment(deployment.root / "whole")
    for each in (deployment, whole):
        each.append(events(150))
    run_once(whole)
    monkeypatch.setattr("recbole_mars.serving.training.trainer._EVENTS", cut)
    run_once(deployment)
    assert_alike(deployment, whole)


def test_duplicates_and_replays_change_nothing(deployment: Deployment) -> None:
    whole = Deployment(deployment.root / "whole")
    told = events(120)
    whole.append(told)
    run_once(whole)
    drawn = random.Random(2)
    told_again = []
    for place, event in enumerate(told):
        told_again += [event, *drawn.choices(told[: place + 1], k=drawn.randrange(3))]
    deployment.append(told_again)
    deployment.append(told)
    trainer = run_once(deployment)
    assert same(deployment.saved(), whole.saved())
    assert records_of(deployment) == records_of(whole)
    # All that came behind the last batch waits, and is not counted yet.
    assert trainer.progress.skipped["told before"] > 50
    deployment.append(told)
    assert run_once(deployment).progress.samples == trainer.progress.samples
    assert same(deployment.saved(), whole.saved())


def test_a_full_disk_while_saving_leaves_the_last_state(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Deployment(deployment.root / "whole")
    for each in (deployment, whole):
        each.append(events(60))
    run_once(deployment)
    for each in (deployment, whole):
        each.append(events(60, seed=2))
    run_once(whole)
    before, stored = deployment.saved(), records_of(deployment)
    for owner, name in ((state, "sync"), (state, "save_tensors"), (LMDBStore, "put_many")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, _no_space)
            with pytest.raises(OSError, match="No space left"):
                run_once(deployment)
        assert same(deployment.saved(), before)
        assert records_of(deployment) == stored
        assert deployment.snapshots.names() == ["00000001", "00000002"]
    run_once(deployment)
    assert torch.equal(
        deployment.weights()["score.weight"], deployment.saved()["network.score.weight"]
    )
    assert same(deployment.saved(), whole.saved())


def _no_space(*args: Any, **options: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_publication_that_was_not_noted_counts_as_one(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Deployment(deployment.root / "whole")
    for each in (deployment, whole):
        each.append(events(40))
        run_once(each)
        each.append(events(40, seed=2))
        each.run_offline(with_events=True)
    run_once(whole)
    with monkeypatch.context() as patch:
        patch.setattr(StreamTrainer, "_change_base", _no_space)
        with pytest.raises(OSError, match="No space left"):
            run_once(deployment)
    for each in (deployment, whole):  # what comes is trained on with the runner's donors
        each.append(events(40, seed=3))
        run_once(each)
    assert_alike(deployment, whole)
    assert deployment.snapshots.names() == whole.snapshots.names()


def test_a_snapshot_that_never_became_current_counts_as_none(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.append(events(40))
    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "_name_current", _no_space)
        with pytest.raises(OSError, match="No space left"):
            run_once(deployment)
    assert deployment.snapshots.names() == ["00000001", "00000002"]
    assert deployment.snapshots.current_name() == "00000001"
    run_once(deployment)
    assert deployment.snapshots.current_name() == "00000003"
