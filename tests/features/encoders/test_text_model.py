"""Text vectors of tiny models, loaded as real ones are, against `transformers` by hand."""

from __future__ import annotations

import json
import pickle
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_text import (
    SENTENCES,
    TINY,
    WIDTH,
    save,
    tiny_bert,
    tiny_clip,
    tiny_llama,
    tiny_t5,
    wordpiece,
)
from transformers import AutoModel, AutoTokenizer, FNetConfig

from recbole_mars.features import TextEncoder
from recbole_mars.features.encoders import pretrained, text_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("text")
    return {kind: build(root / kind) for kind, build in TINY.items()}


def by_hand(folder: Path, text: str, how: str = "auto") -> np.ndarray:
    """The vector of one text, alone, without padding but where the model needs it."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    kind = model.config.model_type
    longest = {"siglip": 64, "roberta": 25}.get(kind, 40)
    padding = {"padding": "max_length"} if kind == "siglip" else {}
    given = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt", **padding)
    given = {name: given[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        if kind in ("clip", "siglip"):
            if kind == "siglip":
                del given["attention_mask"]
            features = model.eval().get_text_features(**given)
            return getattr(features, "pooler_output", features)[0].numpy()
        side = model.get_encoder() if kind in ("t5", "bart") else model
        hidden = side.eval()(**given).last_hidden_state[0].numpy()
    how = how if how != "auto" else "last" if kind == "llama" else "mean"
    return {"last": hidden[-1], "cls": hidden[0], "mean": hidden.mean(0)}[how]


def limits(kind: str) -> dict[str, int]:
    return {} if kind in ("siglip", "roberta") else {"max_length": 40}


def encode(encoder: TextEncoder, texts: list[str]) -> np.ndarray:
    return encoder.encode_batch(encoder.prepare(texts))


@pytest.mark.parametrize("kind", TINY)
def test_a_batch_is_its_texts_by_hand(folders, kind: str) -> None:
    vectors = encode(TextEncoder(str(folders[kind]), device="cpu", **limits(kind)), SENTENCES)
    expected = np.stack([by_hand(folders[kind], text) for text in SENTENCES])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.01  # texts do differ


@pytest.mark.parametrize("kind", TINY)
def test_padding_and_batch_size_do_not_matter(folders, kind: str) -> None:
    encoder = TextEncoder(str(folders[kind]), device="cpu")
    together = encode(encoder, SENTENCES)
    for size in (1, 2, 4):
        parts = [encode(encoder, SENTENCES[k : k + size]) for k in range(0, 6, size)]
        np.testing.assert_allclose(np.concatenate(parts), together, atol=1e-5)


@pytest.mark.parametrize("how", ["cls", "mean", "last"])
@pytest.mark.parametrize("kind", ["bert", "llama", "t5"])
def test_pooling_is_chosen(folders, kind: str, how: str) -> None:
    encoder = TextEncoder(str(folders[kind]), device="cpu", pooling=how)
    expected = np.stack([by_hand(folders[kind], text, how) for text in SENTENCES])
    np.testing.assert_allclose(encode(encoder, SENTENCES), expected, atol=1e-5)
    assert encoder.settings()["pooling"] == how


@pytest.mark.parametrize(
    ("kind", "pooling", "length"),
    [
        ("bert", "mean", 40),
        ("roberta", "mean", 25),  # of 26 positions, 1 is the padding's
        ("llama", "last", 512),  # of 2048
        ("t5", "mean", 512),
        ("clip", "model", 77),
        ("siglip", "model", 64),
    ],
)
def test_what_auto_means(folders, kind: str, pooling: str, length: int) -> None:
    settings = TextEncoder(str(folders[kind])).settings()
    assert (settings["pooling"], settings["max_length"]) == (pooling, length)
    assert (settings["normalize"], settings["dtype"]) == (False, "float32")


@pytest.mark.parametrize("kind", ["bert", "llama", "t5", "clip"])
def test_truncated_texts_are_reported(folders, kind: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders[kind])
    texts = ["cow", "cowboy in rain", SENTENCES[3], "in", SENTENCES[0]]
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    encoder = TextEncoder(str(folders[kind]), device="cpu", max_length=lengths[1])
    batch = encoder.prepare(texts)
    assert list(batch.truncated) == [k for k in range(5) if lengths[k] > lengths[1]]
    assert {2, 4} <= set(batch.truncated)
    kept = batch.content.mask.sum(1)
    assert kept.tolist() == [min(length, lengths[1]) for length in lengths]
    # what is kept ends as the tokenizer wants it
    if kind != "llama":
        assert len({int(batch.content.ids[k, kept[k] - 1]) for k in range(5)}) == 1


def test_unreadable_texts_are_broken(folders) -> None:
    encoder = TextEncoder(str(folders["bert"]), device="cpu", max_length=5)
    batch = encoder.prepare(["rain", "half a \ud83d pair", SENTENCES[3]])
    assert (batch.size, list(batch.broken), batch.truncated) == (2, [1], [2])
    assert "not valid Unicode: surrogates not allowed at character 7" in batch.broken[1]
    np.testing.assert_allclose(
        encoder.encode_batch(batch), encode(encoder, ["rain", SENTENCES[3]]), atol=1e-6
    )
    assert encode(encoder, ["\ud83d"]).shape == (0, WIDTH)
    assert encoder.lengths(["ab", "é", "\ud83d"]) == [2, 2, 1]


def test_threads_prepare_and_load_alike(folders) -> None:
    encoder = TextEncoder(str(folders["bert"]), device="cpu", max_length=12)
    barrier = threading.Barrier(8)

    def work(k: int) -> np.ndarray:
        barrier.wait(30)
        texts = SENTENCES[k % 3 :: 2]
        return np.concatenate([encode(encoder, texts) for _ in range(5)])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    alone = TextEncoder(str(folders["bert"]), device="cpu", max_length=12)
    for k, vectors in enumerate(found):
        expected = np.concatenate([encode(alone, SENTENCES[k % 3 :: 2])] * 5)
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_the_checkpoint_says_the_type(tmp_path, folders) -> None:
    half = tiny_llama(tmp_path / "half", dtype=torch.bfloat16)
    exact = encode(TextEncoder(str(folders["llama"]), device="cpu"), SENTENCES)
    for options in ({}, {"dtype": "bfloat16"}):
        encoder = TextEncoder(str(half), device="cpu", **options)
        vectors = encode(encoder, SENTENCES)
        assert encoder.settings()["dtype"] == "bfloat16"
        assert vectors.dtype == np.float32
        cosine = (vectors * exact).sum(1) / np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(cosine / np.linalg.norm(exact, axis=1), 1.0, atol=2e-2)
    assert TextEncoder(str(half), dtype="float32").settings()["dtype"] == "float32"


def test_normalize(folders) -> None:
    plain = encode(TextEncoder(str(folders["llama"]), device="cpu"), SENTENCES)
    encoder = TextEncoder(str(folders["llama"]), device="cpu", normalize=True)
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(encode(encoder, SENTENCES), unit, atol=1e-6)
    assert encoder.settings()["normalize"] is True


def test_an_encoder_of_t5_alone_is_a_whole_model(tmp_path) -> None:
    alone = tiny_t5(tmp_path, model="T5EncoderModel")
    vectors = encode(TextEncoder(str(alone), device="cpu"), SENTENCES)
    expected = np.stack([by_hand(alone, text) for text in SENTENCES])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_old_weights(tmp_path, folders) -> None:
    from safetensors.torch import load_file

    old = tiny_bert(tmp_path / "old")
    tensors = load_file(old / "model.safetensors")
    (old / "model.safetensors").unlink()
    torch.save(tensors, old / "pytorch_model.bin")
    vectors = encode(TextEncoder(str(old), device="cpu"), SENTENCES)
    expected = encode(TextEncoder(str(folders["bert"]), device="cpu"), SENTENCES)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


@pytest.mark.parametrize(("kind", "lost"), [("bert", "layer.1."), ("clip", "text_projection")])
def test_missing_weights_are_no_random_numbers(tmp_path, kind: str, lost: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = TINY[kind](tmp_path)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if lost not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"{len(tensors) - len(kept)} are missing.*{lost}"):
        TextEncoder(str(folder), device="cpu").load()


@pytest.mark.parametrize(
    ("kind", "lost"), [("bert", "pooler"), ("clip", "vision_model"), ("bart", "decoder.")]
)
def test_weights_that_texts_do_not_need(tmp_path, folders, kind: str, lost: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = TINY[kind](tmp_path)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if lost not in name}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    vectors = encode(TextEncoder(str(folder), device="cpu"), SENTENCES)
    expected = encode(TextEncoder(str(folders[kind]), device="cpu"), SENTENCES)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_settings_and_provenance(tmp_path, folders) -> None:
    encoder = TextEncoder(str(folders["bert"]), max_length=16)
    settings = encoder.settings()
    assert json.loads(json.dumps(settings)) == settings
    assert set(settings) == {
        "version", "files", "pooling", "max_length", "normalize", "dtype", "load_in_8bit",
    }  # fmt: skip
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(settings["files"])
    assert encoder._network is None
    provenance = json.loads(json.dumps(encoder.provenance()))
    assert provenance["model"] == str(folders["bert"])
    assert provenance["revision"] is None
    assert provenance["transformers"]
    # neither where the folder lies nor where the model runs
    copy = tiny_bert(tmp_path / "copy")
    assert TextEncoder(str(copy), device="cpu", max_length=16).settings() == settings


def test_an_encoder_travels_without_its_model(folders) -> None:
    encoder = TextEncoder(str(folders["bert"]), device="cpu", normalize=True)
    expected = encode(encoder, SENTENCES)
    again = pickle.loads(pickle.dumps(encoder))
    assert again._network is None
    np.testing.assert_array_equal(encode(again, SENTENCES), expected)


def test_a_second_load_does_nothing(folders) -> None:
    encoder = TextEncoder(str(folders["bert"]), device="cpu")
    encoder.load()
    network = encoder._network
    encoder.load()
    assert encoder._network is network


def test_a_model_over_devices(folders) -> None:
    pytest.importorskip("accelerate")
    encoder = TextEncoder(str(folders["llama"]), device_map={"": "cpu"})
    expected = encode(TextEncoder(str(folders["llama"]), device="cpu"), SENTENCES)
    np.testing.assert_allclose(encode(encoder, SENTENCES), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "middle"}, "pooling must be one of auto, mean, cls.*got 'middle'"),
        ({"max_length": 0}, "max_length must be >= 1, got 0"),
        ({"dtype": "int8"}, "dtype must be 'auto' or one of.*got 'int8'"),
        ({"device_map": "auto", "device": "cuda"}, "device must be 'auto' with a device_map"),
    ],
)
def test_wrong_arguments(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        TextEncoder("any", **options)


def test_what_a_model_cannot_do(folders) -> None:
    bert, clip = str(folders["bert"]), str(folders["clip"])
    with pytest.raises(ValueError, match=r"max_length must be <= 40, the positions of.*got 41"):
        TextEncoder(bert, max_length=41).settings()
    with pytest.raises(ValueError, match=r"max_length must be > 2, the tokens.*got 2"):
        TextEncoder(bert, max_length=2).settings()
    with pytest.raises(ValueError, match=r"pooling must be 'auto' for .*got 'mean'"):
        TextEncoder(clip, pooling="mean").settings()
    with pytest.raises(ValueError, match="device must be one that is here"):
        TextEncoder(bert, device="cuda:99").load()


@pytest.mark.parametrize(
    ("options", "package"),
    [({"device_map": "auto"}, "accelerate"), ({"load_in_8bit": True}, "bitsandbytes")],
)
def test_packages_for_large_models(monkeypatch, folders, options, package) -> None:
    real = pretrained.importlib.util.find_spec
    monkeypatch.setattr(
        pretrained.importlib.util, "find_spec", lambda name: None if name == package else real(name)
    )
    with pytest.raises(ValueError, match=rf"needs the package {package}.*recbole_mars\[large\]"):
        TextEncoder(str(folders["llama"]), **options).load()


def test_code_of_a_model_is_not_run_unasked(tmp_path, folders) -> None:
    folder = tiny_bert(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "own_bert"
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        "from transformers import BertConfig, BertModel\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own_bert'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(ValueError, match=r"Python code of its own.*trust_remote_code=True"):
        TextEncoder(str(folder), device="cpu").load()
    encoder = TextEncoder(str(folder), device="cpu", trust_remote_code=True)
    assert "own.py" in encoder.settings()["files"]
    expected = encode(TextEncoder(str(folders["bert"]), device="cpu"), SENTENCES)
    np.testing.assert_allclose(encode(encoder, SENTENCES), expected, atol=1e-6)


def test_a_folder_that_does_not_load(tmp_path) -> None:
    folder = tiny_bert(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"does not load from .* with transformers \d.*is whole"):
        TextEncoder(str(folder), device="cpu").load()
    (folder / "config.json").write_text('{"model_type": "of_tomorrow"}')
    with pytest.raises(ValueError, match="of_tomorrow"):
        TextEncoder(str(folder)).settings()


def test_a_tokenizer_of_another_model(tmp_path) -> None:
    folder = tiny_bert(tmp_path / "bert")
    AutoTokenizer.from_pretrained(tiny_llama(tmp_path / "llama")).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"tokens must be < \d+, what the model knows"):
        TextEncoder(str(folder), device="cpu").prepare(SENTENCES)


def test_vectors_that_are_not_finite(folders, monkeypatch) -> None:
    encoder = TextEncoder(str(folders["bert"]), device="cpu")
    batch = encoder.prepare(SENTENCES)
    encoder.load()
    monkeypatch.setattr(encoder, "_network", lambda tokens: torch.full((6, WIDTH), torch.inf))
    with pytest.raises(ValueError, match=r"must be finite, in torch.float32.*weights are damaged"):
        encoder.encode_batch(batch)


@pytest.mark.parametrize("kind", ["bert", "llama", "clip"])
def test_a_local_folder_never_touches_the_network(folders, monkeypatch, kind: str) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a local folder must not touch the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    encoder = TextEncoder(str(folders[kind]), device="cpu")
    encoder.settings()
    encoder.provenance()
    assert len(encode(encoder, SENTENCES)) == len(SENTENCES)


def test_a_model_that_cannot_leave_padding_out(tmp_path) -> None:
    tokenizer = wordpiece()
    config = FNetConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=1, intermediate_size=32
    )
    folder = save(tmp_path, tokenizer, "FNetModel", config)
    with pytest.raises(ValueError, match=r"must take an attention_mask, a FNetModel takes none"):
        TextEncoder(str(folder), device="cpu").load()


def test_a_hub_model_is_fetched_at_its_revision(folders, monkeypatch) -> None:
    asked = []

    def fetch(name, *, revision=None, prefix="", code=False):
        asked.append((name, revision, code))
        return real(str(folders["bert"]))

    real = text_model.fetch_model
    monkeypatch.setattr(text_model, "fetch_model", fetch)
    encoder = TextEncoder("owner/bert", revision="v1", device="cpu", trust_remote_code=True)
    encoder.load()
    assert encode(encoder, ["Rain"]).shape == (1, WIDTH)
    assert asked == [("owner/bert", "v1", True)]


@pytest.mark.parametrize("build", [tiny_bert, tiny_t5, tiny_clip])
def test_a_model_without_its_tokenizer(tmp_path, build) -> None:
    """transformers makes one that knows no words; every text would be the same."""
    build(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"needs a tokenizer with its vocabulary|does not load"):
        TextEncoder(str(tmp_path)).settings()
