"""One network and its optimizer, a step at a time.

Dimension letters: B samples of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from recbole_mars.ctr import DIN, score_targets
from recbole_mars.serving.scoring import NetworkInput
from recbole_mars.serving.training.settings import StreamSettings

__all__ = ["Diverged", "Learner"]

_NETWORK, _OPTIMIZER = "network.", "optimizer."


class Diverged(ValueError):
    """A loss, a gradient or weights are not finite; what was saved last is sound."""


class Learner:
    """Trains a network, which is in eval mode between the steps.

    A step depends on weights, optimizer, samples and its number alone, not on what was drawn
    before: training that goes on from a saved state ends with the same bits.
    """

    def __init__(self, network: nn.Module, settings: StreamSettings) -> None:
        self.network, self.settings = network.eval(), settings
        network.requires_grad_(True)  # a model that was loaded is frozen
        self.optimizer = torch.optim.AdamW(
            network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )

    def step(self, batch: NetworkInput, labels: np.ndarray, number: int) -> None:
        """Train on samples. labels: (B,) bool. number: of the step, which seeds dropout.

        Raises Diverged, and then leaves weights and optimizer as they were, though perhaps not
        the statistics of normalisations: the learner is of no more use.
        """
        seed = np.random.SeedSequence([self.settings.seed, number]).generate_state(1)[0]
        self.optimizer.zero_grad()
        self.network.train()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(seed))
                loss = self._loss(batch, torch.from_numpy(labels.astype(np.float32)))
                loss.backward()
        finally:
            self.network.eval()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.max_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise Diverged(
                f"step {number} has the loss {loss.item()} and a gradient of norm {norm.item()}: "
                "training stops, and goes on from what was saved last; lower learning_rate or "
                "max_norm, or look at the events"
            )
        self.optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """Copies of weights and optimizer, by name; raises Diverged if weights are not finite."""
        found = {_NETWORK + name: value for name, value in self.network.state_dict().items()}
        for name, value in found.items():
            if not torch.isfinite(value).all():
                raise Diverged(
                    f"{name} is not finite: nothing of it is saved or published; go on from what "
                    "was saved last with a lower learning_rate"
                )
        for place, state in self.optimizer.state_dict()["state"].items():
            found.update((f"{_OPTIMIZER}{place}.{key}", value) for key, value in state.items())
        return {name: value.detach().clone().contiguous() for name, value in found.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave; raises ValueError for those of another network."""
        weights: dict[str, Tensor] = {}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(_NETWORK):
                weights[name[len(_NETWORK) :]] = value
            elif name.startswith(_OPTIMIZER):
                place, key = name[len(_OPTIMIZER) :].split(".")
                state.setdefault(int(place), {})[key] = value
        groups: Any = self.optimizer.state_dict()["param_groups"]
        try:
            self.network.load_state_dict(weights)
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        except RuntimeError as error:
            raise ValueError(f"the saved state is of another network: {error}") from None

    def _loss(self, batch: NetworkInput, labels: Tensor) -> Tensor:
        if isinstance(self.network, DIN):
            return binary_cross_entropy_with_logits(score_targets(self.network, *batch), labels)
        found = self.network(*batch)
        loss = binary_cross_entropy_with_logits(found.logits, labels)
        return loss if found.loss is None else loss + found.loss
