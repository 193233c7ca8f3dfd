"""The local activation unit on all pairs of some targets with one history, as a service asks.

Dimension letters: C targets, L behaviours, D width of an item vector, H hidden width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from recbole_mars.ctr.dense import sigmoid_layer

__all__ = ["candidate_scores"]

_PIECE = 25  # targets at once: with 200 behaviours their activations stay in the cache
# Products of few shapes: oneDNN compiles and keeps one for every shape.
_TARGETS, _BEHAVIOURS = 5, 8


@torch.no_grad()
def candidate_scores(targets: Tensor, behaviours: Tensor, layers: Iterable[nn.Module]) -> Tensor:
    """Score every target with every behaviour; what pair_scores gives for all pairs.

    The first layer on [q, k, q - k, q·k] is (Wk - Wd + Wp diag(q)) k + (Wq + Wd) q + b, so that
    one product with the history does for all targets, and nothing is gathered for a pair.

    targets: (C, D). behaviours: (L, D). layers: as pair_scores takes them. Returns (C, L), without
    gradients.
    """
    n_targets, n_behaviours = len(targets), len(behaviours)
    if not n_targets or not n_behaviours:
        return targets.new_zeros(n_targets, n_behaviours)
    targets, behaviours = (
        nn.functional.pad(x, (0, 0, 0, -len(x) % multiple))
        for x, multiple in ((targets, _TARGETS), (behaviours, _BEHAVIOURS))
    )
    unit: list[Any] = list(layers)
    first, *others, last = unit
    from_target, from_behaviour, difference, product = first.weight.chunk(4, dim=1)
    by_target = nn.functional.linear(targets, from_target + difference, first.bias)
    weights = (from_behaviour - difference) + product * targets.unsqueeze(1)  # (C, H, D)
    found = []
    for own, bias in zip(weights.split(_PIECE), by_target.split(_PIECE)):
        hidden = sigmoid_layer(behaviours, own.flatten(0, 1), bias.flatten())
        hidden = hidden.view(-1, own.shape[1])  # by behaviour, then target
        for layer in others:
            hidden = sigmoid_layer(hidden, layer.weight, layer.bias)
        scores = torch.mv(hidden, last.weight[0]) + last.bias
        found.append(scores.view(len(behaviours), -1).t())
    return torch.cat(found)[:n_targets, :n_behaviours]
