"""Devices and number types by name."""

from __future__ import annotations

from types import SimpleNamespace as Config

import pytest
import torch

from recbole_mars.features.encoders.device import pick_device, pick_dtype


def test_auto_takes_the_gpu_if_there_is_one(monkeypatch) -> None:
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pick_device("auto") == torch.device(kind)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "cpu:x"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(ValueError, match=rf"one that is here, 'auto' or 'cpu'.*got '{name}'"):
        pick_device(name)


def test_a_device_without_values() -> None:
    with pytest.raises(ValueError, match="'meta' holds no values"):
        pick_device("meta")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, torch.float32),
        (Config(dtype=None), torch.float32),
        (Config(dtype=torch.float16), torch.float16),
        (Config(dtype="bfloat16"), torch.bfloat16),
        (Config(dtype="torch.float16"), torch.float16),
        (Config(dtype=torch.float64), torch.float32),
        (Config(dtype=None, text_config=Config(dtype=torch.float16)), torch.float16),
        (Config(vision_config=Config(dtype="float16")), torch.float16),
    ],
)
def test_auto_is_the_type_of_the_checkpoint(config, expected) -> None:
    assert pick_dtype("auto", config) == expected
    assert pick_dtype("bfloat16", config) == torch.bfloat16


def test_another_type() -> None:
    with pytest.raises(ValueError, match=r"dtype must be 'auto' or one of .*got 'int8'"):
        pick_dtype("int8", None)
