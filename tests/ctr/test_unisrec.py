"""UniSRec against loops over experts, heads and behaviours in float64."""

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, softplus

from recbole_mars.ctr import DINSettings, FieldEmbedding, UniSRec, UniSRecSettings
from recbole_mars.ctr.unisrec import ExpertAdaptor, SequenceInterest


def make(modalities, **settings):
    torch.manual_seed(0)
    own = UniSRecSettings(**{"experts": 3, "inner": 6, "dropout": 0.0, "ages": 5, **settings})
    items = FieldEmbedding(20, 4)
    return UniSRec(items, None, modalities, DINSettings(history_labels=True), own)


def adaptor():
    torch.manual_seed(0)
    found = ExpertAdaptor(5, 4, 3, dropout=0.0).double()
    with torch.no_grad():  # nothing may hide behind a zero
        for weight in found.parameters():
            weight.normal_()
    return found


def mixed(experts, x, gates):
    return sum(
        gates[g] * (x - experts.bias[g]) @ experts.weight[g] for g in range(len(experts.bias))
    )


def test_the_adaptor_mixes_parametric_whitenings():
    experts, x = adaptor().eval(), torch.randn(6, 5).double()
    expected = [mixed(experts, row, (row @ experts.gate).softmax(0)) for row in x]
    torch.testing.assert_close(experts(x), torch.stack(expected))


def test_gates_are_noisy_in_training():
    experts, x = adaptor().train(), torch.randn(6, 5).double()
    torch.manual_seed(3)
    found = experts(x)
    torch.manual_seed(3)
    noise = torch.randn_like(x @ experts.gate)
    expected = [
        mixed(
            experts,
            row,
            (row @ experts.gate + n * (softplus(row @ experts.noise) + 0.01)).softmax(0),
        )
        for row, n in zip(x, noise)
    ]
    torch.testing.assert_close(found, torch.stack(expected))


def self_attention(layer, x, heads):
    """Causal, of one history (L, D)."""
    length, width = x.shape
    attention, size = layer.self_attn, width // heads
    q, k, v = (x @ attention.in_proj_weight.T + attention.in_proj_bias).split(width, dim=1)
    rows = []
    for t in range(length):
        parts = []
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            scores = k[: t + 1, own] @ q[t, own] / size**0.5
            parts.append(scores.softmax(0) @ v[: t + 1, own])
        rows.append(attention.out_proj(torch.cat(parts)))
    return torch.stack(rows)


@pytest.mark.parametrize("heads", [1, 2])
def test_the_interest_is_the_transformers_last_output(heads):
    torch.manual_seed(0)
    own = UniSRecSettings(heads=heads, inner=6, dropout=0.0, ages=5)
    network = SequenceInterest(4, own).double().eval()
    behaviours, lengths = torch.randn(9, 4).double(), torch.tensor([7, 0, 2])
    behaviour_of = torch.tensor([8, 0, 0, 3, 4, 5, 1, 7, 2])
    targets = torch.randn(2, 4).double()
    found = network(targets, behaviours, torch.tensor([0, 1, 0]), behaviour_of, lengths)
    assert not found[1].any()
    for sample, stretch in ((0, behaviour_of[:7]), (2, behaviour_of[7:])):
        ages = torch.arange(len(stretch) - 1, -1, -1).clamp(max=4)
        x = network.norm(behaviours[stretch] + network.positions(ages))
        for layer in network.layers:
            x = layer_norm(x + self_attention(layer, x, heads), [4], *norm(layer.norm1))
            hidden = layer.linear2(gelu(layer.linear1(x)))
            x = layer_norm(x + hidden, [4], *norm(layer.norm2))
        torch.testing.assert_close(found[sample], x[-1])


def norm(layer):
    return layer.weight, layer.bias, layer.eps


def test_histories_without_a_behaviour():
    network = SequenceInterest(4, UniSRecSettings())
    none = torch.zeros(0, dtype=torch.int64)
    found = network(
        torch.ones(1, 4), torch.ones(0, 4), torch.zeros(2).long(), none, torch.zeros(2).long()
    )
    torch.testing.assert_close(found, torch.zeros(2, 4))


def test_features_are_added_to_ids_on_both_sides(two_modalities, some_histories):
    model = make(two_modalities).eval()
    history, target = some_histories()
    added = model.din.items
    _, vectors = model.din.interest(history, target)
    torch.testing.assert_close(vectors, added.items(target) + added.contents(target))
    before = model(history, target).logits
    with torch.no_grad():
        added.contents.features[0].vectors.kept[history.items[4, 0]] += 1
    moved = model(history, target).logits != before
    assert moved[4]
    assert not moved[1]


def test_the_order_of_behaviours_matters_and_the_target_is_not_asked(
    two_modalities, some_histories
):
    model = make(two_modalities).eval()
    history, target = some_histories()
    interest, _ = model.din.interest(history, target)
    other, _ = model.din.interest(history, target % 19 + 1)
    torch.testing.assert_close(interest, other)
    swapped = history.items.clone()
    swapped[4, :2] = swapped[4, [1, 0]]
    assert history.items[4, 0] != history.items[4, 1]
    assert not torch.allclose(
        model.din.interest(history._replace(items=swapped), target)[0][4], interest[4]
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"experts": 0}, "experts must be >= 1, got 0"),
        ({"heads": 0}, "heads must be >= 1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"heads": 3}, "heads must divide the width of an item's vector, 4, got 3"),
    ],
)
def test_settings_out_of_range(two_modalities, settings, said):
    with pytest.raises(ValueError, match=said):
        make(two_modalities, **settings)
