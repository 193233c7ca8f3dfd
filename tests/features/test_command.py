"""python -m recbole_mars.features, as a user types it."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_text import SENTENCES

from recbole_mars.features import FeatureStore
from recbole_mars.features.__main__ import main

ROWS = [f"{k:03},Film {k},{1980 + k},{'A plot.' if k % 3 else ''}" for k in range(30)]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("items.csv").write_text("\n".join(["item_id,title,year,plot", *ROWS]) + "\n")
    Path("posters").mkdir()
    generator = np.random.default_rng(0)
    for k in range(25):
        pixels = generator.integers(0, 256, (12, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(f"posters/{k:03}.png")
    return tmp_path


def table(printed: str) -> dict[str, list[str]]:
    lines = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_text_and_pictures(here, capsys) -> None:
    Path("posters/003.png").write_bytes(b"not a picture")
    command = [
        "--table",
        "items.csv",
        "--text_fields",
        "title",
        "plot",
        "--image-dir",
        "posters",
        "--output",
        "f",
    ]
    assert main(command) == 0
    told = table(capsys.readouterr().out)
    assert told["encoder"] == ["tfidf", "pixels"]
    assert told["items"] == ["30", "30"]
    assert told["with features"] == ["30", "24"]
    assert told["nothing given"] == ["0", "5"]
    assert told["broken"] == ["0", "1, see image/broken.txt"]
    assert told["encoded now"][0].startswith("30 in ")
    assert told["folder"] == ["f/text", "f/image"]
    assert Path("f/image/broken.txt").read_text().startswith("003\tcannot decode posters/003.png")
    page = Path("f/neighbours.html").read_text()
    assert "<h2>text</h2>" in page
    assert "<h2>image</h2>" in page
    assert "data:image/jpeg" in page
    store = FeatureStore.open("f/text")
    assert store.ids[:2] == ("000", "001")
    assert main(command) == 0
    assert table(capsys.readouterr().out)["encoded now"] == ["none, reused", "none, reused"]


def test_all_of_it_in_yaml(here, capsys) -> None:
    Path("a.yaml").write_text("table: items.csv\nid_field: item_id\noutput: f\ntext_fields: title")
    assert main(["--config_files", "a.yaml"]) == 0
    assert FeatureStore.open("f/text").present.all()
    Path("a.yaml").write_text("table: [1]\noutput: f\ntext_fields: title")
    assert main(["--config_files", "a.yaml"]) == 2
    assert "table must be a path, got [1]" in capsys.readouterr().err


def test_yaml_and_flags_that_win(here, capsys) -> None:
    Path("a.yaml").write_text(
        'text_prompt: "{title} ({year}). {plot}"\nfeature_dtype: int8\ntext_width: 4\nepochs: 3\n'
    )
    Path("b.yaml").write_text("image_dir: posters\ntext_width: 5\n")
    files = ["--config_files", "a.yaml", "b.yaml"]
    assert main(["--table=items.csv", "--output=f", *files, "--text-width=6"]) == 0
    told = table(capsys.readouterr().out)
    assert re.match(r"6 of \d+, [\d.]+% of the variance", told["width"][0])
    assert told["stored"][0].startswith("int8, ")
    assert re.match(r"mean [\d.e-]+, worst [\d.e-]+", told["1 - cosine"][0])
    assert FeatureStore.open("f/text").dimensions == 6
    assert FeatureStore.open("f/text-full").manifest["dtype"] == "float16"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("--output f", "nothing to encode: .*--text_fields"),
        ("--table items.csv --text_fields title", "--output must name the folder"),
        ("--output f --table items.csv --text_fields title --text_encoder Pixels", "for pictures"),
        ("--output f --table items.csv --image_dir posters --image_encoder TFIDF", "for text"),
        ("--output f --text_fields title", "--table must name the file"),
        ("--output f --table no.csv --text_fields title", r"no\.csv"),
        ("--output f --table items.csv --text_fields titel", "titel.*title"),
        ("--output f --table items.csv --image_dir nowhere", "image_dir must be a folder"),
        ("--output f --table items.csv --text_prompt {titel}", "titel.*title"),
        ("--output f --table items.csv --text_fields title --text_encoder ./no", r"\./no"),
        ("--output f --table items.csv --text_fields title --text_width few", "a whole number"),
        ("--output f --config_files no.yaml", r"cannot read no\.yaml"),
        ("--output f --config_files items.csv", "cannot read|must hold keys and values"),
        ("--output posters --table items.csv --text_fields title --feature_dtype x", "float16"),
    ],
)
def test_mistakes_get_one_clear_line(here, capsys, command: str, complaint: str) -> None:
    assert main(command.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if not line.startswith("\r")]
    assert re.match(f"error: .*({complaint})", line)


def test_settings_without_effect_are_told(here, capsys) -> None:
    command = [
        "--table",
        "items.csv",
        "--text_fields",
        "title",
        "--text_pooling",
        "cls",
        "--output",
        "f",
    ]
    assert main([*command, "--image_encoder=x"]) == 0
    told = capsys.readouterr().err
    assert "note: text_pooling, image_encoder change nothing with these settings" in told


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--text_pooling=first"], "text_pooling must be one of"),
        (["--text_max_length=0"], "text_max_length must be >= 1"),
        (["--text_dtype=int8"], "text_dtype must be"),
        (["--encoder_device=tpu"], "encoder_device must be"),
        (
            ["--encoder_device=cpu", "--encoder_device_map=auto"],
            "encoder_device must be 'auto'",
        ),
        (["--encoder_workers=0"], "encoder_workers must be >= 1"),
    ],
)
def test_mistakes_are_named_as_the_flags(here, capsys, tiny_bert, flags, complaint) -> None:
    command = ["--table=items.csv", "--text_fields=title", "--output=f"]
    assert main([*command, f"--text_encoder={tiny_bert}", *flags]) == 2
    assert re.search(f"error: {complaint}", capsys.readouterr().err)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "half"])
def test_shards_are_checked(here, capsys, shard: str) -> None:
    command = f"--output f --table items.csv --text_fields title --shard {shard}".split()
    try:
        status = main(command)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert re.search(r"i/n", capsys.readouterr().err)


def test_models_and_shards(here, capsys, tiny_bert, tiny_vit) -> None:
    command = ["--table=items.csv", "--text_prompt={title}. {plot}", "--image_dir=posters"]
    command += [f"--text_encoder={tiny_bert}", f"--image_encoder={tiny_vit}"]
    command += ["--text_batch_size=4", "--image_batch_size=4"]
    assert main([*command, "--output=whole"]) == 0
    told = table(capsys.readouterr().out)
    assert told["encoder"] == [str(tiny_bert), str(tiny_vit)]
    manifest = json.loads(Path("whole/text/manifest.json").read_text())
    assert "model.safetensors" in manifest["settings"]["files"]
    assert main([*command, "--output=f", "--shard=2/2"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"text: encoded 1\d inputs in this job; 4 of its shards", told)
    assert re.search(r"image: encoded 1\d inputs in this job; 4 of its shards", told)
    assert main([*command, "--output=f", "--shard=1/2"]) == 0
    assert table(capsys.readouterr().out)["encoder"] == [str(tiny_bert), str(tiny_vit)]
    for kind in ("text", "image"):
        for file in Path("whole", kind).iterdir():
            assert file.read_bytes() == Path("f", kind, file.name).read_bytes()


def test_a_width_asks_for_no_encoding(here, capsys, tiny_bert) -> None:
    words = [" ".join(SENTENCES[k % 5].split()[: 1 + k // 5]) for k in range(30)]
    rows = [f'{k},"{text}",' for k, text in enumerate(words)]
    Path("items.csv").write_text("\n".join(["item_id,title,plot", *rows]) + "\n")
    command = ["--table=items.csv", "--text_prompt={title}. {plot}"]
    command.append(f"--text_encoder={tiny_bert}")

    def encoded(*more: str) -> tuple[str, int]:
        assert main([*command, "--output=f", *more]) == 0
        found = table(capsys.readouterr().out)["encoded now"][0]
        return found, FeatureStore.open("f/text").dimensions

    first, width = encoded()
    assert re.match(r"\d+ in", first)
    content = Path("f/text/features.npy").read_bytes()
    assert encoded("--text_width=4") == ("none, reused", 4)
    assert encoded("--text_width=3") == ("none, reused", 3)
    assert Path("f/text-full/features.npy").read_bytes() == content
    assert encoded() == ("none, reused", width)
    assert Path("f/text/features.npy").read_bytes() == content
    assert not Path("f/text-full").exists()


@pytest.mark.parametrize("file", ["features.npy", "sources.npy", "manifest.json", "ids.txt"])
def test_a_damaged_store_is_made_again(here, capsys, tiny_bert, file: str) -> None:
    command = ["--table=items.csv", "--text_prompt={title}. {plot}"]
    command.append(f"--text_encoder={tiny_bert}")
    assert main([*command, "--output=f"]) == 0
    good = Path("f/text", file).read_bytes()
    Path("f/text", file).write_bytes(good[:-1] + b"?")
    assert main([*command, "--output=f"]) == 0
    assert Path("f/text", file).read_bytes() == good


def test_what_else_lies_in_the_folder(here, capsys) -> None:
    command = ["--table=items.csv", "--text_fields=title", "--output=f"]
    assert main(command) == 0
    Path("f/text/.DS_Store").touch()
    assert main([*command, "--feature_dtype=int8"]) == 0
    Path("f/text/mine.txt").touch()
    assert main([*command, "--feature_dtype=int8"]) == 0  # nothing to write
    assert main(command) == 2
    assert "it holds other files: 'mine.txt'" in capsys.readouterr().err
    assert main([*command[:2], "--output=items.csv"]) == 2
    assert "items.csv is a file" in capsys.readouterr().err


def test_a_full_disk_is_one_line(here, capsys, monkeypatch, tiny_bert) -> None:
    def full(*arguments) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    command = ["--table=items.csv", "--text_prompt={title}. {plot}"]
    command.append(f"--text_encoder={tiny_bert}")
    for function in ("fsync", "posix_fallocate"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            assert main([*command, "--output=f"]) == 2
        (line,) = [k for k in capsys.readouterr().err.splitlines() if k.startswith("error")]
        assert "No space left on device" in line
        assert not Path("f/text").exists()
    assert main([*command, "--output=f"]) == 0
    assert table(capsys.readouterr().out)["encoded now"] == ["none, reused"]


def test_words_that_look_like_numbers(here, capsys) -> None:
    Path("items.csv").write_text("item_id,1,no\na,one,x\nb,two,y\nc,two one,z\n")
    Path("2024").mkdir()
    for k, item in enumerate("abc"):
        Image.new("RGB", (9, 9), (80 * k, 10, 200)).save(f"2024/{item}.png")
    command = ["--table=items.csv", "--output=f", "--text_fields", "1", "no", "--image_dir", "2024"]
    assert main(command) == 0
    assert table(capsys.readouterr().out)["items"] == ["3", "3"]


def test_a_mistake_moves_and_removes_nothing(here, capsys, tiny_bert) -> None:
    command = ["--table=items.csv", "--text_prompt={title}. {plot}", "--output=f"]
    assert main(command) == 0
    made = FeatureStore.open("f/text").manifest["fingerprint"]
    assert main([*command, "--text_width=3", "--text_encoder=./nowhere"]) == 2
    assert FeatureStore.open("f/text").manifest["fingerprint"] == made
    assert main([*command, "--text_width=3"]) == 0
    Path("f/text/notes.txt").write_text("mine")
    assert main(command) == 2
    assert "notes.txt" in capsys.readouterr().err
    assert Path("f/text/notes.txt").read_text() == "mine"


def test_in_a_process_of_its_own(here) -> None:
    command = [sys.executable, "-m", "recbole_mars.features", "--table", "items.csv"]
    command += ["--text_fields", "title", "--output", "f"]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    assert "with features" in done.stdout
