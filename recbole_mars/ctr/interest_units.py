"""What may find interests in place of DIN's attention. The transformer has its own file, bst.

Each is called like a TargetAttention, with packed histories:
unit(targets, behaviours, target_of, behaviour_of, lengths) gives the interests, (B, D).

Dimension letters: B batch, L length of the longest history, D width of an item vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_mars.ctr.din import DIN, DINSettings, History
from recbole_mars.ctr.layers import VectorTable
from recbole_mars.ctr.prediction import Prediction
from recbole_mars.ctr.weighted_sum import mean_of_samples

__all__ = ["GRUInterest", "InterestNetwork", "MeanInterest", "padded"]


class InterestNetwork(nn.Module):
    """A DIN whose interest comes from the given unit; all else is the DIN's."""

    def __init__(
        self,
        items: VectorTable,
        users: VectorTable | None,
        settings: DINSettings,
        unit: nn.Module,
    ) -> None:
        super().__init__()
        self.din = DIN(items, users, settings, unit)

    def forward(
        self,
        history: History,
        target_item: Tensor,
        user: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Prediction:
        """target_item, user: (B,) ids. context: (B, context_width), if that is not 0."""
        interest, target = self.din.interest(history, target_item)
        return Prediction(self.din.logits(interest, target, user, context))


class MeanInterest(nn.Module):
    """The mean of the behaviours' vectors, whatever the target (Covington et al., RecSys 2016, §3).

    There the mean of the watched videos enters a network beside other features; as a peer in CTR
    prediction (DMAE, §5.2) that network is DIN's, which reads the target, too. A masked behaviour
    counts as one. An empty history gives zeros.
    """

    def forward(
        self,
        targets: Tensor,
        behaviours: Tensor,
        target_of: Tensor,
        behaviour_of: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """See TargetAttention. Returns (B, D)."""
        return mean_of_samples(behaviours, behaviour_of, lengths)


class GRUInterest(nn.Module):
    """The last state of a GRU over the history, whatever the target (Hidasi et al., ICLR 2016).

    z = s(W_z x + U_z h), r = s(W_r x + U_r h), c = tanh(W x + U (r · h)), h' = (1 - z) h + z c
    (eq. 2-5), one layer, which the paper found best. In torch there are biases, r comes after U,
    and z is what 1 - z is here. As a peer in CTR prediction (DMAE, §5.2) it leaves out what ranks
    all items: scores of every item, ranking losses, sessions side by side as batches. The state is
    as wide as an item vector, so that the final network can multiply it by the target. An empty
    history gives zeros, the state that a GRU begins with.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(
        self,
        targets: Tensor,
        behaviours: Tensor,
        target_of: Tensor,
        behaviour_of: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """See TargetAttention. Returns (B, D)."""
        vectors, mask = padded(behaviours, behaviour_of, lengths)
        steps = lengths.clamp(min=1).cpu()  # torch packs no empty sequence
        packed = nn.utils.rnn.pack_padded_sequence(
            vectors, steps, batch_first=True, enforce_sorted=False
        )
        _, last = self.gru(packed)
        return last[0] * mask.any(dim=1, keepdim=True)


def padded(behaviours: Tensor, behaviour_of: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Packed histories side by side, zeros behind each: (B, L, D), and where they are, (B, L).

    See TargetAttention for the arguments. L is at least 1.
    """
    longest = max(1, int(lengths.max()))
    mask = torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)
    vectors = behaviours.new_zeros(*mask.shape, behaviours.shape[1])
    vectors[mask] = nn.functional.embedding(behaviour_of, behaviours)
    return vectors, mask
