from __future__ import annotations

import math

import pytest
import torch

from recbole_mars.alignment.attention import CrossAttention, attend, place, visible_positions

MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        ("inclusive", [[0], [0, 1], [0, 1, 2], [0, 1, 2]]),
        ("exclusive", [[], [0], [0, 1], [0, 1, 2]]),
        ("full", [[0, 1, 2]] * 4),
    ],
)
def test_who_sees_whom(rule: str, seen: list[list[int]]) -> None:
    visible = visible_positions(MASK, rule)
    assert [row.nonzero().flatten().tolist() for row in visible[0]] == seen
    assert [row.nonzero().flatten().tolist() for row in visible[1]] == [
        [s for s in row if s == 0] for row in seen
    ]


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rule must be .*, got 'causal'"):
        visible_positions(MASK, "causal")


@pytest.mark.parametrize("rule", ["inclusive", "exclusive", "full"])
def test_attention_equals_a_loop(rule: str) -> None:
    q, k, v = random(2, 4, 3), random(2, 4, 3, seed=1), random(2, 4, 5, seed=2)
    visible = visible_positions(MASK, rule)
    found = attend(q, k, v, visible)
    for b in range(2):
        for t in range(4):
            expected = torch.zeros(5, dtype=torch.float64)
            seen = visible[b, t].nonzero().flatten().tolist()
            weights = [math.exp(float(q[b, t] @ k[b, s]) / math.sqrt(3)) for s in seen]
            for weight, s in zip(weights, seen):
                expected += weight / sum(weights) * v[b, s]
            torch.testing.assert_close(found[b, t], expected)


def test_the_blind_return_zeros_and_pass_no_gradient() -> None:
    q, k, v = (random(1, 3, 2, seed=seed).requires_grad_() for seed in range(3))
    visible = torch.tensor([[[False, False, False], [True, False, False], [False] * 3]])
    found = attend(q, k, v, visible)
    assert torch.equal(found[0, [0, 2]], torch.zeros(2, 2, dtype=torch.float64))
    found.sum().backward()
    assert torch.equal(q.grad[0, [0, 2]], torch.zeros(2, 2, dtype=torch.float64))
    assert torch.equal(v.grad[0, 1:], torch.zeros(2, 2, dtype=torch.float64))
    torch.testing.assert_close(v.grad[0, 0], torch.ones(2, dtype=torch.float64))
    assert torch.isfinite(k.grad).all()


def test_attention_passes_gradcheck_with_blind_positions() -> None:
    inputs = tuple(random(2, 4, 2, seed=seed).requires_grad_() for seed in range(3))
    visible = visible_positions(MASK, "exclusive")
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, visible), inputs)


def test_place_lays_rows_out_as_sequences() -> None:
    rows = random(3, 2)
    positions = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(place(rows, positions), rows[positions])
    assert place(rows, None) is rows


def test_distinct_rows_with_positions_equal_whole_sequences() -> None:
    attention = CrossAttention(3, 2, 4).double()
    queries, keys = random(5, 3), random(5, 2, seed=1)
    positions = torch.tensor([[0, 3, 3, 1], [4, 2, 0, 0]])
    visible = visible_positions(MASK, "inclusive")
    by_row = attention(queries, keys, visible, positions)
    by_place = attention(queries[positions], keys[positions], visible)
    assert by_row.shape == (2, 4, 4)
    torch.testing.assert_close(by_row, by_place)
