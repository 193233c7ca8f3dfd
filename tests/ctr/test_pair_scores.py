import copy
import pickle

import pytest
import torch
from torch import nn

from recbole_mars.ctr import pair_scores as module
from recbole_mars.ctr.pair_scores import Workspace, pair_scores
from recbole_mars.ctr.weighted_sum import weighted_sum

T, K, D, P = 5, 7, 3, 23


def unit(*hidden):
    torch.manual_seed(0)
    widths = [4 * D, *hidden, 1]
    layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:])).double()
    inputs = {
        "targets": torch.randn(T, D, dtype=torch.double, requires_grad=True),
        "behaviours": torch.randn(K, D, dtype=torch.double, requires_grad=True),
        "target_of": torch.randint(T, (P,)),
        "behaviour_of": torch.randint(K, (P,)),
    }
    return layers, inputs


def plain(targets, behaviours, target_of, behaviour_of, layers):
    q, k = targets[target_of], behaviours[behaviour_of]
    hidden = torch.cat([q, k, q - k, q * k], dim=1)
    for layer in layers[:-1]:
        hidden = layer(hidden).sigmoid()
    return layers[-1](hidden).squeeze(1)


def gradients(function, layers, inputs, weights):
    wanted = [inputs["targets"], inputs["behaviours"], *layers.parameters()]
    return torch.autograd.grad((function(**inputs, layers=layers) * weights).sum(), wanted)


# One piece; pieces that are all kept, some kept, none kept: 23 pairs, widest layer 6.
@pytest.mark.parametrize(
    ("piece", "kept"), [(1 << 20, 1 << 30), (24, 1 << 30), (24, 8 * 10 * 9), (24, 0)]
)
@pytest.mark.parametrize("hidden", [(6, 4), (4, 6, 2), (6,)])
@pytest.mark.parametrize("narrow", [0, 16])
def test_pieces_equal_plain_layers(monkeypatch, piece, kept, hidden, narrow):
    monkeypatch.setattr(module, "_NARROW", narrow)
    monkeypatch.setattr(module, "_MULTIPLE", 4)
    monkeypatch.setitem(module._PIECE, "cpu", piece)
    monkeypatch.setattr(module, "_KEPT", kept)
    layers, inputs = unit(*hidden)
    torch.testing.assert_close(
        pair_scores(**inputs, layers=layers), plain(**inputs, layers=layers), rtol=0, atol=1e-12
    )
    with torch.no_grad():
        torch.testing.assert_close(
            pair_scores(**inputs, layers=layers), plain(**inputs, layers=layers)
        )
    weights = torch.randn(P, dtype=torch.double)
    for mine, theirs in zip(
        gradients(pair_scores, layers, inputs, weights), gradients(plain, layers, inputs, weights)
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("narrow", [0, 16])
def test_gradcheck(monkeypatch, narrow):
    monkeypatch.setattr(module, "_NARROW", narrow)
    layers, inputs = unit(4, 2)
    places = inputs["target_of"], inputs["behaviour_of"]
    parameters = list(layers.parameters())
    assert torch.autograd.gradcheck(
        lambda q, k, *_: pair_scores(q, k, *places, layers),
        (inputs["targets"], inputs["behaviours"], *parameters),
    )


@pytest.mark.parametrize("narrow", [0, 16])
def test_float32_is_within_1e_5_of_float64(monkeypatch, narrow):
    monkeypatch.setattr(module, "_NARROW", narrow)
    torch.manual_seed(1)
    widths = [40, 256, 256, 256, 1]
    layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
    q, k = torch.randn(50, 10), torch.randn(60, 10)
    target_of, behaviour_of = torch.randint(50, (5000,)), torch.randint(60, (5000,))
    found = pair_scores(q, k, target_of, behaviour_of, layers)
    exact = plain(q.double(), k.double(), target_of, behaviour_of, copy.deepcopy(layers).double())
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 1e-5


@pytest.mark.parametrize("narrow", [0, 16])
def test_bfloat16_is_as_near_as_its_eight_bits_allow(monkeypatch, narrow):
    monkeypatch.setattr(module, "_NARROW", narrow)
    torch.manual_seed(1)
    layers, inputs = unit(16, 16)
    layers, inputs = layers.float(), {**inputs}
    for name in ("targets", "behaviours"):
        inputs[name] = inputs[name].detach().float().requires_grad_()
    weights = torch.randn(P)
    exact, slopes = plain(**inputs, layers=layers), gradients(plain, layers, inputs, weights)
    with torch.autocast("cpu", torch.bfloat16):
        found = pair_scores(**inputs, layers=layers)
        coarse = gradients(pair_scores, layers, inputs, weights)
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.02
    for mine, theirs in zip(coarse, slopes):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() <= 0.03 * theirs.norm()


def test_memory_is_handed_on_and_never_shared():
    layers, inputs = unit(6, 4)
    workspace = Workspace()
    weights = torch.ones(P, dtype=torch.double)
    expected = gradients(plain, layers, inputs, weights)
    wanted = [inputs["targets"], inputs["behaviours"], *layers.parameters()]
    # Two forward passes before the first backward pass, and a backward pass done twice.
    first = pair_scores(**inputs, layers=layers, workspace=workspace)
    second = pair_scores(**inputs, layers=layers, workspace=workspace)
    for scores, again in ((first, True), (second, False), (first, False)):
        found = torch.autograd.grad(scores.sum(), wanted, retain_graph=again)
        for mine, theirs in zip(found, expected):
            torch.testing.assert_close(mine, theirs)
    kept = workspace.take(10, weights)
    assert len(kept) >= P * 10
    workspace.give_back(kept)
    assert len(pickle.dumps(workspace)) < 200
    assert workspace.take(10, weights) is kept
    assert copy.deepcopy(workspace)._free is None


def test_scoring_in_inference_mode_between_two_steps():
    layers, inputs = unit(6, 4)
    workspace = Workspace()
    expected = plain(**inputs, layers=layers)
    for mode in (torch.inference_mode, torch.enable_grad, torch.inference_mode, torch.no_grad):
        with mode():
            scores = pair_scores(**inputs, layers=layers, workspace=workspace)
        torch.testing.assert_close(scores.clone(), expected)
        if scores.requires_grad:
            scores.sum().backward()


@pytest.mark.parametrize("n", [1, 255, 256, 257, 600])
def test_no_score_is_padding(n):
    layers, inputs = unit(6, 4)
    for name, most in (("target_of", T), ("behaviour_of", K)):
        inputs[name] = torch.randint(most, (n,))
    torch.testing.assert_close(pair_scores(**inputs, layers=layers), plain(**inputs, layers=layers))


def test_no_pairs():
    layers, inputs = unit(6, 4)
    for name in ("target_of", "behaviour_of"):
        inputs[name] = inputs[name][:0]
    scores = pair_scores(**inputs, layers=layers)
    assert scores.shape == (0,)
    scores.sum().backward()
    assert not inputs["targets"].grad.any()


@pytest.mark.parametrize("piece", [1 << 19, 8])
def test_weighted_sum_equals_a_loop(monkeypatch, piece):
    monkeypatch.setitem(weighted_sum.__globals__["_PIECE"], "cpu", piece)
    _, inputs = unit(4)
    weights = torch.randn(P, dtype=torch.double, requires_grad=True)
    behaviours, behaviour_of = inputs["behaviours"], inputs["behaviour_of"]
    sample_of = torch.tensor([0] * 5 + [2] * 10 + [3] * 8)  # sample 1 has no history
    found = weighted_sum(weights, behaviours, behaviour_of, sample_of, 4)
    expected = torch.zeros(4, D, dtype=torch.double)
    for m in range(P):
        expected[sample_of[m]] += weights[m] * behaviours[behaviour_of[m]]
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(
        lambda w, b: weighted_sum(w, b, behaviour_of, sample_of, 4), (weights, behaviours)
    )
