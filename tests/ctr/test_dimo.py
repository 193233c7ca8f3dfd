"""DIMO's losses by hand and by loops, and its two branches."""

import math

import numpy as np
import pytest
import torch

from recbole_mars.ctr import DIMO, Companions, DIMOSettings, DINSettings, FieldEmbedding, History
from recbole_mars.ctr.dimo import Proxy, constraint, counterfactual


def companions(n_items=20):
    """Item i occurs with i + 1 and i + 2, but for the last two."""
    items = np.arange(n_items)[:, None] + [1, 2]
    items[0] = items[-2:] = 0
    return Companions(items, (items > 0) * np.array([0.75, 0.25], dtype=np.float32))


def make(modalities, **settings):
    torch.manual_seed(0)
    own = DIMOSettings(**{"companions": 2, "negatives": 3, **settings})
    din = DINSettings(history_labels=True, context_width=2)
    return DIMO(FieldEmbedding(20, 4), None, modalities, companions(), din, own).double()


def cosine(u, v):
    return (u @ v / u.norm() / v.norm()).item()


def chosen(near, *far):
    """-log(e^near / (e^near + sum e^far))."""
    return -math.log(math.exp(near) / (math.exp(near) + sum(map(math.exp, far))))


def test_proxy():
    torch.manual_seed(0)
    proxy = Proxy(4).double()
    effect, own, other = torch.randn(3, 6, 4).double()
    one, two, three, four = proxy.views
    expected = [
        chosen(cosine(one(s), two(p)), cosine(three(s), four(o)))
        for s, p, o in zip(effect, own, other)
    ]
    assert proxy(effect, own, other).tolist() == pytest.approx(expected)


def test_constraint():
    torch.manual_seed(0)
    item, held, drawn = torch.randn(6, 4), torch.randn(6, 2, 4), torch.randn(6, 3, 4)
    shares = torch.rand(6, 2)
    expected = []
    for b in range(6):
        mean = shares[b, 0] * held[b, 0] + shares[b, 1] * held[b, 1]
        far = [cosine(item[b], d) for d in drawn[b]]
        expected.append(chosen(cosine(item[b], mean), *far))
    assert constraint(item, held, shares, drawn).tolist() == pytest.approx(expected, rel=1e-5)


def test_counterfactual():
    ids, contents = torch.tensor([0.5, 0.5]), torch.tensor([-0.1, -0.1])
    found = counterfactual(ids, contents, torch.tensor([True, False]))
    assert found.tolist() == pytest.approx([chosen(0.5, -0.1), chosen(-0.1, 0.5)])


def test_co_occurrence_with_any_real_behaviour(two_modalities):
    model = make(two_modalities)
    items = torch.tensor([[5, 9], [5, 9], [5, 9], [9, 5], [0, 0], [18, 19]])
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 1], [0, 0], [1, 1]]).bool()
    target = torch.tensor([6, 11, 11, 8, 1, 19])
    found = model.co_occurs(History(items, mask), target)
    assert found.tolist() == [True, True, False, False, False, False]


def test_logits_are_those_of_ids_and_of_contents(two_modalities, some_histories):
    model = make(two_modalities).eval()
    history, target = some_histories()
    context = torch.randn(5, 2).double()
    ids = model.ids(*history[:2], target, None, *history[2:], context)
    contents = model.modality(*history[:2], target, None, *history[2:])
    found = model(history, target, None, context)
    torch.testing.assert_close(found.logits, ids + contents)
    assert found.loss is None


def test_losses_are_means_over_the_samples_that_they_are_about(two_modalities, some_histories):
    text = two_modalities[0]
    text.present[[1, 2]] = False
    model = make([text]).train()
    history, target = some_histories()
    history.items[3, 0] = 1  # its only behaviour has no features
    target[:] = torch.tensor([5, 6, 2, 7, 19])  # 2 has no features, 19 no companions
    ids, contents = (branch.interest(history, target) for branch in (model.ids, model.modality))
    torch.manual_seed(9)
    together, proxy, apart = model.losses(history, target, ids, contents)
    torch.manual_seed(9)
    drawn = torch.randint(1, 20, (5, 3))
    held, shares = model.vectors.companions[target], model.vectors.shares[target]
    every = constraint(ids[1], model.vectors(held), shares, model.vectors(drawn))
    torch.testing.assert_close(together, every[[0, 1, 2, 3]].mean())
    both = model.id_proxy(ids[0], model.ids.pooled(history), contents[0])
    both = both + model.modality_proxy(contents[0], model.modality.pooled(history), ids[0])
    torch.testing.assert_close(proxy, both[[0, 2, 3, 4]].mean())  # 1 has an empty history
    co_occurs = model.co_occurs(history, target)
    expected = [
        chosen(
            *sorted_by(
                co_occurs[b], cosine(ids[0][b], ids[1][b]), cosine(contents[0][b], contents[1][b])
            )
        )
        for b in (0, 4)
    ]
    assert apart.item() == pytest.approx(sum(expected) / 2)


def sorted_by(first_wins, first, second):
    return (first, second) if first_wins else (second, first)


def test_no_sample_counts(two_modalities):
    model = make(two_modalities).train()
    history = History(torch.zeros(2, 3).long(), torch.zeros(2, 3).bool(), torch.zeros(2, 3).long())
    loss = model(history, torch.tensor([18, 19]), None, torch.zeros(2, 2).double()).loss
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_loss_is_the_weighted_sum_and_for_training_only(two_modalities, some_histories):
    inputs, context = some_histories(), torch.zeros(5, 2).double()
    model = make(two_modalities, weight=0.3).train()
    torch.manual_seed(5)
    found = model(*inputs, None, context).loss
    torch.manual_seed(5)
    parts = model.losses(*inputs, *(d.interest(*inputs) for d in (model.ids, model.modality)))
    assert len({round(part.item(), 9) for part in parts}) == 3
    assert found.item() == pytest.approx(0.3 * sum(part.item() for part in parts))
    assert model.eval()(*inputs, None, context).loss is None
    assert make(two_modalities, weight=0.0).train()(*inputs, None, context).loss is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"companions": 0}, "companions must be >= 1, got 0"),
        ({"window": 0}, "window must be >= 1"),
        ({"layers": -1}, "layers must be >= 0, got -1"),
        ({"negatives": 0}, "negatives must be >= 1"),
        ({"weight": -1.0}, "weight must be >= 0, got -1.0"),
    ],
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(ValueError, match=said):
        DIMOSettings(**settings)
