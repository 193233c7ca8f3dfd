from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_mars.alignment import ModalityProjection
from recbole_mars.alignment.encoders import ItemModality


def test_present_rows_are_projected_and_absent_ones_replaced() -> None:
    projection = ModalityProjection(3, 2)
    features = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    found = projection(features, torch.tensor([True, False]))
    torch.testing.assert_close(found[0], projection.linear.weight @ features[0])
    assert torch.equal(found[1], projection.absent)


def test_an_absent_row_may_hold_anything() -> None:
    projection = ModalityProjection(3, 2)
    features = torch.ones(2, 3)
    features[1] = float("nan")
    found = projection(features, torch.tensor([True, False]))
    found.sum().backward()
    torch.testing.assert_close(projection.linear.weight.grad, torch.ones(2, 3))
    torch.testing.assert_close(projection.absent.grad, torch.ones(2))


def test_half_precision_features_are_projected_in_the_precision_of_the_weights() -> None:
    projection = ModalityProjection(3, 2)
    features = torch.randn(4, 3).half()
    present = torch.ones(4, dtype=torch.bool)
    found = projection(features, present)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, projection(features.float(), present))


def test_items_are_looked_up_and_padding_is_absent() -> None:
    features = np.arange(8, dtype=np.float16).reshape(4, 2)
    modality = ItemModality("text", features, np.ones(4, dtype=bool), 4, 3)
    found = modality(torch.tensor([2, 0]))
    expected = modality.projection.linear.weight @ torch.tensor([4.0, 5.0])
    torch.testing.assert_close(found[0], expected)
    assert torch.equal(found[1], modality.projection.absent)
    assert modality.features.dtype == torch.float16


def test_features_are_copied_and_stay_out_of_the_state() -> None:
    features, present = np.zeros((4, 2), dtype=np.float32), np.ones(4, dtype=bool)
    features.setflags(write=False)  # as a memory map opened for reading
    modality = ItemModality("text", features, present, 4, 3)
    assert present[0]
    assert set(modality.state_dict()) == {"projection.linear.weight", "projection.absent"}
    assert {name for name, _ in modality.named_buffers()} == {"features", "present"}


def test_bad_features_are_refused() -> None:
    features, present = torch.zeros(4, 2), torch.ones(4, dtype=torch.bool)
    with pytest.raises(ValueError, match="text must be a float matrix with one row for each of"):
        ItemModality("text", features[:3], present, 4, 3)
    with pytest.raises(ValueError, match="text must be a float matrix"):
        ItemModality("text", features.long(), present, 4, 3)
    with pytest.raises(ValueError, match=r"text_present must be \(4,\) bool"):
        ItemModality("text", features, present[:3], 4, 3)
    with pytest.raises(ValueError, match=r"text_present must be \(4,\) bool"):
        ItemModality("text", features, present.long(), 4, 3)
    features[2, 1] = float("inf")
    with pytest.raises(ValueError, match="text must be finite where present, item 2 is not"):
        ItemModality("text", features, present, 4, 3)
    present[2] = False
    ItemModality("text", features, present, 4, 3)
