"""LRD against loops over pairs and relations, in float64."""

import math

import pytest
import torch

from recbole_mars.ctr import LRD, DINSettings, FieldEmbedding, LRDSettings
from recbole_mars.ctr.lrd import reconstruction_loss


def make(modalities, **settings):
    torch.manual_seed(0)
    own = LRDSettings(**{"relations": 3, "width": 4, **settings})
    model = LRD(FieldEmbedding(20, 4), None, modalities, DINSettings(history_labels=True), own)
    with torch.no_grad():
        model.extraction_bias.normal_()
        model.din.items.id_embedding.weight[1:].normal_()
    return model.double()


def relations_of(model, behaviour, target):
    """p(r | j, i), from W [e_j; e_i] + b."""
    e = [model.contents(torch.tensor([i]))[0] for i in (behaviour, target)]
    of_behaviour, of_target = model.extraction.weight.split(3)
    logits = torch.cat([of_behaviour, of_target], dim=1) @ torch.cat(e) + model.extraction_bias
    return logits.softmax(0)


def test_relations_are_extracted_from_both_items(two_modalities):
    model = make(two_modalities)
    behaviour, target = torch.tensor([1, 3, 5, 1]), torch.tensor([2, 2, 4, 0])
    found = model.log_relations(behaviour, target).exp()
    expected = [relations_of(model, int(j), int(i)) for j, i in zip(behaviour, target)]
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("inferred", [False, True])
def test_each_relation_weighs_the_history(two_modalities, some_histories, inferred):
    model = make(two_modalities, inferred=inferred).eval()
    history, target = some_histories()
    interest, vectors = model.din.interest(history, target)
    found = model.related(history, target, vectors)
    behaviours, behaviour_of = model.din.behaviours(history)
    packed = behaviours[behaviour_of].split(history.mask.sum(1).tolist())
    for b, v in enumerate(packed):
        m = torch.zeros(3, 4).double()
        for r, relation in enumerate(model.relations):
            weights = [math.exp((v_j * relation * vectors[b]).sum().item()) for v_j in v]
            if inferred:
                items = history.items[b][history.mask[b]].tolist()
                p = [relations_of(model, j, int(target[b]))[r].item() for j in items]
                weights = [w * q for w, q in zip(weights, p)]
            for weight, v_j in zip(weights, v):
                m[r] += weight / sum(weights) * v_j
        torch.testing.assert_close(found[b], m.mean(0))
    logits = model.din.logits(interest, vectors, None, found)
    torch.testing.assert_close(model(history, target).logits, logits)


def phi(j, w, i):
    return (j * w * i).sum() + (j * w).sum() + (i * w).sum()


def test_reconstruction_loss_equals_a_loop():
    torch.manual_seed(0)
    sample_of, n_relations = torch.tensor([0, 0, 2, 2, 2]), 3
    relations = torch.randn(n_relations, 4).double()
    behaviour, other, target = torch.randn(3, 5, 4).double()
    p = torch.randn(5, n_relations).double().softmax(1)
    reconstruction, entropy = [], []
    for sample in (0, 2):
        pairs = [m for m in range(5) if sample_of[m] == sample]
        for r in range(n_relations):
            won = []
            for m in pairs:
                w = p[m, r] * relations[r]
                margin = phi(behaviour[m], w, target[m]) - phi(other[m], w, target[m])
                won.append(1 / (1 + math.exp(-margin)))
            reconstruction.append(-math.log(sum(won) / len(won)))
    for m in range(5):
        entropy += [-float(q) * math.log(q) for q in p[m]]
    expected = sum(reconstruction) / len(reconstruction) + 0.3 * sum(entropy) / len(entropy)
    found = reconstruction_loss(p.log(), relations, behaviour, other, target, sample_of, 0.3)
    assert found.item() == pytest.approx(expected)


def test_a_hopeless_margin_has_a_finite_loss_and_gradient():
    """sigmoid(-1000) is 0 in any precision, and its logarithm -1000."""
    behaviour, target = torch.zeros(2, 1, requires_grad=True), torch.zeros(2, 1)
    other = torch.full((2, 1), 1000.0)
    relation, certain = torch.ones(1, 1), torch.zeros(2, 1)
    loss = reconstruction_loss(
        certain, relation, behaviour, other, target, torch.tensor([0, 0]), 0.0
    )
    assert loss.item() == pytest.approx(1000)
    loss.backward()
    torch.testing.assert_close(behaviour.grad, torch.full((2, 1), -0.5))


def test_training_tells_real_behaviours_from_drawn_ones():
    """Two groups of items: histories and targets are of one group, drawn items of either."""
    torch.manual_seed(0)
    vectors = torch.nn.Parameter(torch.randn(2, 4) * 0.1)
    relations = torch.nn.Parameter(torch.randn(2, 4) * 0.1)
    log_p = torch.zeros(8, 2).log_softmax(1)
    optimizer = torch.optim.Adam([vectors, relations], lr=0.05)
    own, drawn = torch.zeros(8).long(), torch.ones(8).long()
    losses = []
    for _ in range(100):
        loss = reconstruction_loss(
            log_p, relations, vectors[own], vectors[drawn], vectors[own], torch.arange(8) // 2, 0.0
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2), abs=0.05)
    assert losses[-1] < 0.05


@pytest.mark.parametrize(("entropy", "falls"), [(1.0, True), (-1.0, False)])
def test_the_sign_of_alpha_makes_relations_certain_or_not(entropy, falls):
    logits = torch.tensor([[0.5, 0.0, -0.2]], requires_grad=True)
    zeros = torch.zeros(1, 4)

    def spread(x):
        return -(x.softmax(1) * x.log_softmax(1)).sum()

    loss = reconstruction_loss(
        logits.log_softmax(1), torch.ones(3, 4), zeros, zeros, zeros, torch.tensor([0]), entropy
    )
    loss.backward()
    assert (spread(logits - logits.grad) < spread(logits)) == falls


def test_only_pairs_with_features_count(two_modalities, some_histories):
    text = two_modalities[0]
    text.present[:10] = False
    model = make([text]).train()
    history, target = some_histories()
    target[:] = 5  # without features
    assert model.discovery(history, target).item() == 0
    target[:] = 15
    asked = []
    model.log_relations = lambda j, i: asked.append(j) or torch.zeros(len(j), 3).double()
    model.discovery(history, target)
    real = history.items[history.mask]
    assert asked[0].tolist() == real[real >= 10].tolist()


def test_the_loss_is_that_of_behaviours_against_drawn_items(two_modalities, some_histories):
    model = make(two_modalities, weight=0.7, entropy=0.2).train()
    history, target = inputs = some_histories()
    pairs = [
        (b, int(j))
        for b in range(len(target))
        for j in history.items[b][history.mask[b]]
        if j > 0  # a masked behaviour has no features
    ]
    torch.manual_seed(5)
    found = model(*inputs).loss
    torch.manual_seed(5)
    drawn = torch.randint(1, 20, (len(pairs),))
    v = model.din.items.id_embedding.weight
    reconstruction, entropy = [], []
    for b in sorted({b for b, _ in pairs}):
        won = torch.zeros(3).double()
        mine = [(j, other) for (of, j), other in zip(pairs, drawn.tolist()) if of == b]
        for j, other in mine:
            p, i = relations_of(model, j, int(target[b])), v[target[b]]
            entropy += (-p * p.log()).tolist()
            for r, relation in enumerate(model.relations):
                w = p[r] * relation
                won[r] += torch.sigmoid(phi(v[j], w, i) - phi(v[other], w, i)) / len(mine)
        reconstruction += (-won.log()).tolist()
    mean = sum(reconstruction) / len(reconstruction) + 0.2 * sum(entropy) / len(entropy)
    assert found.item() == pytest.approx(0.7 * mean)


def test_the_loss_is_for_training_only(two_modalities, some_histories):
    inputs = some_histories()
    assert make(two_modalities).eval()(*inputs).loss is None
    assert make(two_modalities, weight=0.0).train()(*inputs).loss is None


def test_features_act_through_the_loss_alone_unless_inferred(two_modalities, some_histories):
    inputs = some_histories()
    for inferred in (False, True):
        model = make(two_modalities, inferred=inferred).eval()
        before = model(*inputs).logits
        with torch.no_grad():
            model.extraction_bias += torch.tensor([3.0, 0.0, -3.0])
            model.extraction.weight.mul_(2)
        assert torch.equal(model(*inputs).logits, before) != inferred


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"relations": 0}, "relations must be >= 1, got 0"),
        ({"width": 0}, "width must be >= 1, got 0"),
        ({"weight": -1.0}, "weight must be >= 0, got -1.0"),
    ],
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(ValueError, match=said):
        LRDSettings(**settings)
