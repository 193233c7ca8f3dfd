"""SimTier against a count, a behaviour at a time."""

import numpy as np
import pytest
import torch
from few_items import N_ITEMS, batch, modality

from recbole_mars.ctr import (
    DIN,
    DINSettings,
    FieldEmbedding,
    History,
    Modality,
    SimTier,
    SimTierSettings,
)

MODALITIES = [modality(), modality("image", 4, missing=(3, 4), seed=1)]


def long_batch():
    return batch(lengths=(30, 0, 3, 1, 26), length=30, borrowed=(12, 0, 1, 0, 5))


def make(modalities=MODALITIES, settings=None, **own):
    torch.manual_seed(0)
    items = FieldEmbedding(N_ITEMS, 4)
    return SimTier(
        items, None, modalities, settings or DINSettings(), SimTierSettings(**{"tiers": 6, **own})
    )


def counted(history, target, labels, marks, tiers):
    kinds = (1 + labels) * (1 + marks)
    expected = np.zeros((len(target), len(MODALITIES), kinds, tiers))
    for b, m in np.ndindex(len(target), len(MODALITIES)):
        vectors, present = MODALITIES[m].vectors, MODALITIES[m].present
        for j in range(int(history.mask[b].sum())):
            one, other = int(history.items[b, j]), int(target[b])
            if not (present[one] and present[other]):
                continue
            u, v = vectors[one].astype(float), vectors[other].astype(float)
            similarity = (u @ v / np.linalg.norm(u) / np.linalg.norm(v) + 1) / 2
            # Kept similarities are rounded to half precision, 1 among them exactly.
            tier = min(max(int(np.ceil(np.float16(similarity) * tiers)), 1), tiers) - 1
            kind = int(history.labels[b, j]) if labels else 0
            kind += (1 + labels) * int(j < int(history.borrowed[b])) if marks else 0
            expected[b, m, kind, tier] += 1
    return expected.reshape(len(target), -1)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("marks", [False, True])
@pytest.mark.parametrize("tiers", [1, 6, 20])
def test_histograms_are_counts(labels, marks, tiers):
    settings = DINSettings(history_labels=labels, mark_borrowed=marks)
    history, target = long_batch()
    found = make(settings=settings, tiers=tiers).histograms(history, target)
    np.testing.assert_array_equal(found, counted(history, target, labels, marks, tiers))
    assert found[0].any()
    assert not found[1].any()


def test_tiers_by_hand():
    """Cosines of -1, -0.5, 0 and 1 with four tiers, of cosines up to -0.5, 0, 0.5 and 1."""
    angles = [0, 0, 180, 120, 90]
    vectors = np.array([[np.cos(np.radians(a)), np.sin(np.radians(a))] for a in angles])
    model = make([Modality("text", vectors.astype(np.float32), np.arange(5) > 0)], tiers=4)
    history = History(torch.tensor([[2, 3, 4, 1, 1]]), torch.ones(1, 5, dtype=torch.bool))
    assert model.histograms(history, torch.tensor([1])).tolist() == [[2, 1, 0, 2]]


def test_the_final_network_reads_their_logarithm_behind_the_context():
    settings = DINSettings(history_labels=True, context_width=2)
    model = make(settings=settings).eval()
    history, target = long_batch()
    context = torch.randn(len(target), 2)
    tiers = torch.log1p(model.histograms(history, target))
    interest, vectors = model.din.interest(history, target)
    inputs = torch.cat([interest, vectors, interest * vectors, context, tiers], dim=1)
    expected = model.din.score(model.din.dnn(inputs)).squeeze(1)
    found = model(history, target, context=context)
    torch.testing.assert_close(found.logits, expected)
    assert found.loss is None


def test_without_weights_on_the_tiers_it_is_the_din():
    model = make().eval()
    plain = DIN(model.din.items, None, DINSettings()).eval()
    own = model.din.state_dict()
    first = own.pop("dnn.0.weight")
    plain.load_state_dict({**own, "dnn.0.weight": first[:, :12]})
    with torch.no_grad():
        model.din.dnn[0].weight[:, 12:] = 0
    history, target = long_batch()
    torch.testing.assert_close(
        model(history, target).logits, plain(history.items, history.mask, target)
    )


def test_batch_equals_single_and_padding_is_not_read():
    model = make(settings=DINSettings(history_labels=True, mark_borrowed=True)).eval()
    history, target = long_batch()
    together = model(history, target).logits
    for b in range(len(target)):
        n = int(history.mask[b].sum())
        alone = History(*(x[b : b + 1, :n] for x in history[:3]), history.borrowed[b : b + 1])
        torch.testing.assert_close(model(alone, target[b : b + 1]).logits[0], together[b])
    other = torch.where(history.mask, history.items, 5)
    torch.testing.assert_close(model(history._replace(items=other), target).logits, together)


def test_labels_and_marks_that_were_not_asked_for_are_not_read():
    model, (history, target) = make().eval(), long_batch()
    bare = history._replace(labels=None, borrowed=None)
    torch.testing.assert_close(model(history, target).logits, model(bare, target).logits)


def test_training_reaches_every_weight_and_no_feature():
    model = make(settings=DINSettings(history_labels=True)).train()
    model(*long_batch()).logits.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    assert not any("similarities" in name for name in model.state_dict())
    assert make().train()(*batch((3,))).logits.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tiers": 0}, "tiers must be >= 1, got 0"),
        ({"scale": "rank"}, "scale must be one of cosine, quantile, got 'rank'"),
        ({"modalities": []}, "modalities must be one or more, got none"),
    ],
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(ValueError, match=said):
        make(**settings)
