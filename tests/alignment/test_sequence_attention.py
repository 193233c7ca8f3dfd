from __future__ import annotations

import math

import pytest
import torch

from recbole_mars.alignment.attention import CrossAttention, attend, check_padding, place

MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


SEEN = {
    "inclusive": [[[0], [0, 1], [0, 1, 2]], [[0]]],
    "exclusive": [[[], [0], [0, 1]], [[]]],
    "full": [[[0, 1, 2]] * 3, [[0]]],
}  # by each real position of MASK


HIDDEN = torch.tensor([[False, True, False, False], [True, False, False, False]])
SEEN_BUT_HIDDEN = {
    "inclusive": [[[0], [0, 1], [0, 2]], [[0]]],
    "exclusive": [[[], [0], [0]], [[]]],
    "full": [[[0, 2], [0, 1, 2], [0, 2]], [[0]]],
}


@pytest.mark.parametrize("hidden", [None, HIDDEN])
@pytest.mark.parametrize("rule", SEEN)
def test_who_sees_whom(rule: str, hidden: torch.Tensor | None) -> None:
    everyone = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    queries, keys = random(2, 4, 4), random(2, 4, 4, seed=1)
    weights = attend(queries, keys, everyone, MASK, rule, hidden=hidden)
    for b, seen in enumerate((SEEN if hidden is None else SEEN_BUT_HIDDEN)[rule]):
        assert [row.nonzero().flatten().tolist() for row in weights[b, : len(seen)]] == seen


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rule must be .*, got 'causal'"):
        attend(*random(3, 2, 4, 3), MASK, "causal")
    with pytest.raises(ValueError, match=r"rule must be .*, got 'causal'"):
        attend(*random(3, 2, 4, 3), MASK, "causal", hidden=HIDDEN)


def test_padding_before_a_real_position_is_refused() -> None:
    check_padding(MASK)
    check_padding(MASK[:, :0])
    with pytest.raises(ValueError, match="mask must have its padding on the right"):
        check_padding(MASK.flip(1))


@pytest.mark.parametrize("width", [3, 5])
@pytest.mark.parametrize("rule", SEEN)
def test_attention_equals_a_loop(rule: str, width: int) -> None:
    q, k, v = random(2, 4, 3), random(2, 4, 3, seed=1), random(2, 4, width, seed=2)
    for scale in (None, 0.3):
        found = attend(q, k, v, MASK, rule, scale)
        by = 1 / math.sqrt(3) if scale is None else scale
        for b, lines in enumerate(SEEN[rule]):
            for t, seen in enumerate(lines):
                expected = torch.zeros(width, dtype=torch.float64)
                weights = [math.exp(by * float(q[b, t] @ k[b, s])) for s in seen]
                for weight, s in zip(weights, seen):
                    expected += weight / sum(weights) * v[b, s]
                torch.testing.assert_close(found[b, t], expected)


@pytest.mark.parametrize("length", [1, 3])
def test_the_blind_return_zeros_and_pass_no_gradient(length: int) -> None:
    q, k, v = (random(1, length, 2, seed=seed).requires_grad_() for seed in range(3))
    mask = torch.ones(1, length, dtype=torch.bool)
    for found in (attend(q, k, v, mask, "exclusive")[:, 0], attend(q, k, v, ~mask, "full")):
        assert torch.equal(found, torch.zeros_like(found))
        found.sum().backward()
        for each in (q, k, v):
            assert torch.equal(each.grad, torch.zeros_like(each))


@pytest.mark.parametrize("rule", SEEN)
def test_attention_passes_gradcheck(rule: str) -> None:
    inputs = tuple(random(2, 4, 2, seed=seed).requires_grad_() for seed in range(3))
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, MASK, rule), inputs)


def test_place_lays_rows_out_as_sequences() -> None:
    rows = random(3, 2)
    positions = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(place(rows, positions), rows[positions])
    assert place(rows, None) is rows


def test_distinct_rows_with_positions_equal_whole_sequences() -> None:
    attention = CrossAttention(3, 2, 4).double()
    queries, keys = random(5, 3), random(5, 2, seed=1)
    positions = torch.tensor([[0, 3, 3, 1], [4, 2, 0, 0]])
    by_row = attention(queries, keys, MASK, "inclusive", positions)
    by_place = attention(queries[positions], keys[positions], MASK, "inclusive")
    assert by_row.shape == (2, 4, 4)
    torch.testing.assert_close(by_row, by_place)


@pytest.mark.parametrize("key_width", [2, 6])
def test_narrow_and_wide_keys_are_attended_alike(key_width: int) -> None:
    attention = CrossAttention(3, key_width, 4).double()
    queries, keys = random(2, 4, 3), random(2, 4, key_width, seed=1)
    projected = attention.query(queries), attention.key(keys), attention.value(keys)
    for rule in SEEN:
        expected = attend(*projected, MASK, rule)
        torch.testing.assert_close(attention(queries, keys, MASK, rule), expected)
