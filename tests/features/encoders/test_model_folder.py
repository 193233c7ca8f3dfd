"""Where models come from."""

from __future__ import annotations

import hashlib
import json
import socket
from fnmatch import fnmatch
from pathlib import Path

import pytest

from recbole_mars.features.encoders import model_folder
from recbole_mars.features.encoders.model_folder import ModelFolder, fetch_model


def write(folder: Path, *files: str, **contents: object) -> Path:
    """Files that hold their name, and JSON files by name without its ending."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for name, content in contents.items():
        (folder / f"{name.replace('__', '.')}.json").write_text(json.dumps(content))
    return folder


def index(**places: str) -> dict[str, object]:
    return {"weight_map": {name.replace("__", "."): file for name, file in places.items()}}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a local folder must not touch the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(model_folder, "snapshot_download", refuse)


class Hub:
    """A hub of one model, whose files lie in `source`."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source = source
        self.cache = cache
        self.asked: list[tuple[str, str | None]] = []

    def snapshot_download(self, name, *, revision, allow_patterns, ignore_patterns) -> str:
        self.asked.append((name, revision))
        for file in sorted(self.source.rglob("*")):
            path = file.relative_to(self.source).as_posix()
            wanted = any(fnmatch(path, pattern) for pattern in allow_patterns)
            if file.is_file() and wanted and not any(fnmatch(path, p) for p in ignore_patterns):
                write(self.cache, path).joinpath(path).write_bytes(file.read_bytes())
        return str(self.cache)

    def files(self) -> set[str]:
        found = self.cache.rglob("*")
        return {file.relative_to(self.cache).as_posix() for file in found if file.is_file()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "source", tmp_path / "models--owner--model" / "snapshots" / "c0ffee")
    hub.source.mkdir()
    monkeypatch.setattr(model_folder, "snapshot_download", hub.snapshot_download)
    return hub


@pytest.mark.usefixtures("no_network")
def test_a_local_folder(tmp_path) -> None:
    folder = write(tmp_path, "config.json", "model.safetensors", "vocab.txt", "README.md", "own.py")
    write(tmp_path, "onnx/config.json", "checkpoint-1/model.safetensors", "pytorch_model.bin")
    model = fetch_model(str(folder))
    assert model == ModelFolder(
        folder, str(folder), None, ("model.safetensors",), ("config.json", "vocab.txt")
    )
    assert fetch_model(str(folder), code=True).settings == ("config.json", "own.py", "vocab.txt")
    assert model.checksums() == {
        name: hashlib.sha256(name.encode()).hexdigest()
        for name in ("config.json", "model.safetensors", "vocab.txt")
    }


@pytest.mark.usefixtures("no_network")
def test_a_folder_in_the_home(tmp_path, monkeypatch) -> None:
    write(tmp_path / "bert", "config.json", "model.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch_model("~/bert").path == tmp_path / "bert"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (["pytorch_model.bin"], {"pytorch_model.bin"}),
        (["model-1.safetensors", "model-2.safetensors"], {"model-1.safetensors"}),
        (["model.safetensors", "consolidated.safetensors"], {"model.safetensors"}),
    ],
)
def test_weights_are_those_that_transformers_reads(tmp_path, files, weights) -> None:
    write(tmp_path, "config.json", *files)
    if "model-1.safetensors" in files:
        places = index(a="model-1.safetensors")
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(places))
    assert set(fetch_model(str(tmp_path)).weights) == weights


@pytest.mark.usefixtures("no_network")
def test_only_shards_of_a_prefix(tmp_path) -> None:
    write(tmp_path, "config.json", "b.safetensors")
    places = index(model__layers="a.safetensors", visual__blocks="b.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(places))
    model = fetch_model(str(tmp_path), prefix=r"(model\.)?visual\.")
    assert model.weights == ("b.safetensors",)
    for prefix in ("", "audio"):  # of a model without such weights, all are needed
        with pytest.raises(ValueError, match=r"lacks its weights, a\.safetensors; get the whole"):
            fetch_model(str(tmp_path), prefix=prefix)


@pytest.mark.usefixtures("no_network")
def test_modules_of_sentence_transformers(tmp_path) -> None:
    paths = ["0_Transformer", "1_Pooling", "2_Dense", "3_Normalize"]
    write(tmp_path, "0_Transformer/config.json", "0_Transformer/model.safetensors")
    write(tmp_path, "1_Pooling/config.json", "2_Dense/pytorch_model.bin", "2_Dense/config.json")
    write(tmp_path, modules=[{"path": path} for path in paths])
    model = fetch_model(str(tmp_path))
    assert model.weights == ("0_Transformer/model.safetensors", "2_Dense/pytorch_model.bin")
    assert set(model.settings) == {
        "0_Transformer/config.json", "1_Pooling/config.json", "2_Dense/config.json", "modules.json",
    }  # fmt: skip


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("modules", [[], [{}], 3, [{"path": "../other"}], [{"path": "/etc"}]])
def test_broken_modules(tmp_path, modules) -> None:
    write(tmp_path, "model.safetensors", modules=modules)
    with pytest.raises(ValueError, match=r"modules.json in .* must list"):
        fetch_model(str(tmp_path))


@pytest.mark.usefixtures("no_network")
def test_what_is_no_model(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"must hold a config\.json"):
        fetch_model(str(tmp_path))
    write(tmp_path, "config.json")
    with pytest.raises(ValueError, match=r"lacks its weights, model\.safetensors or model\.safe"):
        fetch_model(str(tmp_path))
    with pytest.raises(ValueError, match=r"revision 'main' is for models of the hub.*drop"):
        fetch_model(str(tmp_path), revision="main")
    with pytest.raises(ValueError, match=r"no model folder '.*config.json', which is a file;"):
        fetch_model(str(tmp_path / "config.json"))
    for name in (str(tmp_path / "none"), "./none", "a/b/c", "", "../owner/model"):
        with pytest.raises(ValueError, match=rf"no model folder '{name}'; name a.*'owner/name'"):
            fetch_model(name)
    write(tmp_path, "adapter_config.json")
    with pytest.raises(ValueError, match=r"holds an adapter; merge it"):
        fetch_model(str(tmp_path))


def test_read_json(tmp_path) -> None:
    model = ModelFolder(write(tmp_path, "broken.json", whole={"a": 1}), "owner/m", None, ())
    assert model.read_json("whole.json") == {"a": 1}
    for name in ("broken.json", "missing.json"):
        with pytest.raises(ValueError, match=rf"'owner/m' needs a readable {name}.*get the model"):
            model.read_json(name)


def test_the_caches_names_are_checksums(tmp_path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "c0ffee"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    (blobs / digest).write_bytes(b"not read")  # proves that the name is taken
    (snapshot / "model.safetensors").symlink_to(blobs / digest)
    (blobs / ("a" * 40)).write_bytes(b"{}")  # small files are named by git
    (snapshot / "config.json").symlink_to(blobs / ("a" * 40))
    assert fetch_model(str(snapshot)).checksums() == {
        "model.safetensors": digest,
        "config.json": hashlib.sha256(b"{}").hexdigest(),
    }


def test_a_model_of_the_hub(hub) -> None:
    write(hub.source, "config.json", "vocab.txt", "model.safetensors", "README.md", "own.py")
    write(hub.source, "pytorch_model.bin", "onnx/config.json", "consolidated.safetensors")
    model = fetch_model("owner/model", revision="v1")
    assert (model.path, model.name, model.revision) == (hub.cache, "owner/model", "c0ffee")
    assert model.weights == ("model.safetensors",)
    assert hub.files() == {"config.json", "vocab.txt", "model.safetensors"}
    assert set(hub.asked) == {("owner/model", "v1")}
    fetch_model("owner/model", code=True)
    assert "own.py" in hub.files()


def test_old_weights_of_the_hub(hub) -> None:
    write(hub.source, "config.json", "pytorch_model.bin", "tf_model.h5")
    assert fetch_model("model").weights == ("pytorch_model.bin",)
    assert hub.files() == {"config.json", "pytorch_model.bin"}


def test_safe_weights_are_taken_where_both_are(hub) -> None:
    write(hub.source, "config.json", "model.safetensors", "part.bin")
    places = index(a="part.bin")
    (hub.source / "pytorch_model.bin.index.json").write_text(json.dumps(places))
    assert fetch_model("owner/model").weights == ("model.safetensors",)
    assert "part.bin" not in hub.files()


def test_shards_of_the_hub(hub) -> None:
    write(hub.source, "config.json", "a.safetensors", "b.safetensors")
    places = index(model__layers="a.safetensors", visual__blocks="b.safetensors")
    (hub.source / "model.safetensors.index.json").write_text(json.dumps(places))
    assert fetch_model("owner/model", prefix="visual").weights == ("b.safetensors",)
    assert "a.safetensors" not in hub.files()
    assert fetch_model("owner/model").weights == ("a.safetensors", "b.safetensors")


def test_modules_of_the_hub(hub) -> None:
    write(hub.source, "config.json", "model.safetensors", "pytorch_model.bin")
    write(hub.source, "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/pytorch_model.bin")
    write(hub.source, modules=[{"path": path} for path in ("", "1_Pooling", "2_Dense")])
    model = fetch_model("owner/model")
    assert model.weights == ("2_Dense/pytorch_model.bin", "model.safetensors")
    assert "pytorch_model.bin" not in hub.files()


def test_a_model_that_cannot_be_had(monkeypatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise OSError("404 Client Error.\n\nRepository Not Found for url")

    monkeypatch.setattr(model_folder, "snapshot_download", fail)
    with pytest.raises(ValueError, match=r"cannot get model 'owner/model' at revision 'v1'") as got:
        fetch_model("owner/model", revision="v1")
    message = str(got.value)
    assert "404 Client Error. Repository Not Found for url; check the name" in message
    assert "HF_TOKEN" in message
    assert "\n" not in message


def test_offline(tmp_path, monkeypatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="cannot get model 'owner/never-seen': no such local"):
        fetch_model("owner/never-seen")


def test_a_broken_index_of_the_hub_is_named_as_such(hub) -> None:
    write(hub.source, "config.json", "model.safetensors.index.json")
    with pytest.raises(ValueError, match=r"needs a readable model\.safetensors\.index\.json"):
        fetch_model("owner/model")
    (hub.source / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="must hold a weight_map"):
        fetch_model("owner/model")
