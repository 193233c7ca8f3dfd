"""InfoNCE and the contrastive objective."""

import math

import pytest
import torch
from torch import nn

from recbole_mars.ctr import (
    DIN,
    ContrastiveObjective,
    ContrastiveSettings,
    DINSettings,
    FieldEmbedding,
    History,
    TrainingBatch,
    info_nce,
)

N_ITEMS = 12


def make_din(**settings):
    torch.manual_seed(0)
    return DIN(FieldEmbedding(N_ITEMS, 4), None, DINSettings((5,), (6,), **settings))


def make_history(seed, lengths=(4, 2, 0, 3, 4), width=4):
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(1, N_ITEMS, (len(lengths), width), generator=generator)
    labels = torch.randint(0, 2, items.shape, generator=generator)
    mask = torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
    return History(items * mask, mask, labels * mask)


def make_batch(users=(1, 2, 3, 2, 5)):
    return TrainingBatch(
        make_history(1),
        torch.tensor([3, 4, 5, 6, 7]),
        torch.tensor(users),
        torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]),
        (make_history(2, (3, 2, 0, 1, 4)), make_history(3, (2, 1, 0, 3, 4))),
        (torch.full((5,), 0.5), torch.full((5,), 0.5)),
    )


def loop_info_nce(first, second, groups, temperature):
    """One anchor at a time."""
    n, total = len(first), 0.0
    views = [*first.double(), *second.double()]

    def score(i, j):
        norms = views[i].norm() * views[j].norm()
        return ((views[i] @ views[j]) / norms / temperature).item()

    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        positive = math.exp(score(i, partner))
        negatives = sum(
            math.exp(score(i, j)) for j in range(2 * n) if groups[j % n] != groups[i % n]
        )
        total -= math.log(positive / (positive + negatives))
    return total / (2 * n)


def test_info_nce_by_hand():
    """Cosines: 0 within views and 1 to the partner for the first, orthogonal second sample."""
    first = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    # Each of the four anchors: e^(1/0.5) against two negatives of cosine 0.
    expected = math.log((math.exp(2) + 2) / math.exp(2))
    found = info_nce(first, second, torch.tensor([0, 1]), 0.5)
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4, 5], [0, 1, 0, 2, 1, 0]])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_info_nce_equals_the_loop(groups, temperature):
    torch.manual_seed(1)
    first, second = torch.randn(6, 3).double(), torch.randn(6, 3).double()
    found = info_nce(first, second, torch.tensor(groups), temperature)
    assert found.item() == pytest.approx(loop_info_nce(first, second, groups, temperature))


def test_info_nce_gradient():
    torch.manual_seed(2)
    views = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    groups = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, groups, 0.4), views)


@pytest.mark.parametrize("cosines", [1, 12, 30, 144])
def test_blocks_change_neither_loss_nor_gradient(monkeypatch, cosines):
    torch.manual_seed(5)
    groups = torch.tensor([0, 1, 0, 2, 1, 3])
    views = [torch.randn(6, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    whole = info_nce(*views, groups, 0.2)
    expected = torch.autograd.grad(whole, views)
    monkeypatch.setattr("recbole_mars.ctr.contrastive._BLOCK", {"cpu": cosines})
    loss = info_nce(*views, groups, 0.2)
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(torch.autograd.grad(loss, views), expected)


def test_info_nce_of_a_tiny_temperature_is_finite():
    first, second = torch.eye(3, requires_grad=True), -torch.eye(3)
    loss = info_nce(first, second, torch.tensor([0, 1, 2]), 1e-3)
    loss.backward()
    # All partners have cosine -1, four others 0: e^-1000 against 4.
    assert loss.item() == pytest.approx(1000 + math.log(4))
    assert first.grad.isfinite().all()


def test_info_nce_does_not_care_for_order_or_length():
    torch.manual_seed(3)
    first, second, groups = torch.randn(5, 3), torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 3])
    loss = info_nce(first, second, groups, 0.3)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(info_nce(first[order], second[order], groups[order], 0.3), loss)
    torch.testing.assert_close(info_nce(second, first, groups, 0.3), loss)
    torch.testing.assert_close(info_nce(first * 7, second, groups, 0.3), loss)


def test_rows_of_one_group_are_no_negatives():
    torch.manual_seed(4)
    first = torch.randn(3, 2, requires_grad=True)
    second = torch.randn(3, 2)
    loss = info_nce(first, second, torch.tensor([4, 4, 4]), 0.5)
    loss.backward()
    assert loss.item() == 0
    assert not first.grad.any()
    assert info_nce(first, second, torch.tensor([4, 4, 5]), 0.5).item() > 0.1


def test_info_nce_of_nobody_is_zero():
    nothing = torch.zeros(0, 3, requires_grad=True)
    loss = info_nce(nothing, nothing, torch.zeros(0, dtype=torch.long), 1.0)
    assert loss.item() == 0
    loss.backward()


def test_a_zero_vector_has_a_finite_gradient():
    first = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    info_nce(first, torch.eye(2), torch.tensor([0, 1]), 0.5).backward()
    assert first.grad.isfinite().all()


@pytest.mark.parametrize("representation", ["pooled", "interest"])
def test_objective_is_info_nce_of_the_representations(representation):
    din, batch = make_din(history_labels=True).double(), make_batch()
    interest, target = din.interest(batch.history, batch.target_item)
    objective = ContrastiveObjective(ContrastiveSettings(0.3, 0.5, representation))
    if representation == "pooled":
        vectors = []
        for view in batch.views:
            rows = []
            for items, mask, labels in zip(view.items, view.mask, view.labels):
                read = din.items(items[mask]) + din.label_embedding(labels[mask])
                rows.append(read.sum(0) / max(1, len(read)))
            vectors.append(torch.stack(rows))
    else:
        vectors = [din.interest(view, batch.target_item)[0] for view in batch.views]
    kept = [0, 1, 3, 4]  # sample 2 has no behaviour
    first, second = (view[kept] for view in vectors)
    expected = 0.3 * loop_info_nce(first.detach(), second.detach(), [1, 2, 2, 5], 0.5)
    assert objective(din, batch, interest, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("representation", ["pooled", "interest"])
def test_what_the_objective_trains(representation):
    din, batch = make_din(history_labels=True), make_batch()
    objective = ContrastiveObjective(ContrastiveSettings(representation=representation))
    objective(din, batch, *din.interest(batch.history, batch.target_item)).backward()
    moved = {name.split(".")[0] for name, p in din.named_parameters() if p.grad is not None}
    attention = {"attention"} if representation == "interest" else set()
    assert moved == {"items", "label_embedding"} | attention


def test_the_pooled_loss_does_not_see_the_target():
    din, batch = make_din(history_labels=True), make_batch()
    other = batch._replace(target_item=batch.target_item.flip(0))
    losses = []
    for representation in ("pooled", "interest"):
        objective = ContrastiveObjective(ContrastiveSettings(representation=representation))
        losses.append([objective(din, b, torch.zeros(5, 4), None).item() for b in (batch, other)])
    assert losses[0][0] == losses[0][1]
    assert losses[1][0] != losses[1][1]


@pytest.mark.parametrize("representation", ["pooled", "interest"])
def test_padding_never_moves_the_loss(representation):
    din, batch = make_din(history_labels=True), make_batch()
    objective = ContrastiveObjective(ContrastiveSettings(representation=representation))

    def longer(view):
        items, labels = (nn.functional.pad(x, (0, 3), value=1) for x in (view.items, view.labels))
        mask = nn.functional.pad(view.mask, (0, 3))
        return History(torch.where(mask, items, 5), mask, labels)

    padded = batch._replace(views=tuple(longer(view) for view in batch.views))
    interest, target = din.interest(batch.history, batch.target_item)
    torch.testing.assert_close(
        objective(din, padded, interest, target), objective(din, batch, interest, target)
    )


def test_weight_zero_is_nothing():
    din, batch = make_din(history_labels=True), make_batch()
    loss = ContrastiveObjective(ContrastiveSettings(0.0))(din, batch, torch.zeros(5, 4), None)
    assert loss.item() == 0
    assert not loss.requires_grad


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="weight must be >= 0, got -1"):
        ContrastiveSettings(weight=-1)
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        ContrastiveSettings(temperature=0)
    with pytest.raises(ValueError, match="representation must be one of pooled, interest"):
        ContrastiveSettings(representation="mean")
