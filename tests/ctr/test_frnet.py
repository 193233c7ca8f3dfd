"""FRNet against loops over fields, in float64."""

import pytest
import torch

from recbole_mars.ctr import FieldEmbedding, FRNet, FRNetSettings, History
from recbole_mars.ctr.frnet import FeatureRefinement, InformationExtraction

GENRE = torch.arange(6) % 3


def make(users=True, context_width=0):
    torch.manual_seed(0)
    own = FRNetSettings(attention_width=3, hidden=[5])

    def fields(size):
        return (
            FieldEmbedding(6, size, tokens={"genre": GENRE}),
            FieldEmbedding(4, size) if users else None,
        )

    return FRNet(*fields(4), *fields(1), own, context_width).double()


def prelu(layer, x):
    return torch.where(x > 0, x, layer.weight * x)


def extracted(unit, fields):
    """One sample: fields (F, E)."""
    w_q, w_k, w_v = unit.projections.weight.split(3)
    first, first_act, second, second_act = unit.context
    hidden = prelu(first_act, first.weight @ fields.flatten() + first.bias)
    bits = prelu(second_act, second.weight @ hidden + second.bias)
    rows = []
    for f in fields:
        weights = torch.stack([(w_q @ f) @ (w_k @ g) for g in fields]).softmax(0)
        attended = sum(w * (w_v @ g) for w, g in zip(weights, fields))
        rows.append(unit.out.weight @ attended * bits)
    return torch.stack(rows)


def test_extraction_equals_a_loop():
    torch.manual_seed(0)
    unit = InformationExtraction(3, 4, FRNetSettings(3, [5])).double()
    x = torch.randn(6, 3, 4).double()
    torch.testing.assert_close(unit(x), torch.stack([extracted(unit, sample) for sample in x]))


def test_the_gate_chooses_between_a_field_and_its_complement():
    torch.manual_seed(0)
    refinement = FeatureRefinement(3, 4, FRNetSettings(3, [5])).double()
    x = torch.randn(6, 3, 4).double()
    share, complement = refinement.gate(x).sigmoid(), refinement.complement(x)
    torch.testing.assert_close(refinement(x), x * share + complement * (1 - share))
    refinement.gate.forward = lambda x: torch.full_like(x, 50.0)
    torch.testing.assert_close(refinement(x), x)


@pytest.mark.parametrize("users", [True, False])
def test_the_logit_is_a_factorization_machine(users):
    model = make(users, context_width=2)
    item, user = torch.tensor([3, 1, 5]), torch.tensor([1, 3, 1])
    context = torch.randn(3, 2).double()
    found = model(None, item, user, context)
    for b in range(3):
        fields = [
            model.items.id_embedding.weight[item[b]],
            model.items.embeddings["genre"].weight[GENRE[item[b]]],
        ]
        weights = [
            model.item_weights.id_embedding.weight[item[b]],
            model.item_weights.embeddings["genre"].weight[GENRE[item[b]]],
        ]
        if users:
            fields.append(model.users.id_embedding.weight[user[b]])
            weights.append(model.user_weights.id_embedding.weight[user[b]])
        e = model.refinement(torch.stack(fields).unsqueeze(0))[0]
        pairs = sum(e[f] @ e[g] for f in range(len(e)) for g in range(f))
        expected = model.bias + sum(weights) + pairs + model.context.weight @ context[b]
        torch.testing.assert_close(found.logits[b : b + 1], expected)
    assert found.loss is None


def test_no_history_is_read():
    history = History(torch.tensor([[1, 2]]), torch.tensor([[True, True]]))
    other = History(torch.tensor([[4, 5]]), torch.tensor([[True, False]]))
    model, ids = make(), torch.tensor([1])
    assert torch.equal(model(history, ids, ids).logits, model(other, ids, ids).logits)


def test_what_the_model_was_built_with_must_be_given():
    ids = torch.tensor([1])
    with pytest.raises(ValueError, match="user must be given"):
        make()(None, ids)
    with pytest.raises(ValueError, match="context must be given"):
        make(context_width=2)(None, ids, ids)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attention_width": 0}, "attention_width must be >= 1, got 0"),
        ({"hidden": []}, r"hidden must list whole numbers >= 1, got \[\]"),
        ({"hidden": [0.5]}, "hidden must list whole numbers"),
    ],
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(ValueError, match=said):
        FRNetSettings(**settings)
