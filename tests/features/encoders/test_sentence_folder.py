"""Folders of sentence-transformers, read without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_text import SENTENCES, WIDTH, tiny_bert, tiny_clip

from recbole_mars.features import TextEncoder
from recbole_mars.features.encoders.model_folder import fetch_model
from recbole_mars.features.encoders.sentence_folder import read_sentence_folder

OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
SWITCHES = (
    "cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens",
    "lasttoken",
)  # fmt: skip


def switches(*on: str) -> dict[str, Any]:
    """A pooling's settings until version 5."""
    chosen = {f"pooling_mode_{name}": name in on for name in SWITCHES}
    return {"word_embedding_dimension": WIDTH, **chosen}


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def sentence_folder(folder: Path, *modules: tuple[str, dict[str, Any]], types: Any = OLD) -> Path:
    """A tiny BERT with modules after it, by kind, with their settings."""
    tiny_bert(folder)
    listed = []
    for k, (kind, settings) in enumerate([("Transformer", {}), *modules]):
        path = f"{k}_{kind}" if k else ""
        name = types + kind if isinstance(types, str) else types[kind]
        listed.append({"idx": k, "name": str(k), "path": path, "type": name})
        if k and settings:
            write(folder, f"{path}/config.json", settings)
    write(folder, "modules.json", listed)
    return folder


def dense(folder: Path, path: str, inputs: int, outputs: int, old: bool = False, **more: Any):
    generator = torch.Generator().manual_seed(inputs)
    tensors = {
        "linear.weight": torch.randn(outputs, inputs, generator=generator),
        "linear.bias": torch.randn(outputs, generator=generator),
    }
    write(folder, f"{path}/config.json", {"in_features": inputs, "out_features": outputs, **more})
    if old:
        torch.save(tensors, folder / path / "pytorch_model.bin")
    else:
        save_file(tensors, folder / path / "model.safetensors")
    return tensors["linear.weight"].numpy(), tensors["linear.bias"].numpy()


def encode(folder: Path, texts: list[str] = SENTENCES, **options: Any) -> np.ndarray:
    encoder = TextEncoder(str(folder), device="cpu", **options)
    return encoder.encode_batch(encoder.prepare(texts))


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        (switches("mean_tokens"), ("mean",)),
        (switches("cls_token"), ("cls",)),
        (switches("lasttoken"), ("last",)),
        (
            switches("weightedmean_tokens", "mean_sqrt_len_tokens"),
            ("mean_sqrt_len", "weightedmean"),
        ),
        (switches("max_tokens", "cls_token"), ("cls", "max")),
        (switches(), ("mean",)),
        ({"embedding_dimension": WIDTH, "pooling_mode": "lasttoken"}, ("last",)),
        ({"embedding_dimension": WIDTH, "pooling_mode": ["max", "cls"]}, ("max", "cls")),
        ({"pooling_mode": "mean", "include_prompt": True, **switches("cls_token")}, ("mean",)),
    ],
)
def test_poolings_of_all_versions(tmp_path, settings, pooling) -> None:
    folder = sentence_folder(tmp_path, ("Pooling", settings))
    read = read_sentence_folder(fetch_model(str(folder)))
    assert read is not None
    assert read.pooling == pooling
    parts = [encode(folder, pooling=how) for how in pooling]
    np.testing.assert_allclose(encode(folder), np.concatenate(parts, axis=1), atol=1e-6)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("types", [OLD, NEW], ids=["old", "new"])
def test_steps_after_pooling(tmp_path, types, old: bool) -> None:
    folder = sentence_folder(
        tmp_path,
        ("Pooling", switches("mean_tokens")),
        ("Dense", {}),
        ("Normalize", {}),
        types=types,
    )
    weight, bias = dense(
        folder,
        "2_Dense",
        WIDTH,
        8,
        old=old,
        bias=True,
        activation_function="torch.nn.modules.activation.Tanh",
        module_input_name="sentence_embedding",
    )
    pooled = encode(tiny_bert(tmp_path / "plain"))
    expected = np.tanh(pooled @ weight.T + bias)
    np.testing.assert_allclose(encode(folder, normalize=False), expected, atol=1e-5)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encode(folder), unit, atol=1e-5)
    settings = TextEncoder(str(folder)).settings()
    assert settings["normalize"] is True
    assert len([name for name in settings["files"] if name.startswith("2_Dense/")]) == 2


def test_layer_norm(tmp_path) -> None:
    folder = sentence_folder(
        tmp_path,
        ("Pooling", switches("mean_tokens")),
        ("Dropout", {"dropout": 0.5}),
        ("LayerNorm", {"dimension": WIDTH}),
    )
    scale = torch.arange(WIDTH, dtype=torch.float16)
    tensors = {"norm.weight": scale, "norm.bias": torch.ones(WIDTH)}
    save_file(tensors, folder / "3_LayerNorm" / "model.safetensors")
    pooled = encode(tiny_bert(tmp_path / "plain")).astype(np.float64)
    centred = pooled - pooled.mean(1, keepdims=True)
    expected = centred / np.sqrt(pooled.var(1, keepdims=True) + 1e-5) * scale.numpy() + 1
    np.testing.assert_allclose(encode(folder), expected, atol=1e-4)


def test_the_transformer_in_a_folder_of_its_own(tmp_path) -> None:
    folder = tmp_path / "whole"
    tiny_bert(folder / "0_Transformer")
    write(folder / "0_Transformer", "sentence_bert_config.json", {"max_seq_length": 9})
    write(folder / "1_Pooling", "config.json", switches("cls_token"))
    types = [("0_Transformer", OLD + "Transformer"), ("1_Pooling", OLD + "Pooling")]
    write(folder, "modules.json", [{"path": path, "type": kind} for path, kind in types])
    expected = encode(folder / "0_Transformer", pooling="cls", max_length=9)
    np.testing.assert_allclose(encode(folder), expected, atol=1e-6)


def test_limits_and_case(tmp_path) -> None:
    folder = sentence_folder(tmp_path, ("Pooling", switches("mean_tokens")))
    name = "sentence_bert_config.json"
    write(folder, name, {"max_seq_length": 7, "do_lower_case": True})
    assert TextEncoder(str(folder)).settings()["max_length"] == 7
    assert TextEncoder(str(folder), max_length=9).settings()["max_length"] == 9
    upper, lower = encode(folder, ["RAIN", "rain"])
    np.testing.assert_allclose(upper, lower, atol=1e-5)
    write(folder, name, {"max_seq_length": None, "do_lower_case": False})
    assert TextEncoder(str(folder)).settings()["max_length"] == 40
    upper, lower = encode(folder, ["RAIN", "rain"])
    assert np.abs(upper - lower).max() > 1e-3
    # since version 5.4 the limit is the tokenizer's
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    content = {"transformer_task": "feature-extraction", "modality_config": {"text": text}}
    write(folder, name, {**content, "module_output_name": "token_embeddings"})
    assert TextEncoder(str(folder)).settings()["max_length"] == 40


def test_the_default_prompt_comes_first(tmp_path) -> None:
    folder = sentence_folder(tmp_path, ("Pooling", switches("mean_tokens")))
    plain = encode(folder, ["rain", "in the rain"])
    name = "config_sentence_transformers.json"
    write(folder, name, {"prompts": {"query": "in the "}, "default_prompt_name": None})
    np.testing.assert_allclose(encode(folder, ["rain", "in the rain"]), plain, atol=1e-6)
    write(folder, name, {"prompts": {"query": "in the "}, "default_prompt_name": "query"})
    np.testing.assert_allclose(encode(folder, ["rain"])[0], plain[1], atol=1e-6)
    assert TextEncoder(str(folder)).provenance()["prompt"] == "in the "
    write(folder, name, {"prompts": {}, "default_prompt_name": "query"})
    with pytest.raises(ValueError, match=r"must have the prompt 'query'.*has \[\]"):
        TextEncoder(str(folder)).settings()


def test_a_prompt_that_is_not_pooled(tmp_path) -> None:
    settings = {**switches("mean_tokens"), "include_prompt": False}
    folder = sentence_folder(tmp_path, ("Pooling", settings))
    assert encode(folder).shape == (len(SENTENCES), WIDTH)  # no prompt, no matter
    content = {"prompts": {"query": "in "}, "default_prompt_name": "query"}
    write(folder, "config_sentence_transformers.json", content)
    with pytest.raises(ValueError, match="leaves its prompt 'in ' out of the pooling"):
        encode(folder)


def test_a_model_of_pictures_and_texts(tmp_path) -> None:
    folder = tmp_path / "whole"
    expected = encode(tiny_clip(folder / "0_CLIPModel"))
    modules = [{"path": "0_CLIPModel", "type": OLD + "CLIPModel"}]
    write(folder, "modules.json", modules)
    np.testing.assert_allclose(encode(folder), expected, atol=1e-6)
    write(folder / "1_Pooling", "config.json", switches("mean_tokens"))
    write(folder, "modules.json", [*modules, {"path": "1_Pooling", "type": OLD + "Pooling"}])
    with pytest.raises(ValueError, match=r"pooling must be 'auto'.*got \('mean',\)"):
        encode(folder)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([("Pooling", {}), ("CNN", {})], "lists Transformer, Pooling, CNN in modules.json"),
        ([("Dense", {}), ("Pooling", {})], "lists Transformer, Dense, Pooling in"),
        ([("Pooling", {"pooling_mode": "middle"})], r"sets pooling_mode \['middle'\] in 1_Pool"),
        ([("Pooling", {"pooling_mode": []})], r"sets pooling_mode \[\]"),
        ([("Pooling", {"layers": [1, 2]})], r"sets {'layers': \[1, 2\]} in 1_Pooling/config.json"),
        ([("Pooling", switches()), ("Dense", {"use_residual": True})], "sets {'use_residual'"),
        (
            [("Pooling", switches()), ("Normalize", {"module_input_name": "token_embeddings"})],
            "sets another module_input_name than 'sentence_embedding'",
        ),
    ],
)
def test_what_is_not_known_is_an_error(tmp_path, modules, message) -> None:
    folder = sentence_folder(tmp_path, *modules)
    with pytest.raises(ValueError, match=message + r".*not known here.*import the vectors"):
        TextEncoder(str(folder)).settings()


@pytest.mark.parametrize(
    "settings",
    [
        {"transformer_task": "fill-mask"},
        {"modality_config": {"image": {}}},
        {"modality_config": {"text": {"method": "forward", "method_output_name": "logits"}}},
        {"module_output_name": "scores"},
        {"max_seq_length": "long"},
        {"processing_kwargs": {"text": {"padding": "max_length"}}},
    ],
)
def test_unknown_settings_of_the_transformer(tmp_path, settings) -> None:
    folder = sentence_folder(tmp_path, ("Pooling", switches("mean_tokens")))
    write(folder, "sentence_bert_config.json", settings)
    with pytest.raises(ValueError, match=rf"sets .*{next(iter(settings))}.*not known here"):
        TextEncoder(str(folder)).settings()


def test_unknown_kinds(tmp_path) -> None:
    folder = sentence_folder(tmp_path, ("Pooling", switches("mean_tokens")))
    write(folder, "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    with pytest.raises(ValueError, match="is a SparseEncoder by config_sentence"):
        TextEncoder(str(folder)).settings()
    write(folder, "modules.json", [{"path": "", "type": "own_module.Transformer"}])
    with pytest.raises(ValueError, match=r"module of its own, 'own_module\.Transformer'"):
        TextEncoder(str(folder)).settings()


def test_no_pooling_at_all(tmp_path) -> None:
    folder = sentence_folder(tmp_path)
    with pytest.raises(ValueError, match=r"must list a Pooling, it has none; set pooling"):
        TextEncoder(str(folder)).settings()
    assert encode(folder, pooling="mean").shape == (len(SENTENCES), WIDTH)


def test_broken_steps(tmp_path) -> None:
    folder = sentence_folder(tmp_path, ("Pooling", switches("mean_tokens")), ("Dense", {}))
    write(folder, "2_Dense/config.json", {"in_features": WIDTH, "out_features": 4})
    with pytest.raises(ValueError, match=r"must hold the weights of its Dense in .*2_Dense"):
        encode(folder)
    dense(folder, "2_Dense", WIDTH + 1, 4)
    write(folder, "2_Dense/config.json", {"in_features": WIDTH, "out_features": 4})
    with pytest.raises(ValueError, match=r"weights of its Dense.*size mismatch"):
        encode(folder)
    dense(folder, "2_Dense", WIDTH, 4, activation_function="os.system")
    with pytest.raises(ValueError, match=r"has activation_function 'os.system'.*need one of"):
        encode(folder)
    write(folder, "2_Dense/config.json", {"out_features": 4})
    with pytest.raises(ValueError, match=r"must set 'in_features' in 2_Dense/config.json"):
        encode(folder)


@pytest.mark.parametrize("modes", [("mean_tokens",), ("cls_token", "weightedmean_tokens")])
def test_against_the_package(tmp_path, modes) -> None:
    package = pytest.importorskip("sentence_transformers")
    folder = sentence_folder(
        tmp_path, ("Pooling", switches(*modes)), ("Dense", {}), ("Normalize", {})
    )
    dense(folder, "2_Dense", WIDTH * len(modes), 8, activation_function="torch.nn.GELU")
    write(folder, "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": True})
    prompts = {"prompts": {"query": "in the "}, "default_prompt_name": "query"}
    write(folder, "config_sentence_transformers.json", prompts)
    model = package.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = model.encode(SENTENCES)
    np.testing.assert_allclose(encode(folder), expected, atol=1e-5)
