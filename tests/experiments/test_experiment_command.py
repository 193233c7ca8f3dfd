"""A real experiment, tiny, by its command: killed, continued, reported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_mars.experiments.__main__ import main
from recbole_mars.experiments.records import load_scores
from recbole_mars.plugin.trainer import MARSTrainer


@pytest.fixture
def spec(content, empty_cwd):
    content["splits"] = {
        "temporal": {
            "split": {"RS": [8, 1, 1]},
            "order": "TO",
            "group_by": None,
            "mode": "labeled",
        }
    }
    content["seeds"] = [3]
    content["settings"]["mars_dropout"] = 0.3
    file = Path("tiny.yaml")
    file.write_text(yaml.safe_dump(content))
    return str(file)


def record(folder, method):
    return json.loads(Path(folder, "records", f"world.temporal.{method}.3.json").read_text())


def test_killed_and_continued_it_ends_as_if_it_had_not_been(spec, world, monkeypatch, capsys):
    command = ["run", spec, "--data_path", str(world)]
    assert main([*command, "--output", "whole"]) == 0
    train_epoch = MARSTrainer._train_epoch

    def kill(self, train_data, epoch_idx, *args, **options):
        if epoch_idx == 1 and self.config["augmentation"] == "mars":
            self._save_state(epoch_idx)
            raise KeyboardInterrupt
        return train_epoch(self, train_data, epoch_idx, *args, **options)

    monkeypatch.setattr(MARSTrainer, "_train_epoch", kill)
    assert main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(MARSTrainer, "_train_epoch", train_epoch)
    # Another terminal, other ways to show progress: the best weights would be called otherwise.
    monkeypatch.setattr("recbole_mars.plugin.scored_run._digest", lambda *_: "other")
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "[1/2] world temporal DIN seed 3: already recorded" in out
    assert "[2/2] world temporal MARS seed 3: test AUC" in out
    for method in ("DIN", "MARS"):
        first, second = record("whole", method), record("results/tiny", method)
        for part in ("test", "valid", "epochs", "best_epoch", "config", "data_fingerprint"):
            assert first[part] == second[part]
        assert second["resumed"] is (method == "MARS")
        assert set(second["seconds"]) == {
            *("preparation", "stage_one", "training", "valid", "test", "total")
        }
        assert second["seconds"]["stage_one"] > 0 or method == "DIN"
        assert second["peak_memory_mb"] > 0
        assert "user_auc" in second["test"]  # users have several test impressions
        scores = [
            load_scores(Path(folder, "scores", f"world.temporal.{method}.3.npz"))
            for folder in ("whole", "results/tiny")
        ]
        assert np.array_equal(scores[0].scores, scores[1].scores)
        assert scores[0].metrics() == first["test"]
    one, other = (
        load_scores(Path("whole/scores", f"world.temporal.{m}.3.npz")) for m in ("DIN", "MARS")
    )
    for column in ("users", "labels", "groups", "lengths"):  # paired, row by row
        assert np.array_equal(getattr(one, column), getattr(other, column))
    assert one.lengths.min() >= 1
    assert 0 < record("whole", "MARS")["statistics"]["text_share"] < 1  # some items have no text
    assert not list(Path().rglob("*.pth"))
    assert not list(Path().rglob("stage2-*.pt"))
    assert list(Path("results/tiny/artifacts/mars").glob("world-*/alignment.pt"))


def test_recbole_s_own_model_beside_ours(spec, content, world):
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"]}
    labelled = {"threshold": {"rating": 4}, "train_neg_sample_args": None, "load_col": columns}
    measured = {"metrics": ["AUC"], "valid_metric": "AUC"}
    content["methods"] = {
        "DIN": {"augmentation": "none"},
        "their DIN": {"model": "DIN", "augmentation": "mars", **labelled, **measured},
    }
    content["settings"]["mlp_hidden_size"] = [8]
    Path(spec).write_text(yaml.safe_dump(content))
    command = ["run", spec, "--data_path", str(world)]
    assert main(command) == 2  # a key of theirs only
    content["methods"]["their DIN"]["mlp_hidden_size"] = content["settings"].pop("mlp_hidden_size")
    Path(spec).write_text(yaml.safe_dump(content))
    assert main(command) == 0
    theirs = record("results/tiny", "their_DIN")
    assert theirs["method"] == "their DIN"
    assert 0 < theirs["test"]["auc"] < 1
    assert 0 < theirs["seconds"]["stage_one"] < theirs["seconds"]["total"]
    assert theirs["seconds"]["preparation"] > 0
    one, other = (
        load_scores(Path("results/tiny/scores", f"world.temporal.{m}.3.npz"))
        for m in ("DIN", "their_DIN")
    )
    for column in ("users", "labels", "groups", "lengths"):
        assert np.array_equal(getattr(one, column), getattr(other, column))


def test_the_report_reads_the_records(spec, world, capsys):
    assert main(["run", spec, "--data_path", str(world), "--threads", "1"]) == 0
    assert record("results/tiny", "DIN")["machine"]["threads"] == 1
    assert main(["report", "results/tiny"]) == 0
    assert "MARS" in Path("results/tiny/results.md").read_text()
    assert "report.html" in capsys.readouterr().out


def test_what_the_command_refuses(spec, world, capsys):
    data = ["--data_path", str(world)]
    assert main(["run", spec]) == 2
    assert "world temporal DIN: data set world: there is no" in capsys.readouterr().err
    assert main(["run", "none.yaml"]) == 2
    assert main(["run", spec, *data, "--threads", "0"]) == 2
    assert "--threads must be >= 1" in capsys.readouterr().err
    assert main(["run", spec, *data, "--only", "method=X"]) == 2
    assert main(["run", spec, *data, "--dry_run"]) == 0
    assert "2 of 2 to do" in capsys.readouterr().out
    assert not Path("results").exists()
    Path("results").touch()
    assert main(["run", spec, *data]) == 2
    assert "error: results/tiny: Not a directory; the results folder has" in capsys.readouterr().err


def test_a_method_in_no_group_is_told(spec, content, world, capsys):
    command = ["run", spec, "--data_path", str(world), "--dry_run"]
    assert main(command) == 0
    assert "in no group" not in capsys.readouterr().out
    content["groups"] = {"base": ["DIN"]}
    Path(spec).write_text(yaml.safe_dump(content))
    assert main(command) == 0
    assert "in no group, not run: MARS\n" in capsys.readouterr().out


def test_a_failed_run_is_the_exit_status(spec, world, monkeypatch, capsys):
    def fail(*args, **options):
        raise RuntimeError("no luck")

    monkeypatch.setattr(MARSTrainer, "_train_epoch", fail)
    assert main(["run", spec, "--data_path", str(world), "--only", "method=DIN"]) == 1
    assert "failed: world temporal DIN seed 3" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_mistake(spec, world):
    command = [sys.executable, "-m", "recbole_mars.experiments", "run", spec, "--dry_run"]
    with subprocess.Popen(
        [*command, "--data_path", str(world)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        told = process.stderr.read().decode()
    assert process.returncode == 1
    assert "error" not in told.lower()
