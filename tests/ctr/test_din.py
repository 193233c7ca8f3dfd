import pytest
import torch
from torch import nn

from recbole_mars.ctr import (
    DIN,
    Dice,
    DINSettings,
    FieldEmbedding,
    History,
    TargetAttention,
    mlp,
)

N_ITEMS = 30


def item_fields():
    generator = torch.Generator().manual_seed(0)
    return {
        "tokens": {"year": torch.randint(0, 5, (N_ITEMS,), generator=generator)},
        "token_lists": {"genre": torch.randint(0, 4, (N_ITEMS, 3), generator=generator)},
        "numbers": {"price": torch.rand(N_ITEMS, generator=generator)},
    }


def make_din(**settings):
    torch.manual_seed(0)
    users = FieldEmbedding(6, 4, tokens={"age": torch.tensor([0, 1, 2, 1, 3, 2])}, use_id=False)
    return DIN(FieldEmbedding(N_ITEMS, 4, **item_fields()), users, DINSettings(**settings)).eval()


def batch(size=5, length=7):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([length, 0, 3, 1, length - 1])[:size]
    return {
        "history": torch.randint(1, N_ITEMS, (size, length), generator=generator),
        "history_mask": torch.arange(length) < lengths.unsqueeze(1),
        "target_item": torch.randint(1, N_ITEMS, (size,), generator=generator),
        "user": torch.randint(1, 6, (size,), generator=generator),
        "history_labels": torch.randint(0, 2, (size, length), generator=generator),
        "borrowed": torch.tensor([2, 0, 3, 0, 1])[:size],
    }


def concatenated(unit, target, behaviours):
    """Interest of one sample with [q, k, q - k, q·k] built in full, a behaviour at a time."""
    scores = []
    for k in behaviours:
        hidden = torch.cat([target, k, target - k, target * k])
        for layer in unit.layers[:-1]:
            hidden = layer(hidden).sigmoid()
        scores.append(unit.layers[-1](hidden)[0] / len(target) ** 0.5)
    if not scores:
        return torch.zeros_like(target)
    weights = torch.stack(scores)
    weights = weights.softmax(0) if unit.softmax else weights
    return (weights.unsqueeze(1) * behaviours).sum(0)


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("softmax", [False, True])
def test_packed_factored_attention_equals_the_concatenation(softmax, shares):
    torch.manual_seed(0)
    attention = TargetAttention(6, (5, 4), softmax).double()
    attention._shares = shares
    targets, behaviours = torch.randn(3, 6).double(), torch.randn(4, 6).double()
    lengths = torch.tensor([5, 1, 0, 2])
    target_of = torch.tensor([2, 0, 1, 2])
    behaviour_of = torch.tensor([3, 1, 1, 0, 3, 2, 3, 3])  # pairs occur twice, within and across
    expected = torch.stack(
        [
            concatenated(attention, targets[t], behaviours[stretch])
            for t, stretch in zip(target_of, behaviour_of.split(lengths.tolist()))
        ]
    )
    found = attention(targets, behaviours, target_of, behaviour_of, lengths)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shares", [False, True])
def test_attention_gradients(shares):
    torch.manual_seed(0)
    attention = TargetAttention(3, (4, 2), softmax=True).double()
    attention._shares = shares
    places = torch.tensor([1, 0, 1]), torch.tensor([0, 2, 2, 1, 0]), torch.tensor([2, 0, 3])
    inputs = (
        torch.randn(2, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(3, 3, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda q, k: attention(q, k, *places), inputs)


def test_a_large_unit_shares_equal_pairs():
    assert TargetAttention(10, (256, 256, 256))._shares
    assert not TargetAttention(10, (80, 40))._shares


def test_field_embedding_by_hand():
    fields = item_fields()
    embedding = FieldEmbedding(N_ITEMS, 4, **fields)
    assert embedding.width == 16
    item = 7
    genres = [g for g in fields["token_lists"]["genre"][item].tolist() if g]
    genre = sum(embedding.embeddings["genre"].weight[g] for g in genres) / max(1, len(genres))
    expected = torch.cat(
        [
            embedding.id_embedding.weight[item],
            embedding.embeddings["year"].weight[fields["tokens"]["year"][item]],
            torch.zeros(4) + genre,
            fields["numbers"]["price"][item] * embedding.scales["price"],
        ]
    )
    torch.testing.assert_close(embedding(torch.tensor([item]))[0], expected)
    # More ids than the table has rows take the other way through the code.
    many = torch.full((N_ITEMS + 1,), item)
    torch.testing.assert_close(embedding(many)[-1], expected)


def test_columns_stay_out_of_the_checkpoint():
    state = FieldEmbedding(N_ITEMS, 4, **item_fields()).state_dict()
    assert not [name for name in state if name.startswith("column_")]


def test_dice_of_one_sample_uses_the_running_statistics():
    dice = Dice(2).train()
    for _ in range(300):
        dice(torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 8.0]]))
    x = torch.tensor([[2.5, 6.0]])
    torch.testing.assert_close(dice(x), dice.eval()(x))


def test_dice_by_hand():
    dice = Dice(1).eval()
    with torch.no_grad():
        dice.alpha.fill_(0.25)
    x = torch.tensor([[2.0], [-1.0]])
    gate = torch.sigmoid(x)  # running mean 0 and variance 1
    torch.testing.assert_close(dice(x), gate * x + (1 - gate) * 0.25 * x)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("softmax", [False, True])
def test_padding_never_moves_a_logit(labels, softmax):
    model = make_din(
        history_labels=labels, attention_softmax=softmax, mark_borrowed=True, mark_age=True
    )
    inputs = batch()
    logits = model(**inputs)
    longer = {**inputs}
    for name in ("history", "history_labels"):
        longer[name] = nn.functional.pad(inputs[name], (0, 4), value=1)
    longer["history_mask"] = nn.functional.pad(inputs["history_mask"], (0, 4))
    longer["history"] = torch.where(longer["history_mask"], longer["history"], 3)
    torch.testing.assert_close(model(**longer), logits)


def test_batch_equals_single():
    model = make_din(history_labels=True, mark_borrowed=True)
    inputs = batch()
    logits = model(**inputs)
    for i in range(len(logits)):
        alone = {name: value[i : i + 1] for name, value in inputs.items()}
        torch.testing.assert_close(model(**alone)[0], logits[i])


def test_labels_and_marks_reach_the_logit():
    model = make_din(history_labels=True, mark_borrowed=True)
    inputs = batch()
    logits = model(**inputs)
    flipped = model(**{**inputs, "history_labels": 1 - inputs["history_labels"]})
    unmarked = model(**{**inputs, "borrowed": torch.zeros(5, dtype=torch.long)})
    empty = ~inputs["history_mask"].any(1)
    assert (flipped != logits).tolist() == (~empty).tolist()
    assert (unmarked != logits).tolist() == (inputs["borrowed"] > 0).tolist()


def test_behaviours_are_marked_by_age_in_powers_of_two():
    """0 behaviours after it, 1 or 2, 3 to 6, ...: each shares a vector, added to the item's."""
    model, length = make_din(mark_age=True), 300
    mask = torch.arange(length) < torch.tensor([[length], [3]])
    past = History(torch.full((2, length), 7), mask)
    vectors, of = model.behaviours(past)
    ages = torch.cat([torch.arange(length).flip(0), torch.arange(3).flip(0)])
    powers = torch.tensor([min(7, (int(age) + 1).bit_length() - 1) for age in ages])
    expected = model.items(torch.tensor([7])) + model.age_embedding.weight[powers]
    torch.testing.assert_close(vectors[of], expected)


def test_context_reaches_the_logit_as_it_is():
    """In training, too, and whatever else is in the batch."""
    model = make_din(context_width=3)
    inputs = batch()
    context = torch.tensor([[1.0, 2, 3], [1, 5, 3], [1, 2, 9], [4, 2, 3], [0, 0, 0]])
    logits = model(**inputs, context=context)
    moved = model(**inputs, context=context + torch.tensor([[1.0], [0], [0], [2], [0]]))
    assert (moved != logits).tolist() == [True, False, False, True, False]
    alone = {name: value[:1] for name, value in inputs.items()}
    torch.testing.assert_close(model(**alone, context=context[:1]), logits[:1])
    users = model.users(inputs["user"])
    for mode in (True, False):
        read = model.train(mode).user_vectors(inputs["user"], context)
        assert torch.equal(read, torch.cat([users, context], dim=1))
    with pytest.raises(ValueError, match="context must be given"):
        model(**inputs)


def test_every_parameter_learns():
    model = make_din(history_labels=True, mark_borrowed=True).train()
    model(**batch()).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("softmax", [False, True])
def test_the_parts_of_forward_give_its_logits(softmax):
    model = make_din(history_labels=True, attention_softmax=softmax, mark_borrowed=True)
    inputs = batch()
    history = History(
        *(inputs[f] for f in ("history", "history_mask", "history_labels", "borrowed"))
    )
    interest, target = model.interest(history, inputs["target_item"])
    assert torch.equal(model.logits(interest, target, inputs["user"]), model(**inputs))
    torch.testing.assert_close(target, model.items(inputs["target_item"]))
    behaviours = model.behaviours(history)
    lengths = history.mask.sum(1)
    again, same_target = model.attend(inputs["target_item"], *behaviours, lengths)
    torch.testing.assert_close(again, interest)
    torch.testing.assert_close(same_target, target)


def test_pooled_is_the_mean_of_the_behaviours():
    model, inputs = make_din(history_labels=True, mark_borrowed=True), batch()
    history = History(
        *(inputs[f] for f in ("history", "history_mask", "history_labels", "borrowed"))
    )
    pooled = model.pooled(history)
    for i, length in enumerate(history.mask.sum(1).tolist()):
        labels = model.label_embedding(history.labels[i, :length])
        origin = (torch.arange(length) < history.borrowed[i]).long()
        read = model.items(history.items[i, :length]) + labels + model.borrowed_embedding(origin)
        torch.testing.assert_close(pooled[i], read.sum(0) / max(1, length))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="history_labels must be given"):
        make_din(history_labels=True)(**{**batch(), "history_labels": None})
    with pytest.raises(ValueError, match="borrowed must be given"):
        make_din(mark_borrowed=True)(**{**batch(), "borrowed": None})
    with pytest.raises(ValueError, match="user must be given"):
        make_din()(**{**batch(), "user": None})
    with pytest.raises(ValueError, match="activation"):
        mlp([2, 2], "swish")
    with pytest.raises(ValueError, match="attention_hidden"):
        TargetAttention(4, ())
    with pytest.raises(ValueError, match="dnn_hidden"):
        DINSettings(dnn_hidden=())
    with pytest.raises(ValueError, match="dropout"):
        DINSettings(dropout=1.0)
    with pytest.raises(ValueError, match="precision must be"):
        DINSettings(precision="float16")
    with pytest.raises(ValueError, match="year must have"):
        FieldEmbedding(N_ITEMS + 1, 4, **item_fields())
    with pytest.raises(ValueError, match="at least one field"):
        FieldEmbedding(3, 4, use_id=False)
