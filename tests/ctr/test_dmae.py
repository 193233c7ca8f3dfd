"""DMAE against loops that follow the printed equations, a behaviour at a time, in float64."""

import math

import numpy as np
import pytest
import torch
from few_items import N_ITEMS, batch, modality

from recbole_mars.ctr import DINSettings, FieldEmbedding, History
from recbole_mars.ctr.dmae import DMAE, DMAESettings
from recbole_mars.ctr.interest_decoding import InterestDecoder, interest_distribution
from recbole_mars.ctr.interest_encoding import InterestEncoder
from recbole_mars.ctr.interest_fusion import CrossAttention, WindowAttention
from recbole_mars.ctr.similarities import ItemSimilarities, Modality, Similarities


def similarities(values, sample_of, size, case=None):
    sample_of = torch.tensor(sample_of)
    counts = torch.bincount(sample_of, minlength=size)
    place = torch.cat([torch.arange(int(n)) for n in counts])
    age = counts[sample_of] - 1 - place
    case = torch.zeros_like(sample_of) if case is None else torch.tensor(case)
    return Similarities(torch.tensor(values, dtype=torch.float64), sample_of, age, case, size)


def make(modalities=None, history_labels=True, **settings):
    torch.manual_seed(0)
    found = modalities or [modality(), modality("image", 4, missing=(3, 4), seed=1)]
    own = DMAESettings(**{"width": 4, "buckets": 6, "window": 4, "ages": 5, **settings})
    items = FieldEmbedding(N_ITEMS, 4)
    model = DMAE(items, None, found, DINSettings(history_labels=history_labels), own)
    with torch.no_grad():  # nothing may hide behind a zero
        for part in model.interests.values():
            part.encoder.cases.weight.normal_()
    return model


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("missing", [(), (3, 4, 5)])
def test_similarities_by_hand(monkeypatch, table, missing):
    monkeypatch.setattr("recbole_mars.ctr.similarities._TABLE_BYTES", 1 << 20 if table else 0)
    items = modality(missing=missing)
    history, target = batch()
    found = ItemSimilarities(items)(history, target)
    expected = []
    for b in range(len(target)):
        real = int(history.mask[b].sum())
        for j in range(real):
            one, other = int(history.items[b, j]), int(target[b])
            if not (items.present[one] and items.present[other]):
                continue
            u, v = items.vectors[one], items.vectors[other]
            cosine = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
            case = int(history.labels[b, j]) + 2 * (j < int(history.borrowed[b]))
            expected.append(((cosine + 1) / 2, b, real - 1 - j, case))
    values, *others = zip(*expected)
    np.testing.assert_allclose(found.values, values, atol=5e-4)
    for name, column in zip(("sample_of", "age", "case"), others):
        assert getattr(found, name).tolist() == list(column)
    assert found.counts().sum() == len(values)


def test_quantiles_spread_evenly_and_keep_the_order():
    vectors = np.random.default_rng(0).normal(2, 1, (200, 8)).astype(np.float32)
    items = Modality("text", vectors, np.arange(200) > 0)
    printed, spread = ItemSimilarities(items), ItemSimilarities(items, "quantile")
    first, second = torch.randint(1, 200, (2, 5000), generator=torch.Generator().manual_seed(0))
    first, second = first[first != second], second[first != second]
    before, after = (part._compute(first, second) for part in (printed, spread))
    assert before.min() > 0.5  # of a space in which all items are alike
    assert torch.histc(after, 4, 0, 1).numpy() == pytest.approx(len(after) / 4, rel=0.1)
    order = np.lexsort((after, before))  # similarities are rounded: some are even
    assert (np.diff(after.numpy()[order]) >= 0).all()


def test_a_masked_behaviour_is_in_no_modality():
    history, target = batch(lowest=1)
    history.items[0, 2] = 0
    found = ItemSimilarities(modality())(history, target)
    assert found.counts().tolist() == [6, 0, 3, 1, 6]
    assert found.age[:6].tolist() == [6, 5, 3, 2, 1, 0]  # the others keep their age


def test_an_item_is_alike_itself_however_many_items_there_are(monkeypatch):
    items = Modality("text", np.random.default_rng(0).normal(size=(500, 24)), np.arange(500) > 0)
    same = torch.arange(1, 500)
    for limit in (1 << 30, 0):
        monkeypatch.setattr("recbole_mars.ctr.similarities._TABLE_BYTES", limit)
        assert (ItemSimilarities(items)._of_pairs(same, same) == 1).all()


def test_similarities_under_autocast():
    history, target = batch()
    plain, half = ItemSimilarities(modality()), ItemSimilarities(modality())
    with torch.autocast("cpu", torch.bfloat16):
        found = half(history, target).values
    torch.testing.assert_close(found, plain(history, target).values)


def test_similarities_are_no_weights():
    model = ItemSimilarities(modality())
    model(*batch())
    assert not model.state_dict()
    assert not list(model.parameters())


@pytest.mark.parametrize("blend", [True, False])
def test_encoder_follows_equations_1_to_4(blend):
    torch.manual_seed(0)
    d, n_buckets, base = 4, 7, 10.0
    encoder = InterestEncoder(d, n_buckets, ages=3, base=base, blend=blend).double()
    with torch.no_grad():
        encoder.cases.weight.normal_()
        if blend:
            encoder.scale.fill_(1.7)
            encoder.shift.fill_(-0.2)
    found = similarities([0.0, 0.31, 0.99, 1.0, 0.5], [0, 0, 0, 0, 1], 2, [0, 1, 2, 3, 1])
    expected = []
    for r, age, case in zip(found.values, found.age, found.case):
        vector = encoder.buckets.weight[math.floor(float(r) * (n_buckets - 1))]
        if blend:
            discrete = (1.7 * r - 0.2) * vector
            powers = [base ** (2 * k / d) for k in range(d // 2)]
            waves = [math.sin(float(r) / p) for p in powers]
            waves += [math.cos(float(r) / p) for p in powers]
            vector = torch.cat([discrete, torch.tensor(waves, dtype=torch.float64)])
        hidden = encoder.joined(vector).relu()
        time = encoder.ages.weight[min(int(age), 2)] + encoder.cases.weight[case]
        expected.append(encoder.timed(torch.cat([hidden, time])).relu())
    torch.testing.assert_close(encoder(found), torch.stack(expected))


@pytest.mark.parametrize("reach", [0, 1, 3, 40])
def test_window_attention_equals_a_loop(reach):
    torch.manual_seed(0)
    d, lengths = 4, [1, 20, 0, 37, 2]
    attention = WindowAttention(d, reach).double()
    sample_of = torch.arange(5).repeat_interleave(torch.tensor(lengths))
    x = torch.randn(len(sample_of), d, dtype=torch.float64)
    q, k, v = (x @ w.T for w in attention.projections.weight.split(d))
    expected = []
    for j in range(len(x)):
        seen = [i for i in range(len(x)) if abs(i - j) <= reach and sample_of[i] == sample_of[j]]
        weights = (k[seen] @ q[j] / math.sqrt(d)).softmax(0)
        expected.append(weights @ v[seen])
    torch.testing.assert_close(attention(x, sample_of), torch.stack(expected))


def test_cross_attention_equals_equation_8():
    torch.manual_seed(0)
    d = 3
    attention = CrossAttention(d).double()
    sample_of = torch.tensor([0, 0, 2, 2, 2])
    r, context = torch.randn(5, d).double(), torch.randn(3, d).double()
    found = attention(context, r, sample_of)
    for b in (0, 2):
        mine = r[sample_of == b]
        scores = attention.query(context[b]) @ attention.key(mine).T / math.sqrt(d)
        torch.testing.assert_close(found[b], scores.softmax(0) @ attention.value(mine))
    assert not found[1].any()


def test_distribution_by_hand():
    """l = 2 stretches, n = 4 levels: [0, 1/4], (1/4, 1/2], (1/2, 3/4], (3/4, 1]."""
    found = similarities([0.0, 0.25, 0.26, 0.5, 1.0, 0.75], [0, 0, 0, 0, 0, 2], 3)
    cells = interest_distribution(found, 2, 4).view(3, 2, 4)
    # Five behaviours: place · 2 // 5 puts three into the older stretch.
    assert (cells[0] * 5).tolist() == [[2, 1, 0, 0], [0, 1, 0, 1]]
    assert not cells[1].any()
    assert cells[2].tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_decoder_is_the_divergence(output):
    torch.manual_seed(0)
    decoder = InterestDecoder(3, 2, 2, mask=0.0, output=output).double()
    found = similarities([0.1, 0.9, 0.8, 0.2], [0, 0, 0, 2], 3)
    r = torch.randn(4, 3, dtype=torch.float64)
    truth = interest_distribution(found, 2, 2)
    expected = 0.0
    for b, mine in ((0, r[:3]), (2, r[3:])):
        logits = decoder.layers(mine.mean(0))
        q = logits.softmax(0) if output == "softmax" else logits.sigmoid()
        expected += sum(p * (p / x).log() for p, x in zip(truth[b], q) if p > 0) / 2
    torch.testing.assert_close(decoder(r, found), expected)


def test_a_mask_leaves_behaviours_out_in_the_mean_only():
    torch.manual_seed(0)
    decoder = InterestDecoder(3, 2, 2, mask=0.5)
    found = similarities([0.1] * 40, [0] * 40, 1)
    r = torch.randn(40, 3)
    losses = {round(decoder(r, found).item(), 6) for _ in range(5)}
    assert len(losses) == 5
    torch.manual_seed(1)
    kept = torch.rand(40) >= 0.5
    torch.manual_seed(1)
    log_q = decoder.layers(r[kept].mean(0)).log_softmax(0)
    truth = interest_distribution(found, 2, 2)[0].float()  # of all 40
    expected = (torch.xlogy(truth, truth) - truth * log_q).sum()
    torch.testing.assert_close(decoder(r, found), expected)


def several(count):
    return [modality(str(i), 4 + i, missing=(3 + i,), seed=i) for i in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_of_dmae_equals_a_loop(count):
    """Sample by sample, behaviour by behaviour, from the parts that are tested above."""
    model = make(several(count)).double().eval()
    history, target = batch()
    found, loss = model.multimodal(history, target)  # who borrowed is not marked
    assert loss is None
    for b in range(len(target)):
        only = History(
            history.items[b : b + 1], history.mask[b : b + 1], history.labels[b : b + 1], None
        )
        means, behaviours, fused = [], [], []
        for part in model.interests.values():
            s = part.similarities(only, target[b : b + 1])
            r = part.window(part.encoder(s), s.sample_of)
            means.append(r.mean(0) if len(r) else torch.zeros(4).double())
            behaviours.append(r)
        for place, part in enumerate(model.interests.values()):
            others = [mean for other, mean in enumerate(means) if other != place] or means
            context, r = sum(others) / len(others), behaviours[place]
            scores = (part.cross.query(context) @ part.cross.key(r).T / 2).softmax(0)
            fused.append(scores @ part.cross.value(r) if len(r) else torch.zeros(4).double())
        torch.testing.assert_close(found[b], torch.cat(fused))
    logits = model.din.logits(*model.din.interest(history, target), None, found)
    torch.testing.assert_close(model(history, target).logits, logits)


@pytest.mark.parametrize("count", [1, 3])
def test_the_loss_is_the_weighted_sum_over_modalities(count):
    model = make(several(count), mask=0.0, weight=0.3).train()
    history, target = batch()
    unmarked = history._replace(borrowed=None)
    expected = 0.0
    for part in model.interests.values():
        encoded = part.encode(unmarked, target)
        expected += part.decoder(encoded.vectors, encoded.similarities).item()
    assert model(history, target).loss.item() == pytest.approx(0.3 * expected, rel=1e-5)


def test_the_decoder_is_for_training_only():
    model = make().eval()
    inputs = batch()
    before = model(*inputs)
    assert before.loss is None
    with torch.no_grad():
        for part in model.interests.values():
            for weight in part.decoder.parameters():
                weight.fill_(torch.nan)
    torch.testing.assert_close(model(*inputs).logits, before.logits)
    without = make(use_decoder=False).eval()
    names = set(without.state_dict())
    without.load_state_dict({k: v for k, v in model.state_dict().items() if k in names})
    torch.testing.assert_close(without(*inputs).logits, before.logits)


def test_the_loss_reaches_the_encoders_alone():
    model = make().train()
    model(*batch()).loss.backward()
    for part in model.interests.values():
        assert part.encoder.buckets.weight.grad.any()
        assert part.window.projections.weight.grad.any()
    assert model.din.score.weight.grad is None


@pytest.mark.parametrize("ablation", [{"blend": False}, {"use_time": False}, {"use_fusion": False}])
def test_ablations_train_and_lack_what_they_take_away(ablation):
    model = make(**ablation).train()
    logits, loss = model(*batch())
    (logits.sum() + loss).backward()
    used = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {n for n, _ in model.named_parameters()} - used <= {"din.users"}
    part = model.interests["text"]
    assert (part.encoder.scale is None) == ("blend" in ablation)
    assert (part.window is None) == ("use_fusion" in ablation)
    assert part.decoder.times == (1 if "use_time" in ablation else 10)


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_modalities(count):
    model = make([modality(str(i), seed=i) for i in range(count)]).eval()
    found, _ = model.multimodal(*batch())
    assert found.shape == (5, 4 * count)
    assert not found[1].any()  # an empty history shows no interest


def test_a_target_without_a_modality_has_no_interest_in_it():
    model = make([modality(), modality("image", missing=range(1, N_ITEMS))]).train()
    found, loss = model.multimodal(*batch())
    assert not found[:, 4:].any()
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 5}, "width must be an even number >= 2, got 5"),
        ({"buckets": 1}, "buckets must be >= 2"),
        ({"mask": 1.0}, r"mask must lie in \[0, 1\)"),
        ({"output": "linear"}, "output must be one of softmax, sigmoid"),
        ({"scale": "rank"}, "scale must be one of cosine, quantile"),
        ({"base": 1.0}, "base must be > 1"),
    ],
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(ValueError, match=said):
        make(**settings)


def test_a_window_longer_than_all_histories_costs_no_more():
    history, target = batch()
    whole = make(window=2 * history.items.shape[1], ages=history.items.shape[1])
    longer = make(window=10**9, ages=history.items.shape[1])
    longer.load_state_dict(whole.state_dict())
    assert longer.interests["text"].window.near.numel() < 10_000
    with torch.no_grad():
        found = [model.eval()(history, target).logits for model in (whole, longer)]
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_the_window_is_n_unless_told():
    assert make(levels=8, window=None).interests["text"].window.reach == 4
