"""Units in place of DIN's attention, against loops that follow the printed equations."""

import math

import pytest
import torch
from few_items import batch
from torch import nn

from recbole_mars.ctr import (
    DIN,
    BSTSettings,
    DINSettings,
    FieldEmbedding,
    GRUInterest,
    History,
    InterestNetwork,
    MeanInterest,
    TransformerInterest,
)
from recbole_mars.ctr.interest_units import padded

N_ITEMS, WIDTH = 20, 6


def transformer(width=WIDTH, **settings):
    return TransformerInterest(width, BSTSettings(**{"positions": 5, **settings}))


UNITS = {
    "mean": lambda width: MeanInterest(),
    "gru": GRUInterest,
    "one block": transformer,
    "two blocks": lambda width: transformer(width, blocks=2, heads=4),
}


def packed(lengths=(4, 0, 1, 7)):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor(lengths)
    return (
        torch.randn(3, WIDTH, generator=generator, dtype=torch.float64),
        torch.randn(5, WIDTH, generator=generator, dtype=torch.float64),
        torch.randint(0, 3, (len(lengths),), generator=generator),
        torch.randint(0, 5, (int(lengths.sum()),), generator=generator),
        lengths,
    )


def made(kind):
    torch.manual_seed(0)
    unit = UNITS[kind](WIDTH).double().eval()
    for parameter in unit.parameters():  # nothing may hide behind a zero
        nn.init.normal_(parameter, std=0.5)
    return unit


def by_sample(inputs):
    targets, behaviours, target_of, behaviour_of, lengths = inputs
    for target, places in zip(target_of, behaviour_of.split(lengths.tolist())):
        yield targets[target], behaviours[places]


def norm(x, layer):
    variance = ((x - x.mean()) ** 2).mean()
    return (x - x.mean()) / (variance + layer.eps).sqrt() * layer.weight + layer.bias


def block_by_equations(block, places):
    """BST, eq. 1-6, a place and a head at a time. places: a list of (D,)."""
    found = []
    for asking in places:
        heads = []
        for h in range(block.heads):
            size = len(block.query.weight) // block.heads
            rows = slice(h * size, (h + 1) * size)
            q = block.query.weight[rows] @ asking
            keys = [block.key.weight[rows] @ place for place in places]
            scores = torch.stack([q @ k / math.sqrt(size) for k in keys])
            values = [block.value.weight[rows] @ place for place in places]
            heads.append(sum(w * v for w, v in zip(scores.softmax(0), values)))
        s = norm(asking + block.join.weight @ torch.cat(heads), block.attended)
        first, _, second = block.layers
        inner = first.weight @ s + first.bias
        inner = torch.where(inner > 0, inner, 0.01 * inner)
        found.append(norm(s + second.weight @ inner + second.bias, block.processed))
    return found


@pytest.mark.parametrize("kind", ["one block", "two blocks"])
def test_transformer_follows_its_equations(kind):
    unit, inputs = made(kind), packed()
    expected = []
    for target, behaviours in by_sample(inputs):
        # Positions 0 to 5, counted back from the target, which may stand anywhere in the order.
        back = [min(len(behaviours) - j, 5) for j in range(len(behaviours))]
        places = [v + unit.positions.weight[p] for v, p in zip(behaviours, back)]
        places.append(target + unit.positions.weight[0])
        for block in unit.blocks:
            places = block_by_equations(block, places)
        expected.append(places[-1])
    torch.testing.assert_close(unit(*inputs), torch.stack(expected))


def test_gru_follows_its_equations():
    unit, inputs = made("gru"), packed()
    w_r, w_z, w = unit.gru.weight_ih_l0.split(WIDTH)
    u_r, u_z, u = unit.gru.weight_hh_l0.split(WIDTH)
    a_r, a_z, a = unit.gru.bias_ih_l0.split(WIDTH)
    b_r, b_z, b = unit.gru.bias_hh_l0.split(WIDTH)
    expected = []
    for _, behaviours in by_sample(inputs):
        h = torch.zeros(WIDTH, dtype=torch.float64)
        for x in behaviours:
            reset = torch.sigmoid(w_r @ x + a_r + u_r @ h + b_r)
            keep = torch.sigmoid(w_z @ x + a_z + u_z @ h + b_z)  # 1 - z of the paper
            h = keep * h + (1 - keep) * torch.tanh(w @ x + a + reset * (u @ h + b))
        expected.append(h)
    torch.testing.assert_close(unit(*inputs), torch.stack(expected))


def test_mean_by_hand():
    behaviours = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    found = MeanInterest()(
        torch.ones(1, 2),
        behaviours,
        torch.zeros(3, dtype=torch.long),
        torch.tensor([0, 1, 1, 1]),
        torch.tensor([2, 0, 2]),
    )
    assert found.tolist() == [[2.0, -1.0], [0.0, 0.0], [3.0, -4.0]]


def test_padded_by_hand():
    vectors, mask = padded(
        torch.tensor([[1.0], [2.0]]), torch.tensor([1, 0, 1]), torch.tensor([1, 0, 2])
    )
    assert vectors.squeeze(2).tolist() == [[2, 0], [0, 0], [1, 2]]
    assert mask.tolist() == [[True, False], [False, False], [True, True]]


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("lengths", [(0,), (0, 0, 0), (1,), (9, 9)])
def test_edges_of_length(kind, lengths):
    unit, inputs = made(kind), packed(lengths)
    found = unit(*inputs)
    assert found.shape == (len(lengths), WIDTH)
    assert found.isfinite().all()
    if sum(lengths) == 0 and "block" not in kind:
        assert not found.any()


@pytest.mark.parametrize(("kind", "sees"), [("mean", False), ("gru", False), ("one block", True)])
def test_who_sees_the_target(kind, sees):
    unit = made(kind)
    targets, *others = packed()
    assert torch.equal(unit(targets, *others), unit(targets + 1.5, *others)) is not sees


@pytest.mark.parametrize(("kind", "sees"), [("mean", False), ("gru", True), ("one block", True)])
def test_who_sees_the_order(kind, sees):
    unit = made(kind)
    *others, behaviour_of, lengths = packed((5,))
    before = unit(*others, behaviour_of, lengths)
    after = unit(*others, behaviour_of.flip(0), lengths)
    assert torch.allclose(before, after) is not sees


def test_behaviours_beyond_the_positions_are_alike():
    """Of 8 behaviours and 5 positions the four oldest are all 5 back."""
    unit = made("one block")
    *others, _, lengths = packed((8,))
    behaviour_of = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    before = unit(*others, behaviour_of, lengths)
    for order, same in (([3, 2, 1, 0, 4, 5, 6, 7], True), ([4, 1, 2, 3, 0, 5, 6, 7], False)):
        after = unit(*others, behaviour_of[order], lengths)
        assert torch.allclose(before, after) is same


def network(kind, **settings):
    torch.manual_seed(0)
    items = FieldEmbedding(N_ITEMS, WIDTH)
    return InterestNetwork(items, None, DINSettings(**settings), UNITS[kind](WIDTH))


@pytest.mark.parametrize("kind", UNITS)
def test_batch_equals_single_and_padding_is_not_read(kind):
    model = network(kind, history_labels=True, mark_borrowed=True).eval()
    history, target = batch()
    together = model(history, target).logits
    for b in range(len(target)):
        n = int(history.mask[b].sum())
        alone = History(*(x[b : b + 1, :n] for x in history[:3]), history.borrowed[b : b + 1])
        torch.testing.assert_close(model(alone, target[b : b + 1]).logits[0], together[b])
    other = torch.where(history.mask, history.items, 3)
    torch.testing.assert_close(model(history._replace(items=other), target).logits, together)


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("lengths", [(7, 0, 3), (1,)])
def test_gradients_reach_every_weight(kind, precision, lengths):
    model = network(kind, history_labels=True, precision=precision).train()
    prediction = model(*batch(lengths))
    assert prediction.loss is None
    assert prediction.logits.dtype == torch.float32
    prediction.logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if len(lengths) > 1:  # a lone sample's Dice may be flat, a lone behaviour's softmax is
            assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", UNITS)
def test_bfloat16_is_close(kind):
    inputs = batch()
    exact, rough = (
        network(kind, precision=p).eval()(*inputs).logits for p in ("float32", "bfloat16")
    )
    torch.testing.assert_close(exact, rough, atol=0.02, rtol=0.02)


def test_the_mean_is_the_din_s_pooled_history():
    model = network("mean", history_labels=True)
    history, target = batch()
    interest, _ = model.din.interest(history, target)
    torch.testing.assert_close(interest, model.din.pooled(history))


def test_a_din_keeps_its_weights_names():
    names = set(DIN(FieldEmbedding(N_ITEMS, 4), None, DINSettings()).state_dict())
    assert {"attention.layers.0.weight", "attention.layers.2.bias"} <= names
    assert not any(name.startswith("attention") for name in network("mean").din.state_dict())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"heads": 0}, "heads must be >= 1, got 0"),
        ({"blocks": 0}, "blocks must be >= 1, got 0"),
        ({"positions": 0}, "positions must be >= 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(ValueError, match=said):
        BSTSettings(**settings)


def test_dropout_is_for_training_only():
    unit, inputs = transformer(dropout=0.5).double(), packed()
    assert not torch.equal(unit(*inputs), unit(*inputs))
    unit.eval()
    assert torch.equal(unit(*inputs), unit(*inputs))
