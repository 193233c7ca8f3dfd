from __future__ import annotations

import math

import pytest
import torch

from recbole_mars.alignment import (
    alignment_loss,
    entropy_loss,
    median_bandwidth,
    stein_loss,
    stein_score,
)


def rows(n: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator, dtype=torch.float64)


def test_alignment_of_hand_values() -> None:
    text = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    image = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    expected = (1 + math.exp(-4 / 2)) / 2
    assert alignment_loss(text, image, bandwidth=1.0).item() == pytest.approx(expected)


def test_alignment_takes_the_median_over_all_cross_modal_distances() -> None:
    text = torch.tensor([[0.0], [10.0], [20.0]])
    image = torch.tensor([[1.0], [10.0], [23.0]])
    # |t - i|: 1 10 23, 9 0 13, 19 10 3: the median is 10
    expected = (math.exp(-1 / 200) + 1 + math.exp(-9 / 200)) / 3
    assert alignment_loss(text, image).item() == pytest.approx(expected)


def test_alignment_is_one_for_equal_pairs_and_scale_free() -> None:
    text, image = rows(9, 3), rows(9, 3, seed=1)
    assert alignment_loss(text, text).item() == 1.0
    assert 0 < alignment_loss(text, image).item() < 1
    torch.testing.assert_close(
        alignment_loss(5 * text + 2, 5 * image + 2), alignment_loss(text, image)
    )


def test_alignment_passes_gradcheck() -> None:
    text, image = rows(4, 3), rows(4, 3, seed=1)
    text[0] = image[0]
    inputs = (text.requires_grad_(), image.requires_grad_())
    assert torch.autograd.gradcheck(lambda t, i: alignment_loss(t, i, 1.2), inputs)


def test_no_gradient_runs_through_the_median() -> None:
    text, image = rows(5, 2).requires_grad_(), rows(5, 2, seed=1)
    (by_median,) = torch.autograd.grad(alignment_loss(text, image), text)
    gamma = median_bandwidth(text, image).item()
    (by_number,) = torch.autograd.grad(alignment_loss(text, image, gamma), text)
    torch.testing.assert_close(by_median, by_number)


def test_entropy_averages_the_modalities() -> None:
    text, image = rows(12, 3), rows(12, 3, seed=1)
    by_hand = [
        -sum(float(score @ each) for score, each in zip(stein_score(e, 1.1, 0.3), e)) / 12
        for e in (text, image)
    ]
    found = entropy_loss(text, image, bandwidth=1.1, regularization=0.3)
    assert found.item() == pytest.approx(sum(by_hand) / 2)
    assert entropy_loss(text, bandwidth=1.1, regularization=0.3).item() == pytest.approx(by_hand[0])


def test_entropy_of_a_gaussian_has_the_gradient_of_its_differential_entropy() -> None:
    """H of N(0, s^2 I) is D log s + const, so dH/ds = D / s, here with D = 2."""
    noise = rows(500, 2)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    entropy_loss(scale * noise, regularization=0.05).backward()
    assert scale.grad.item() == pytest.approx(2 / 3, rel=0.15)


def test_entropy_gradient_is_minus_the_score() -> None:
    x = rows(10, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(entropy_loss(x), x)
    torch.testing.assert_close(gradient, -stein_score(x) / 10)


@pytest.mark.parametrize(("sign", "grows"), [("maximised", True), ("printed", False)])
def test_a_step_on_the_entropy_term_moves_the_spread(sign: str, grows: bool) -> None:
    x = rows(60, 4).requires_grad_()
    loss = stein_loss(x, x, entropy_weight=1.0, entropy_sign=sign)  # pairs coincide: L_align flat
    (gradient,) = torch.autograd.grad(loss, x)
    moved = (x - 0.5 * gradient).detach()
    spread_before, spread_after = x.var(0).sum().item(), moved.var(0).sum().item()
    assert (spread_after > spread_before) is grows
    assert spread_after != pytest.approx(spread_before, rel=1e-3)


def test_a_step_on_the_alignment_term_brings_pairs_together() -> None:
    text, image = rows(30, 4), rows(30, 4, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(stein_loss(text, image, entropy_weight=0.0), image)
    moved = (image - gradient).detach()
    assert (moved - text).norm() < (image - text).norm()


def test_signs_of_the_joint_loss() -> None:
    text, image = rows(8, 3), rows(8, 3, seed=1)
    align, entropy = alignment_loss(text, image), entropy_loss(text, image)
    torch.testing.assert_close(stein_loss(text, image, 0.3), -align - 0.3 * entropy)
    torch.testing.assert_close(stein_loss(text, image, 0.3, "printed"), -align + 0.3 * entropy)


@pytest.mark.parametrize("pairs", [0, 1])
def test_fewer_than_two_pairs_give_zero_and_keep_the_graph(pairs: int) -> None:
    text, image = (rows(pairs, 3).requires_grad_() for _ in range(2))
    loss = stein_loss(text, image, 0.1)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(text.grad, torch.zeros(pairs, 3, dtype=torch.float64))


def test_bad_input_is_refused() -> None:
    x = rows(4, 3)
    with pytest.raises(ValueError, match="text and image must be"):
        alignment_loss(x, x[:3])
    with pytest.raises(ValueError, match="text and image must be"):
        stein_loss(x[:0], x[:1], 0.1)
    with pytest.raises(ValueError, match="text and image must be"):
        alignment_loss(x[:0], x[:0])
    with pytest.raises(ValueError, match="at least one modality"):
        entropy_loss()
    with pytest.raises(ValueError, match=r"entropy_sign must be one of .*got 'minimised'"):
        stein_loss(x, x, 0.1, "minimised")
    with pytest.raises(ValueError, match="entropy_sign must be one of"):
        stein_loss(x[:1], x[:1], 0.1, "minimised")
