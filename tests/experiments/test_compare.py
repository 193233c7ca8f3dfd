"""The comparison as a user runs it: recorded once, told truly, written whole."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_mars import demo
from recbole_mars.data.synthetic import SyntheticSettings, generate, write_atomic
from recbole_mars.evaluation import auc
from recbole_mars.experiments import compare, summarise_seeds


@pytest.fixture
def settings(tmp_path_factory, empty_cwd):
    folder = tmp_path_factory.mktemp("data")
    data = generate(SyntheticSettings(n_users=40, n_items=60, high_length=(12, 20), seed=3))
    write_atomic(data, folder, "world")
    return {
        "data_path": str(folder),
        "text_fields": ["title"],
        "image_dir": str(folder / "world" / "images"),
        "MAX_ITEM_LIST_LENGTH": 10,
        "epochs": 1,
        "embedding_size": 4,
        "mars_align_epochs": 1,
        "mars_width": 8,
        "mars_id_width": 8,
        "show_progress": False,
        "state": "ERROR",
    }


def run(settings, seeds=(1, 2)):
    lines = []
    records = compare(
        "world", settings, "out", seeds=seeds, command="repeat me", version="0", tell=lines.append
    )
    return records, "\n".join(lines)


def test_a_comparison_is_recorded_once_and_written_whole(settings):
    records, told = run(settings)
    assert [(r.name, r.content["seed"]) for r in records] == [
        ("DIN", 1),
        ("MARS", 1),
        ("DIN", 2),
        ("MARS", 2),
    ]
    assert not any("already recorded" in line for line in told.splitlines())
    for name in ("report.html", "overview.png", "metrics.json", "config.yaml"):
        assert Path("out", name).stat().st_size > 0
    assert not list(Path("out").rglob("*tmp*"))
    metrics = json.loads(Path("out/metrics.json").read_text())
    for record, written in zip(records, metrics["runs"]):
        assert written["test"]["auc"] == auc(record.test.labels, record.test.scores)
    config = yaml.safe_load(Path("out/config.yaml").read_text())
    assert config["mars_width"] == 8
    assert config["mars_beta"] == 0.1  # a default
    assert "repeat me" in Path("out/report.html").read_text()

    again, told = run(settings)
    assert told.count("already recorded") == 4
    for old, new in zip(records, again):
        assert old.content == new.content
        assert np.array_equal(old.test.scores, new.test.scores)


def test_other_settings_are_another_run(settings):
    run(settings, seeds=(1,))
    _, told = run({**settings, "learning_rate": 0.1}, seeds=(1,))
    assert "already recorded" not in told


def test_other_data_is_another_run(settings):
    run(settings, seeds=(1,))
    file = Path(settings["data_path"]) / "world" / "world.inter"
    head, *lines = file.read_text().splitlines()
    file.write_text("\n".join([head, *lines[1:]]) + "\n")
    _, told = run(settings, seeds=(1,))
    assert "already recorded" not in told


def test_the_seed_table_by_hand(settings):
    records, _ = run(settings)
    base = [r.metrics()["auc"] for r in records if r.name == "DIN"]
    row = next(line for line in summarise_seeds(records).splitlines() if "| auc |" in line)
    assert f"{np.mean(base):.4f} ± {np.std(base, ddof=1):.4f}" in row


def test_demo_refuses_what_it_cannot_read(capsys):
    for wrong in (["--seeds=one"], ["--epochs", "3"], ["nonsense"]):
        with pytest.raises(SystemExit):
            demo.main(wrong)
    assert "is not of the form --key=value" in capsys.readouterr().err
