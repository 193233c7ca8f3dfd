"""Limits are checked, and the key is not shown."""

from __future__ import annotations

import pytest

from recbole_mars.serving.service import ServiceSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("max_body_bytes", "max_candidates", "max_recent", "concurrency")),
        *((name, 0) for name in ("queue", "batch_candidates", "preparing_threads", "seconds")),
        ("seconds", float("inf")),
        ("poll_seconds", float("nan")),
        ("batch_seconds", -0.001),
        ("batch_seconds", 1.0),
        ("api_key", ""),
    ],
)
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        ServiceSettings(**{name: value})


def test_the_key_is_not_shown():
    assert "geheim" not in repr(ServiceSettings(api_key="geheim"))
