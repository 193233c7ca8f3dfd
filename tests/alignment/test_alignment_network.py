from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_mars.alignment import AlignmentNetwork, AlignmentSettings, stein_loss

Make = Callable[..., AlignmentNetwork]

ITEMS = torch.tensor([[5, 2, 7, 5, 3, 1], [9, 4, 5, 0, 0, 0], [6, 0, 0, 0, 0, 0]])
MASK = ITEMS > 0
LABELS = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]).float()

VARIANTS = [
    {},
    {"history_labels": True},
    {"residual": False},
    {"use_text": False},
    {"use_image": False, "history_labels": True},
]


def reference(network: AlignmentNetwork, items: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (L,) and emb_item (L, D) of one sequence, position by position (eq. 3-12)."""

    def attention(module: Any, query: Tensor, keys: list[Tensor]) -> Tensor:
        if not keys:
            return torch.zeros(module.value.out_features, dtype=query.dtype)
        q = module.query(query)
        scores = torch.stack([module.key(key) @ q for key in keys]) / len(q) ** 0.5
        values = torch.stack([module.value(key) for key in keys])
        return torch.softmax(scores, dim=0) @ values

    image, text = (network.modalities[name](items) for name in ("image", "text"))
    behaviours = list(network.id_embedding(items) + network.label_embedding(labels.long()))
    full = network.settings.attention == "full"
    logits, embeddings = [], []
    for t in range(len(items)):
        seen = len(items) if full else t + 1
        attended = attention(network.content_fusion.attention, image[t], list(text[:seen]))
        fused = network.content_fusion.norm(image[t] + attended)
        ids = [
            attention(
                network.id_attention, behaviours[s], behaviours[: len(items) if full else s + 1]
            )
            for s in range(len(items) if full else t)
        ]
        embedding = network.fusion.norm(fused + attention(network.fusion.attention, fused, ids))
        embeddings.append(embedding)
        logits.append(network.ffn(embedding)[0])
    return torch.stack(logits), torch.stack(embeddings)


@pytest.mark.parametrize("settings", VARIANTS)
def test_what_is_hidden_is_a_target_only(make_network: Make, settings: dict[str, Any]) -> None:
    """Each position is what it is behind the behaviours before it, which are not hidden."""
    network = make_network(**settings).double().eval()
    hidden = torch.tensor([[1, 0, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    output = network(ITEMS, MASK, LABELS, hidden)
    for b, t in MASK.nonzero().tolist():
        seen = ~hidden[b] & (torch.arange(6) < t)
        seen[t] = True
        alone = network(*(each[b : b + 1, seen] for each in (ITEMS, MASK, LABELS)))
        for found, expected in zip(output, alone):
            torch.testing.assert_close(found[b, t], expected[0, -1])


def test_forward_equals_a_loop_over_positions(make_network: Make) -> None:
    network = make_network(history_labels=True).double()
    output = network(ITEMS, MASK, LABELS)
    for b, length in enumerate(MASK.sum(1).tolist()):
        logits, embeddings = reference(network, ITEMS[b, :length], LABELS[b, :length])
        torch.testing.assert_close(output.logits[b, :length], logits)
        torch.testing.assert_close(output.item_embeddings[b, :length], embeddings)
        for t in range(length):
            mean = embeddings[:t].mean(0) if t else torch.zeros(6, dtype=torch.float64)
            torch.testing.assert_close(output.user_embeddings[b, t], mean)


def test_full_attention_equals_the_loop_that_sees_all(make_network: Make) -> None:
    network = make_network(attention="full").double()
    network.label_embedding = torch.nn.Embedding.from_pretrained(torch.zeros(2, 4).double())
    logits, _ = reference(network, ITEMS[0], LABELS[0])
    network.label_embedding = None
    torch.testing.assert_close(network(ITEMS, MASK, None).logits[0], logits)


@pytest.mark.parametrize("settings", VARIANTS)
def test_a_prefix_is_read_as_in_the_whole(make_network: Make, settings: dict[str, Any]) -> None:
    network = make_network(**settings).double()
    whole = network(ITEMS, MASK, LABELS)
    for length in range(1, 6):
        prefix = network(ITEMS[:, :length], MASK[:, :length], LABELS[:, :length])
        for part, full in zip(prefix, whole):
            real = MASK[:, :length]
            torch.testing.assert_close(part[real], full[:, :length][real])


@pytest.mark.parametrize("settings", VARIANTS)
def test_the_future_changes_nothing_before_it(make_network: Make, settings: dict[str, Any]) -> None:
    network = make_network(**settings).double()
    before = network(ITEMS, MASK, LABELS)
    items, labels = ITEMS.clone(), LABELS.clone()
    items[0, 3], labels[0, 3] = 8, 0
    after = network(items, MASK, labels)
    for was, now in zip(before, after):
        torch.testing.assert_close(was[0, :3], now[0, :3])
    torch.testing.assert_close(before.user_embeddings[0, 3], after.user_embeddings[0, 3])
    assert not torch.allclose(before.logits[0, 4:], after.logits[0, 4:])


def test_a_label_reaches_later_positions_only(make_network: Make) -> None:
    network = make_network(history_labels=True).double()
    before = network(ITEMS, MASK, LABELS)
    labels = LABELS.clone()
    labels[0, 2] = 1 - labels[0, 2]
    after = network(ITEMS, MASK, labels)
    for was, now in zip(before, after):
        torch.testing.assert_close(was[0, :3], now[0, :3])
    assert not torch.isclose(before.logits[0, 3], after.logits[0, 3])


def test_labels_are_not_read_without_history_labels(make_network: Make) -> None:
    network = make_network()
    assert torch.equal(network(ITEMS, MASK, LABELS).logits, network(ITEMS, MASK, None).logits)


def test_full_attention_sees_the_future(make_network: Make) -> None:
    network = make_network(attention="full").double()
    items = ITEMS.clone()
    items[0, 5] = 8
    before, after = network(ITEMS, MASK, None), network(items, MASK, None)
    assert not torch.isclose(before.logits[0, 0], after.logits[0, 0])


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_padding_and_the_rest_of_the_batch_move_nothing(make_network: Make, attention: str) -> None:
    network = make_network(attention=attention).double()
    batch = network(ITEMS, MASK, None)
    spoiled = network(ITEMS.masked_fill(~MASK, 11), MASK, None)
    for b, length in enumerate(MASK.sum(1).tolist()):
        alone = network(ITEMS[b : b + 1, :length], MASK[b : b + 1, :length], None)
        for single, many, other in zip(alone, batch, spoiled):
            torch.testing.assert_close(single[0], many[b, :length])
            torch.testing.assert_close(many[b, :length], other[b, :length])


def test_the_first_behaviour_has_an_embedding_only_by_the_residual(make_network: Make) -> None:
    assert make_network().embed(ITEMS, MASK, None)[0, 0].norm() > 0
    assert make_network(residual=False).embed(ITEMS, MASK, None)[0, 0].norm() == 0


@pytest.mark.parametrize(("off", "left"), [("use_text", "image"), ("use_image", "text")])
def test_one_modality_alone_is_normalised(make_network: Make, off: str, left: str) -> None:
    network = make_network(**{off: False})
    embedded = network.embed(ITEMS, MASK, None)
    fused = F.layer_norm(network.modalities[left](ITEMS[0, :1]), (6,))
    torch.testing.assert_close(embedded[0, 0], F.layer_norm(fused[0], (6,)))
    assert network.stein(ITEMS).item() == 0


def test_features_of_a_modality_that_is_off_may_be_missing() -> None:
    features, present = torch.randn(4, 3), torch.ones(4, dtype=torch.bool)
    AlignmentNetwork(AlignmentSettings(use_image=False), 4, features, present, None, None)
    with pytest.raises(ValueError, match="use_image needs image and image_present"):
        AlignmentNetwork(AlignmentSettings(), 4, features, present, None, None)
    with pytest.raises(ValueError, match="use_text needs text and text_present"):
        AlignmentNetwork(AlignmentSettings(), 4, features, None, features, present)


def test_stein_takes_distinct_items_with_both_modalities(make_network: Make) -> None:
    network = make_network().double()
    paired = torch.tensor([1, 5, 6, 7, 9])  # of those in the batch 2, 3 and 4 lack something
    expected = stein_loss(
        network.modalities["text"](paired), network.modalities["image"](paired), 0.01
    )
    torch.testing.assert_close(network.stein(ITEMS), expected)
    torch.testing.assert_close(network.stein(ITEMS.flatten()), expected)


def test_stein_is_zero_where_it_is_off_or_has_no_pairs(make_network: Make) -> None:
    assert make_network(use_stein=False).stein(ITEMS).item() == 0
    assert make_network().stein(torch.tensor([[1, 2, 3, 4, 0, 1]])).item() == 0


def test_stein_draws_items_where_there_are_too_many(make_network: Make) -> None:
    network = make_network(stein_items=3).double()
    with torch.random.fork_rng(devices=[]):
        found = {round(network.stein(ITEMS).item(), 9) for _ in range(20)}
    triples = torch.combinations(torch.tensor([1, 5, 6, 7, 9]), 3)
    text, image = network.modalities["text"], network.modalities["image"]
    possible = {round(stein_loss(text(t), image(t), 0.01).item(), 9) for t in triples}
    assert len(found) > 1
    assert found <= possible


def test_loss_is_the_cross_entropy_of_the_targets_and_the_stein_loss(make_network: Make) -> None:
    network = make_network(stein_weight=0.7, entropy_weight=0.2).double()
    targets = MASK.clone()
    targets[0, :2] = False
    total, parts = network.loss(ITEMS, MASK, LABELS, targets)
    logits = network(ITEMS, MASK, LABELS).logits
    chance = torch.sigmoid(logits[targets])
    truth = LABELS[targets]
    ctr = -(truth * chance.log() + (1 - truth) * (1 - chance).log()).mean()
    torch.testing.assert_close(parts["ctr"], ctr.detach())
    torch.testing.assert_close(total, ctr + 0.7 * network.stein(ITEMS))
    torch.testing.assert_close(
        total.detach(), ctr.detach() + 0.7 * (-parts["align"] - 0.2 * parts["entropy"])
    )
    assert not any(part.requires_grad for part in parts.values())


def test_padding_does_not_move_the_loss(make_network: Make) -> None:
    network = make_network().double()
    spoiled = ITEMS.masked_fill(~MASK, 11)
    plain, other = (network.loss(items, MASK, LABELS, MASK)[0] for items in (ITEMS, spoiled))
    torch.testing.assert_close(plain, other)


def test_every_parameter_learns(make_network: Make) -> None:
    network = make_network(history_labels=True)
    network.loss(ITEMS, MASK, LABELS, MASK)[0].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert torch.isfinite(parameter.grad).all(), name
    assert network.id_embedding.weight.grad[0].abs().sum() == 0


def test_state_holds_no_features(make_network: Make) -> None:
    state = make_network().state_dict()
    assert not any("features" in name or "present" in name for name in state)
    assert [name for name, value in state.items() if len(value) == 13] == ["id_embedding.weight"]


@pytest.mark.parametrize("settings", [{}, {"attention": "full"}])
def test_padding_on_the_left_is_refused(make_network: Make, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="mask must have its padding on the right"):
        make_network(**settings)(ITEMS.flip(1), MASK.flip(1), None)


def test_half_precision_moves_the_loss_by_its_rounding_only(make_network: Make) -> None:
    network = make_network(history_labels=True)
    exact, _ = network.loss(ITEMS, MASK, LABELS, MASK)
    with torch.autocast("cpu", torch.bfloat16):
        coarse, parts = network.loss(ITEMS, MASK, LABELS, MASK)
    assert coarse != exact
    torch.testing.assert_close(coarse, exact, rtol=0.02, atol=0)
    assert {part.dtype for part in (coarse, *parts.values())} == {torch.float32}
    coarse.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_history_labels_need_labels(make_network: Make) -> None:
    with pytest.raises(ValueError, match=r"history_labels needs labels \(B, L\), got None"):
        make_network(history_labels=True)(ITEMS, MASK, None)
