"""RecBole runs whose item features come from models, stores and ready-made files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_text
import tiny_vision
import yaml
from recbole.quick_start import run_recbole

from recbole_mars.features import FeatureStore
from recbole_mars.features.__main__ import main
from recbole_mars.plugin.config import properties_folder

PROMPT = "{title} ({category})."


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    tiny_vision.save_model("vit", folder / "vit")
    tiny_vision.save_qwen("qwen2_5_vl", folder / "qwen")
    return {
        "text": str(tiny_text.tiny_bert(folder / "bert")),
        "image": str(folder / "vit"),
        "llama": str(tiny_text.tiny_llama(folder / "llama")),
        "qwen": str(folder / "qwen"),
    }


@pytest.fixture
def keys(models) -> dict[str, Any]:
    return {"text_prompt": PROMPT, "text_encoder": models["text"], "image_encoder": models["image"]}


def run(settings: dict[str, Any], **changes: Any) -> float:
    settings = {**settings, "epochs": 1, "mars_align_epochs": 1, **changes}
    result = run_recbole(model="MARS", dataset="world", config_dict=settings, saved=False)
    return float(result["test_result"]["auc"])


def made(pattern: str) -> FeatureStore:
    (folder,) = Path("saved/features/world").glob(pattern)
    return FeatureStore.open(folder)


def table(world: Path) -> str:
    return str(world / "world" / "world.item")


def test_a_run_makes_its_features_and_finds_them_again(tiny, keys, caplog) -> None:
    first = run({**tiny, **keys})
    text = made("text-bert-*")
    image = made("image-vit-*")
    assert (text.name, image.name) == ("text_model", "image_model")
    assert text.present.all()
    caplog.set_level(logging.INFO, logger="recbole_mars.features")
    assert run({**tiny, **keys}) == first
    assert "reused features 'text_model'" in caplog.text
    assert "reused features 'image_model'" in caplog.text


def test_the_command_and_the_run_make_the_same_features(tiny, keys, world, capsys) -> None:
    """One YAML file serves both, and the run takes the command's stores."""
    with open("features.yaml", "w") as file:
        yaml.safe_dump({**keys, "image_dir": tiny["image_dir"]}, file)
    command = ["--config_files=features.yaml", f"--table={table(world)}", "--output=made"]
    assert main(command) == 0
    stores = {"text_features": "made/text", "image_features": "made/image"}
    from_stores = run({**tiny, **stores})
    assert not Path("saved/features/world").exists()
    assert run({**tiny, **keys}) == from_stores
    own = made("text-bert-*")
    matrix, _ = FeatureStore.open("made/text").select(own.ids)
    np.testing.assert_allclose(own.matrix, matrix, atol=2e-3)  # other batches: rounding


def test_another_encoder_leaves_the_first_ones_features(tiny, keys, caplog) -> None:
    first = run({**tiny, **keys})
    run(tiny)  # TF-IDF and pixels
    caplog.set_level(logging.INFO, logger="recbole_mars.features")
    assert run({**tiny, **keys}) == first
    assert "reused features 'text_model'" in caplog.text
    assert "building features" not in caplog.text


def test_int8_and_fewer_dimensions(tiny, keys) -> None:
    more = {"feature_dtype": "int8", "text_width": 6, "feature_whiten": True}
    run({**tiny, **keys}, **more)
    text = made("text-bert-????????-6-white")
    assert (text.dimensions, text.manifest["dtype"]) == (6, "int8")
    assert made("text-bert-????????").dimensions > 6


def test_features_of_the_other_kind(tiny) -> None:
    run(tiny)
    (image,) = Path("saved/features/world").glob("image-*")
    with pytest.raises(ValueError, match=r"text_features must be features of text.*'pixels'"):
        run(tiny, text_features=str(image))


def test_files_of_recbole_itself(tiny, world) -> None:
    lines = Path(table(world)).read_text().splitlines()[1:]
    ids = [line.split("\t")[0] for line in lines]
    matrix = np.random.default_rng(0).normal(size=(len(ids), 6)).round(3)
    rows = [f"{item}\t{' '.join(map(str, row))}" for item, row in zip(ids, matrix)]
    Path("world.itememb").write_text("\n".join(["iid:token\titem_emb:float_seq", *rows]) + "\n")
    atomic = run(tiny, text_features="world.itememb", mars_use_image=False)
    np.save("text_feat.npy", matrix.astype(np.float32))
    Path("ids.csv").write_text("\n".join(["item_id", *ids]) + "\n")
    folder = run(tiny, text_features=".", mars_use_image=False)
    matrix = run(tiny, text_features="text_feat.npy", feature_ids="ids.csv", mars_use_image=False)
    assert atomic == folder == matrix


def test_the_papers_configuration_with_tiny_models(tiny, models, world) -> None:
    """LLaMA and Qwen2.5-VL as in the paper, but for the size of the models and the columns."""
    paper = yaml.safe_load((properties_folder() / "features" / "mars-paper.yaml").read_text())
    assert paper["text_encoder"].endswith("llama-7b")
    assert "Qwen2.5-VL-7B" in paper["image_encoder"]
    assert paper["mars_width"] == 256
    paper.update(
        text_prompt=PROMPT,
        text_encoder=models["llama"],
        image_encoder=models["qwen"],
        text_dtype="float32",
        image_dtype="float32",
    )
    run({**tiny, **paper, "text_fields": None})
    assert made("text-llama-*").present.all()
    image = made("image-qwen-*")
    assert image.manifest["provenance"]["model"] == models["qwen"]
    assert image.present.sum() == len(list(Path(tiny["image_dir"]).glob("*.png")))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"text_encoder": "./nowhere"}, r"\./nowhere"),
        ({"text_pooling": "first"}, "pooling must be one of"),
        ({"text_prompt": "{titel}"}, r"text_prompt: .*no column 'titel'"),
        ({"feature_dtype": "int4"}, "feature_dtype must be one of"),
        ({"text_features": "nowhere"}, "text_features: there is no file or folder nowhere"),
        ({"text_batch_size": 0}, "text_batch_size must be >= 1"),
    ],
)
def test_mistakes_are_told_before_anything_runs(tiny, keys, changes, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        run({**tiny, **keys}, **changes)
