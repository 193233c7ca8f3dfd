"""Items by their features: standardised as a whole, added up, zero where there are none."""

import numpy as np
import pytest
import torch

from recbole_mars.ctr import Modality
from recbole_mars.ctr.contents import ContentVectors, FrozenFeatures, linear_encoder


def test_features_have_mean_0_and_variance_1_whatever_their_encoder(two_modalities):
    for modality in two_modalities:
        features = FrozenFeatures(modality)
        real = features.vectors(features.present).double()
        torch.testing.assert_close(real.mean(0), torch.zeros_like(real[0]), atol=1e-6, rtol=0)
        assert real.square().mean().item() == pytest.approx(1, rel=1e-5)
        assert not features.vectors(~features.present).any()
        scaled = Modality("x", modality.vectors * 100 + 5, modality.present)
        torch.testing.assert_close(
            FrozenFeatures(scaled).vectors.kept, features.vectors.kept, rtol=1e-4, atol=1e-5
        )


def test_what_the_data_set_holds_is_left_alone(two_modalities):
    before = two_modalities[0].vectors.copy()
    FrozenFeatures(two_modalities[0])
    np.testing.assert_array_equal(two_modalities[0].vectors, before)


@pytest.mark.parametrize("value", [0.0, 7.0])
@pytest.mark.parametrize("present", [[False] * 3, [True] * 3])
def test_features_that_tell_nothing_are_zero(value, present):
    modality = Modality("text", np.full((3, 2), value, dtype=np.float32), np.array(present))
    assert not FrozenFeatures(modality).vectors.kept.any()


@pytest.mark.parametrize("many", [1, 5])
def test_contents_are_the_sum_over_the_modalities_that_an_item_has(two_modalities, many):
    torch.manual_seed(0)
    contents = ContentVectors(two_modalities, 3, linear_encoder)
    ids = torch.tensor([[3, 7, 0], [7, 4, 19]]).repeat(many, 1)  # 5: more ids than there are items
    expected = torch.zeros(*ids.shape, 3)
    for features, encoder in zip(contents.features, contents.encoders):
        for place in np.ndindex(*ids.shape):
            if features.present[ids[place]]:
                expected[place] += encoder.weight @ features.vectors.kept[ids[place]]
    torch.testing.assert_close(contents(ids), expected)
    assert contents.known(ids[:2]).tolist() == [[True, True, False], [True, True, True]]


def test_only_the_encoders_are_weights(two_modalities):
    contents = ContentVectors(two_modalities, 3, linear_encoder)
    assert set(contents.state_dict()) == {"encoders.0.weight", "encoders.1.weight"}


def test_a_modality_is_needed():
    with pytest.raises(ValueError, match="modalities must be one or more, got none"):
        ContentVectors([], 3, linear_encoder)
