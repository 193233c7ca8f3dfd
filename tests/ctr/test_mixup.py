"""BASRec's mixtures and their losses."""

import math

import pytest
import torch
from torch import nn

from recbole_mars.ctr import (
    DIN,
    DINSettings,
    FieldEmbedding,
    History,
    MixupObjective,
    MixupSettings,
    TrainingBatch,
)
from recbole_mars.ctr.mixup import cross_loss, mix, mixed_interest, reweigh

N_ITEMS = 12
LENGTHS = (4, 2, 0, 3)
TARGETS = torch.tensor([3, 4, 5, 6])
USERS = torch.tensor([1, 2, 3, 1])
LABELS = torch.tensor([0.0, 1.0, 1.0, 0.0])


def make_din(activation="sigmoid", **settings):
    torch.manual_seed(0)
    users = FieldEmbedding(5, 4)
    return DIN(
        FieldEmbedding(N_ITEMS, 4),
        users,
        DINSettings((5,), (6,), activation, history_labels=True, **settings),
    ).double()


def make_history(seed, lengths=LENGTHS):
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(1, N_ITEMS, (len(lengths), max(lengths)), generator=generator)
    labels = torch.randint(0, 2, items.shape, generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return History(items * mask, mask, labels * mask)


def make_batch():
    rates = (torch.tensor([0.2, 0.3, 0.4, 0.5]), torch.tensor([0.5, 0.4, 0.3, 0.2]))
    return TrainingBatch(
        make_history(1), TARGETS, USERS, LABELS, (make_history(2), make_history(3)), rates
    )


def test_mix_by_hand():
    first, second = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -2.0]])
    torch.testing.assert_close(mix(first, second, torch.tensor(0.25)), torch.tensor([[2.5, -1.0]]))
    torch.testing.assert_close(
        mix(first, second, torch.tensor([[1.0, 0.0]])), torch.tensor([[1.0, -2.0]])
    )


def test_either_end_of_the_mixture_is_plain_interest():
    din, history, view = make_din(), make_history(1), make_history(2)
    weights = torch.tensor([1.0, 0.0, 1.0, 0.0]).double()
    found, target = mixed_interest(din, history, view, weights, TARGETS)
    own, plain_target = din.interest(history, TARGETS)
    other, _ = din.interest(view, TARGETS)
    torch.testing.assert_close(found, torch.stack([own[0], other[1], own[2], other[3]]))
    torch.testing.assert_close(target, plain_target)


def test_behaviours_are_mixed_before_the_attention():
    din, history, view = make_din(), make_history(1), make_history(2)
    weights = torch.tensor([0.3, 0.6, 0.5, 0.9]).double()
    found, _ = mixed_interest(din, history, view, weights, TARGETS)
    for i, length in enumerate(LENGTHS):
        read = [
            din.items(part.items[i, :length]) + din.label_embedding(part.labels[i, :length])
            for part in (history, view)
        ]
        mixed = weights[i] * read[0] + (1 - weights[i]) * read[1]
        expected = din.attention(
            din.items(TARGETS[i : i + 1]),
            mixed,
            torch.tensor([0]),
            torch.arange(length),
            torch.tensor([length]),
        )
        torch.testing.assert_close(found[i : i + 1], expected)


def test_a_reordered_view_differs_only_in_a_mixture():
    din, history = make_din(), make_history(1, (4,))
    order = [2, 0, 3, 1]
    view = History(history.items[:, order], history.mask, history.labels[:, order])
    plain, _ = din.interest(history, TARGETS[:1])
    torch.testing.assert_close(din.interest(view, TARGETS[:1])[0], plain)
    mixed, _ = mixed_interest(din, history, view, torch.tensor([0.5]).double(), TARGETS[:1])
    assert (mixed - plain).abs().max() > 1e-6


def test_a_view_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a view must be as long as its history"):
        mixed_interest(
            make_din(), make_history(1), make_history(2, (4, 2, 1, 3)), torch.ones(4), TARGETS
        )


def test_reweigh_by_hand():
    """1 / (w r) is 10, 4, 20: from 4 to 20."""
    found = reweigh(torch.tensor([0.5, 0.5, 0.1]).double(), torch.tensor([0.2, 0.5, 0.5]).double())
    torch.testing.assert_close(found, torch.tensor([6 / 16, 0.0, 1.0]).double())


@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_equal_rows_weigh_one(n, rate):
    weights = torch.full((n,), 0.3, dtype=torch.float64)
    assert reweigh(weights, torch.full_like(weights, rate)).tolist() == [1.0] * n


def test_cross_loss_equals_a_loop():
    din = make_din()
    torch.manual_seed(1)
    interest, target = torch.randn(4, 4).double(), torch.randn(4, 4).double()
    users, partners = torch.randn(4, 4).double(), torch.tensor([2, 3, 1, 0])
    for width in (1, 4):
        weights = torch.rand(4, width).double()
        total = 0.0
        for i, j in enumerate(partners):
            w, mean = weights[i], weights[i].mean()
            u, v = (w * x[i] + (1 - w) * x[j] for x in (interest, target))
            person = mean * users[i] + (1 - mean) * users[j]
            logit = din.score(din.dnn(torch.cat([u, v, u * v, person])[None]))[0, 0]
            label = (mean * LABELS[i] + (1 - mean) * LABELS[j]).item()
            p = torch.sigmoid(logit).item()
            total -= label * math.log(p) + (1 - label) * math.log(1 - p)
        found = cross_loss(din, interest, target, users, LABELS.double(), partners, weights)
        assert found.item() == pytest.approx(total / 4)


def test_either_end_of_the_cross_mixture_is_a_plain_loss():
    din = make_din()
    history, users = make_history(1), din.user_vectors(USERS)
    interest, target = din.interest(history, TARGETS)
    logits, labels = din.logits(interest, target, USERS), LABELS.double()
    partners = torch.tensor([1, 2, 3, 0])
    compute = nn.functional.binary_cross_entropy_with_logits
    for end, expected in (
        (1.0, compute(logits, labels)),
        (0.0, compute(logits[partners], labels[partners])),
    ):
        weights = torch.full((4, 1), end).double()
        found = cross_loss(din, interest, target, users, labels, partners, weights)
        torch.testing.assert_close(found, expected)


def test_losses_add_up_with_their_weights():
    din, batch = make_din(), make_batch()
    plain = din.interest(batch.history, batch.target_item)

    def loss(single, cross):
        torch.manual_seed(5)
        return MixupObjective(MixupSettings(single, cross))(din, batch, *plain).item()

    assert loss(2, 0) == pytest.approx(2 * loss(1, 0))
    assert loss(0, 3) == pytest.approx(3 * loss(0, 1))
    assert loss(1, 0) > 0
    assert loss(0, 1) > 0
    assert loss(0, 0) == 0


def test_single_loss_by_hand(monkeypatch):
    """Both views, each with its own weights and rates."""
    din, batch = make_din(), make_batch()
    drawn = [torch.tensor([0.3, 0.6, 0.5, 0.9]), torch.tensor([0.8, 0.2, 0.1, 0.4])]
    drawn = [weights.double() for weights in drawn]
    expected = 0.0
    for view, rates, weights in zip(batch.views, batch.rates, drawn):
        mixed = mixed_interest(din, batch.history, view, weights, TARGETS)
        logits = din.logits(*mixed, USERS)
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits, LABELS.double(), reduction="none"
        )
        expected += (losses * reweigh(weights, rates.double())).mean().item()
    rest = iter(drawn)
    monkeypatch.setattr(MixupObjective, "_draw", lambda self, *shape: next(rest))
    plain = din.interest(batch.history, batch.target_item)
    found = MixupObjective(MixupSettings(cross_weight=0))(din, batch, *plain)
    assert found.item() == pytest.approx(expected)


def test_draws_follow_beta_and_the_seed():
    objective = MixupObjective(MixupSettings(alpha=0.5))
    torch.manual_seed(0)
    draws = objective._draw(20000, 2)
    torch.manual_seed(0)
    assert torch.equal(objective._draw(20000, 2), draws)
    assert draws.mean().item() == pytest.approx(0.5, abs=0.01)
    assert draws.var().item() == pytest.approx(1 / 8, abs=0.005)  # 1 / (4 (2 alpha + 1))
    assert draws.min() > 0


def test_small_alpha_stays_finite():
    din, batch = make_din(), make_batch()
    plain = din.interest(batch.history, batch.target_item)
    torch.manual_seed(0)
    loss = MixupObjective(MixupSettings(alpha=1e-3))(din, batch, *plain)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in din.parameters() if p.grad is not None)


@pytest.mark.parametrize("reweight", [True, False])
def test_the_order_of_the_batch_moves_nothing_but_draws(reweight, monkeypatch):
    monkeypatch.setattr(
        MixupObjective, "_draw", lambda self, *shape: torch.full(shape, 0.4, dtype=torch.float64)
    )
    din, batch = make_din(), make_batch()
    order = torch.tensor([2, 0, 3, 1])

    def reordered(history):
        return History(*(x[order] for x in history[:3]))

    moved = TrainingBatch(
        reordered(batch.history),
        TARGETS[order],
        USERS[order],
        LABELS[order],
        tuple(reordered(view) for view in batch.views),
        tuple(rates[order] for rates in batch.rates),
    )
    objective = MixupObjective(MixupSettings(cross_weight=0, reweight=reweight))
    losses = [objective(din, b, *din.interest(b.history, b.target_item)) for b in (batch, moved)]
    torch.testing.assert_close(losses[0], losses[1])
    swapped = batch._replace(views=batch.views[::-1], rates=batch.rates[::-1])
    plain = din.interest(batch.history, batch.target_item)
    torch.testing.assert_close(objective(din, swapped, *plain), losses[0])


def test_padding_never_moves_the_loss():
    din, batch = make_din(), make_batch()

    def longer(history):
        mask = nn.functional.pad(history.mask, (0, 3))
        items, labels = (
            nn.functional.pad(x, (0, 3), value=1) for x in (history.items, history.labels)
        )
        return History(torch.where(mask, items, 5), mask, labels)

    padded = batch._replace(
        history=longer(batch.history), views=tuple(longer(view) for view in batch.views)
    )
    losses = []
    for b in (batch, padded):
        torch.manual_seed(3)
        losses.append(
            MixupObjective(MixupSettings())(din, b, *din.interest(b.history, b.target_item))
        )
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("activation", ["dice", "bn_silu"])
def test_mixtures_do_not_reach_the_running_statistics(activation):
    din, batch = make_din(activation).train(), make_batch()
    plain = din.interest(batch.history, batch.target_item)
    din.logits(*plain, batch.user)
    kept = {k: v.clone() for k, v in din.state_dict().items() if "running" in k}
    MixupObjective(MixupSettings())(din, batch, *plain)
    after = din.state_dict()
    assert kept
    assert all(torch.equal(after[name], value) for name, value in kept.items())
    din.logits(*plain, batch.user)
    assert any(not torch.equal(din.state_dict()[name], value) for name, value in kept.items())


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="single_weight must be >= 0, got -1"):
        MixupSettings(single_weight=-1)
    with pytest.raises(ValueError, match="cross_weight must be >= 0"):
        MixupSettings(cross_weight=-0.5)
    with pytest.raises(ValueError, match="alpha must be > 0, got 0"):
        MixupSettings(alpha=0)
