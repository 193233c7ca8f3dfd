"""Training in one pass a user equals training on one sample an interaction (MARS, eq. 4 to 14)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_mars.alignment import AlignmentNetwork
from recbole_mars.alignment.batches import Stretches, read_sequences
from recbole_mars.data import TRAIN, InteractionLog

LENGTHS = [3, 14, 5, 31, 9]  # with at most 12 behaviours in a stretch, two users have several


def loss_and_gradients(
    network: AlignmentNetwork, log: InteractionLog, stretches: Stretches
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss of all stretches in one batch, and its gradient by every parameter."""
    rows, counted = stretches.rows(np.arange(len(stretches.starts)))
    items, mask, labels, hidden = read_sequences(log, rows, torch.device("cpu"))
    network.zero_grad()
    loss, _ = network.loss(items, mask, labels, torch.from_numpy(counted), hidden)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"history_labels": True, "use_stein": False},
        {"history_labels": True, "stein_weight": 0.7},
        {"residual": False},
        {"use_text": False, "history_labels": True},
    ],
)
def test_one_pass_equals_one_sample_an_interaction(
    make_log: Callable[..., InteractionLog],
    make_network: Callable[..., AlignmentNetwork],
    settings: dict[str, Any],
    drawn: bool,
) -> None:
    log, network = make_log(LENGTHS), make_network(**settings).double()
    if drawn:
        log = replace(log, drawn=log.labels == 0)
    together = Stretches.cover(log, log.phases == TRAIN, length=12, context=3)
    alone = together.one_per_target(np.arange(len(together.starts)))
    assert len(alone.starts) == np.sum(log.phases == TRAIN) > 4 * len(together.starts)
    assert {2, 3, 4} <= set(log.items)  # which lack the text, the image and both

    loss, gradients = loss_and_gradients(network, log, together)
    naive_loss, naive_gradients = loss_and_gradients(network, log, alone)
    torch.testing.assert_close(loss, naive_loss, rtol=1e-12, atol=0)
    assert all(gradient.any() for gradient in gradients.values())
    torch.testing.assert_close(gradients, naive_gradients, rtol=1e-10, atol=1e-12)
