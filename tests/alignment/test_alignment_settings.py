from __future__ import annotations

from typing import Any

import pytest

from recbole_mars.alignment import AlignmentSettings, TrainingSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width must be >= 1, got 0"),
        ({"stein_items": 1}, "stein_items must be >= 2, got 1"),
        ({"entropy_weight": -0.1}, "entropy_weight must be >= 0"),
        ({"stein_weight": float("nan")}, "stein_weight must be >= 0, got nan"),
        ({"attention": "masked"}, "attention must be 'causal' or 'full', got 'masked'"),
        ({"entropy_sign": "plus"}, "entropy_sign must be one of"),
        ({"bandwidth": "mean"}, "bandwidth must be > 0, got 'mean'; use 'median'"),
        ({"bandwidth": 0.0}, "bandwidth must be > 0, got 0.0; use 'median'"),
        ({"regularization": 0.0}, "regularization must be > 0, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1"),
        ({"use_text": False, "use_image": False}, "use_text and use_image are both off"),
        ({"history_labels": True, "attention": "full"}, "history_labels with attention='full'"),
    ],
)
def test_network_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlignmentSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"max_length": 0}, "max_length must be >= 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"precision": "float16"}, r"precision must be one of .*'bfloat16'\), got 'float16'"),
    ],
)
def test_training_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**settings)
