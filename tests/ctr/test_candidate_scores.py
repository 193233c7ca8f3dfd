"""Many candidates of one history: as each history repeated, and as a loop over pairs in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recbole_mars.ctr import (
    DINSettings,
    FieldEmbedding,
    History,
    TargetAttention,
    build_network,
    score_candidates,
    score_targets,
)
from recbole_mars.ctr.candidate_scores import candidate_scores

N_ITEMS = 40


@pytest.mark.parametrize("hidden", [(6,), (6, 3), (5, 4, 3)])
@pytest.mark.parametrize(("n_targets", "n_behaviours"), [(1, 1), (3, 17), (26, 8), (60, 5)])
def test_scores_are_those_of_a_loop_over_pairs(
    hidden: tuple[int, ...], n_targets: int, n_behaviours: int
) -> None:
    torch.manual_seed(0)
    layers = TargetAttention(4, hidden).layers
    targets, behaviours = torch.randn(n_targets, 4), torch.randn(n_behaviours, 4)
    found = candidate_scores(targets, behaviours, layers)
    exact = layers.double()
    for q, row in zip(targets.double(), found):
        for k, score in zip(behaviours.double(), row):
            x = torch.cat([q, k, q - k, q * k])
            for layer in exact[:-1]:
                x = layer(x).sigmoid()
            assert score.item() == pytest.approx(exact[-1](x).item(), abs=1e-5)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_has_no_scores(shape: tuple[int, int]) -> None:
    layers = TargetAttention(4).layers
    assert candidate_scores(torch.zeros(shape[0], 4), torch.zeros(shape[1], 4), layers).shape == (
        shape
    )


SETTINGS: list[dict[str, Any]] = [
    {},
    {"attention_softmax": True},
    {"history_labels": True, "mark_borrowed": True, "mark_age": True, "context_width": 2},
    {"precision": "bfloat16"},
]


@pytest.mark.parametrize("kind", ["MARS", "AveragePooling", "GRU4RecCTR"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("counts", [[30], [40, 0, 25], [1, 2, 1]], ids=str)
def test_candidates_score_as_with_their_histories_repeated(
    kind: str, settings: dict[str, Any], counts: list[int]
) -> None:
    torch.manual_seed(1)
    users = FieldEmbedding(9, 3)
    network = build_network(kind, FieldEmbedding(N_ITEMS, 6), users, DINSettings(**settings))
    network.eval()
    lengths = torch.tensor([9, 4, 0][: len(counts)])
    mask = torch.arange(9) < lengths[:, None]
    history = History(
        torch.randint(1, N_ITEMS, mask.shape) * mask,
        mask,
        torch.randint(0, 2, mask.shape).float(),
        torch.tensor([3, 4, 0][: len(counts)]),
    )
    candidates = torch.randint(0, N_ITEMS, (sum(counts),))
    user = torch.arange(len(counts))
    width = settings.get("context_width", 0)
    context = torch.randn(sum(counts), width) if width else None
    of = user.repeat_interleave(torch.tensor(counts))
    with torch.inference_mode():
        found = score_candidates(network, history, candidates, counts, user, context)
        wanted = score_targets(network, history.chosen(of), candidates, user[of], context)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
