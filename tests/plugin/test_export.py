"""An exported model, its runner and its scorer say what the offline model says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import run_recbole
from recbole.utils import get_model, get_trainer, init_seed

from recbole_mars.export import main
from recbole_mars.plugin.dataset import ROW_FIELD
from recbole_mars.plugin.export import export_checkpoint, export_model
from recbole_mars.serving import (
    KnownWorld,
    Request,
    Scorer,
    Snapshots,
    TrainedModel,
    read_manifest,
)
from recbole_mars.serving.events import Event, LocalLog
from recbole_mars.serving.offline import OfflineRunner
from recbole_mars.serving.service import Engine, Question, Recent
from recbole_mars.serving.stores import LMDBStore
from recbole_mars.serving.users import user_key

CASES: dict[str, dict[str, Any]] = {
    "MARS": {},
    "MARS with labels": {"history_labels": True, "mars_mark_borrowed": True, "mars_mark_age": True},
    "MARS, liked items only": {"history": "positive"},
    "MARS, first behaviours too": {"min_history": 0},
    "MARS, top-k by time": {
        "mars_strategy": "top_k",
        "eval_args": {
            "split": {"RS": [8, 1, 1]},
            "order": "TO",
            "group_by": None,
            "mode": "labeled",
        },
    },
    "MARS, dynamic programming on 16-bit vectors": {
        "mars_strategy": "dynamic_programming",
        "mars_index_storage": "float16",
    },
    "agreement": {"mars_agreement": True, "history_labels": True, "opinion_field": "rating"},
    "agreement of labels": {"mars_agreement": True, "augmentation": "none"},
    "no features": {"augmentation": "none", "text_fields": None, "image_dir": None},
    "DMAE": {"model": "DMAE", "augmentation": "mars", "similarity_scale": "quantile"},
    "DMAE and stage 1": {
        "model": "DMAE",
        "augmentation": "mars",
        "mars_use_aligned": True,
        "feature_storage": "int8",
    },
    "SimTier": {"model": "SimTier", "augmentation": "mars", "mars_agreement": True},
    "DIMO": {"model": "DIMO", "augmentation": "mars", "mars_mark_age": True},
    "FRNet": {"model": "FRNet", "augmentation": "none", "mars_agreement": True},
    "FRNet without users": {"model": "FRNet", "augmentation": "none", "mars_use_user_id": False},
    "UniSRec": {"model": "UniSRec", "feature_storage": "int8"},
    "LRD": {"model": "LRD"},
    "BST": {"model": "BST", "augmentation": "mars"},
    "GRU4RecCTR": {"model": "GRU4RecCTR"},
    "clicks only": {"augmentation": "none", "threshold": None, "fixed_negatives": 2},
    "agreement on clicks": {
        "threshold": None,
        "fixed_negatives": 2,
        "mars_agreement": True,
        "mars_agreement_factors": 3,
        "mars_agreement_length": 7,
    },
    "clicks only, augmented": {"threshold": None, "fixed_negatives": 2},
    "AveragePooling": {"model": "AveragePooling"},
}


def trained(settings: dict[str, Any], dataset: str = "world") -> tuple[Config, Any, Any, Any]:
    """Config, model, training and test data of a short run."""
    config = Config(model=settings.pop("model", "MARS"), dataset=dataset, config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, train._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.fit(train, valid, show_progress=False)
    return config, model.eval(), train._dataset, test


def served(config: Config, model: Any, dataset: Any, folder: Path) -> tuple[Scorer, KnownWorld]:
    """The scorer of a snapshot that a runner has made of a model, and what training knew."""
    export_model(config, model, dataset, folder / "model")
    snapshots = Snapshots(folder / "snapshots")
    with LMDBStore(folder / "store") as store:
        OfflineRunner(folder / "model", store, snapshots, donors="trained").run()
    return Scorer.load(snapshots.current().folder), KnownWorld.load(folder / "model" / "world")


def scores(
    scorer: Scorer, world: KnownWorld, model: Any, dataset: Any, test: Any
) -> tuple[np.ndarray, np.ndarray, int]:
    """Online and offline probabilities of all test rows; how many had borrowed behaviours.

    Online each is asked for alone and among others, which is computed in another way.
    """
    log, kept = dataset.log, scorer.model.settings.requests.kept
    offline, online, augmented = [], [], 0
    others = np.arange(1, 11)
    for batch in test:
        offline.append(model.predict(batch[0]).detach().numpy())
        prepared = []
        for row in batch[0][ROW_FIELD].tolist():
            user = int(log.users[row])
            before = slice(log.offsets[user], row)
            drawn = 0 if log.drawn is None else int(log.drawn[before].sum())
            record = world.record(user, kept, row - log.offsets[user] - drawn)
            name, item, time = world.users[user - 1], log.items[row : row + 1], log.times[row]
            for candidates in (item, np.append(item, others)):
                prepared.append(scorer.prepare(Request(name, record, candidates, float(time))))
            borrowed = prepared[-1].borrowed
            augmented += borrowed is not None and len(borrowed.rows) > 0
        alone, among = scorer.score(prepared[::2]), scorer.score(prepared[1::2])
        np.testing.assert_allclose([each[0] for each in among], np.concatenate(alone), atol=1e-5)
        online += alone
    return np.concatenate(online), np.concatenate(offline), augmented


@pytest.mark.parametrize("case", CASES)
def test_the_online_score_is_the_offline_models(
    case: str, tiny: dict[str, Any], tmp_path: Path
) -> None:
    config, model, dataset, test = trained({**tiny, **CASES[case]})
    scorer, world = served(config, model, dataset, tmp_path)
    online, offline, augmented = scores(scorer, world, model, dataset, test)
    np.testing.assert_allclose(online, offline, atol=1e-5)
    assert scorer.model.settings.requests.clicks_only == bool(config["fixed_negatives"])
    if config["augmentation"] == "mars":
        assert augmented > 3


def test_the_scores_of_ml_100k_are_the_offline_models(empty_cwd: Path) -> None:
    settings = {
        "mars_use_image": False,
        "history_labels": True,
        "mars_agreement": True,
        "opinion_field": "rating",
        "MAX_ITEM_LIST_LENGTH": 50,
        "epochs": 1,
        "mars_align_epochs": 1,
        "mars_width": 32,
        "mars_id_width": 16,
        "state": "WARNING",
        "show_progress": False,
    }
    config, model, dataset, test = trained(settings, "ml-100k")
    scorer, world = served(config, model, dataset, empty_cwd)
    online, offline, augmented = scores(scorer, world, model, dataset, test)
    assert len(online) == 943
    assert augmented > 200
    np.testing.assert_allclose(online, offline, atol=1e-5)
    told = answers_to_the_told(config, world, dataset, test, empty_cwd)
    np.testing.assert_allclose(told, offline, atol=1e-5)


def raw_ratings(config: Config) -> dict[tuple[str, str, float], float]:
    """The log as its file has it: by user, item and time."""
    file = Path(config["data_path"], f"{config['dataset']}.inter")
    head, *rows = file.read_text().splitlines()
    names = [column.split(":")[0] for column in head.split("\t")]
    found = [dict(zip(names, row.split("\t"))) for row in rows]
    return {
        (row["user_id"], row["item_id"], float(row["timestamp"])): float(row["rating"])
        for row in found
    }


def answers_to_the_told(
    config: Config, world: KnownWorld, dataset: Any, test: Any, folder: Path
) -> np.ndarray:
    """Probabilities of all test rows by the service, which must be told of each row before them.

    To every second user the request tells it, of the others the queue.
    """
    log, ratings = dataset.log, raw_ratings(config)
    snapshots = Snapshots(folder / "snapshots")
    rows = np.concatenate([batch[0][ROW_FIELD].numpy() for batch in test])
    questions, events = [], []
    with LMDBStore(folder / "store") as store:
        runner = OfflineRunner(folder / "model", store, snapshots, donors="trained")
        model = runner.scorer.model
        kept = model.settings.requests.kept
        for place, row in enumerate(rows.tolist()):
            user = int(log.users[row])
            name = world.users[user - 1]
            record = world.record(user, kept, row - 1 - log.offsets[user])
            store.put_many({user_key(name): record.to_bytes()})
            item, time = model.items[log.items[row - 1] - 1], float(log.times[row - 1])
            event = Event(name, item, ratings[name, item, time], time)
            recent = [Recent(item, event.value, time)] if place % 2 else []
            if not recent:
                events.append(event)
            wanted = model.items[log.items[row] - 1]
            questions.append(Question(name, [wanted], recent, float(log.times[row])))
        with LocalLog(folder / "log") as queue:
            queue.append(events)
            assert runner.consume(queue) == len(events)
        engine = Engine(snapshots, store)
        assert engine.reload_if_new() == "loaded"
        answers = [engine.answer(question) for question in questions]
    assert not any(answer.degraded or answer.recent_ignored for answer in answers)
    return np.concatenate([answer.probabilities for answer in answers])


@pytest.mark.parametrize("scaled", [True, False])
def test_an_event_is_read_as_its_row_of_the_log_was(
    tiny: dict[str, Any], tmp_path: Path, scaled: bool
) -> None:
    """Ratings are opinions as they are told, whatever RecBole does to columns of numbers."""
    settings = {**tiny, "augmentation": "none", "mars_agreement": True, "history_labels": True}
    settings.update(opinion_field="rating", epochs=1, normalize_all=scaled)
    config, model, dataset, _ = trained(settings)
    export_model(config, model, dataset, tmp_path / "model")
    world = KnownWorld.load(tmp_path / "model" / "world")
    loaded = TrainedModel.load(tmp_path / "model")
    ratings = raw_ratings(config)
    told = []
    for place, user in enumerate(world.users):
        record = world.record(place + 1, 1000)
        for item, time in zip(record.items, record.times):
            told.append(ratings[user, loaded.items[item - 1], time])
        liked, opinions = loaded.settings.requests.read(np.array(told[-len(record) :]))
        np.testing.assert_array_equal(opinions, record.opinions)
        np.testing.assert_array_equal(liked, record.liked)
    assert len(set(told)) == 5
    assert loaded.plausible(told).all()
    assert not loaded.plausible([1e6, -50.0]).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "MARSAlign"}, "model must be one of MARS, DMAE"),
        ({"augmentation": "random"}, "augmentation random draws items at random"),
        (
            {"augmentation": "none", "mars_agreement": True, "opinion_field": "timestamp"},
            "name the same field in both",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(
    settings: dict[str, Any], message: str, tiny: dict[str, Any], tmp_path: Path
) -> None:
    config = Config(
        model=settings.pop("model", "MARS"), dataset="world", config_dict={**tiny, **settings}
    )
    dataset = create_dataset(config)
    dataset.build()
    with pytest.raises(ValueError, match=message):
        export_model(config, None, dataset, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_is_no_checkpoint(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path), str(tmp_path / "model")])
    assert end.value.code == 2
    assert "must be a checkpoint, is a folder; name a .pth file" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None, capsys) -> None:
    file = tmp_path / "junk.pth"
    if content is None:
        torch.save([1], file)
    else:
        file.write_bytes(content)
    with pytest.raises(SystemExit) as end:
        main([str(file), str(tmp_path / "model")])
    assert end.value.code == 2
    assert "junk.pth is no RecBole checkpoint" in capsys.readouterr().err


def test_a_checkpoint_is_exported_by_name(tiny: dict[str, Any], tmp_path: Path) -> None:
    found = run_recbole(model="MARS", dataset="world", config_dict={**tiny, "epochs": 1})
    assert found["best_valid_result"]
    (checkpoint,) = Path("saved").glob("MARS-*.pth")
    export_checkpoint(checkpoint, tmp_path / "model")
    notes = read_manifest(tmp_path / "model")
    assert notes["dataset"] == "world"
    assert not list((tmp_path / "model").rglob("*.p*kl"))
    with pytest.raises(FileExistsError, match="is there already"):
        export_checkpoint(checkpoint, tmp_path / "model")


@pytest.fixture
def elsewhere(
    tiny: dict[str, Any], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A checkpoint of a run that told all it did, seen from another folder than it was made in.

    Its data set is in tmp_path/own.
    """
    shutil.copytree(world / "world", tmp_path / "own" / "world")
    settings = {**tiny, "epochs": 1, "state": "INFO", "data_path": str(tmp_path / "own")}
    run_recbole(model="MARS", dataset="world", config_dict=settings)
    (checkpoint,) = Path("saved").absolute().glob("MARS-*.pth")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return checkpoint


def test_an_export_tells_where_it_wrote_and_what_it_makes_anew(
    elsewhere: Path, tmp_path: Path, capsys, caplog
) -> None:
    caplog.clear()
    main([str(elsewhere), "model"])
    (told,) = [record.getMessage() for record in caplog.records]
    (stage_one,) = Path("saved/mars").absolute().glob("world-*")
    assert told.startswith(f"stage 1 of this model is not in {stage_one}: it is trained anew")
    assert str(Path("saved/features").absolute()) in told
    assert capsys.readouterr().out == "written to model\n"
    caplog.clear()
    main([str(elsewhere), "again"])
    assert not caplog.records


def test_features_that_a_model_was_not_trained_with_are_refused(
    elsewhere: Path, tmp_path: Path, capsys
) -> None:
    items = tmp_path / "own" / "world" / "world.item"
    head, first, *rest = items.read_text().splitlines()
    place = [column.split(":")[0] for column in head.split("\t")].index("title")
    cells = first.split("\t")
    cells[place] = rest[0].split("\t")[place]
    items.write_text("\n".join([head, "\t".join(cells), *rest]) + "\n")
    with pytest.raises(SystemExit) as end:
        main([str(elsewhere), "model"])
    assert end.value.code == 2
    assert "with other item features; load it with" in capsys.readouterr().err
    assert not Path("model").exists()
