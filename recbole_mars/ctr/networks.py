"""Networks by name, for whoever knows a name and settings only: a configuration, or a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_mars.ctr.bst import BSTSettings, TransformerInterest
from recbole_mars.ctr.companions import no_companions
from recbole_mars.ctr.dimo import DIMO, DIMOSettings
from recbole_mars.ctr.din import DIN, DINSettings, History
from recbole_mars.ctr.dmae import DMAE, DMAESettings
from recbole_mars.ctr.frnet import FRNet, FRNetSettings
from recbole_mars.ctr.interest_units import GRUInterest, InterestNetwork, MeanInterest
from recbole_mars.ctr.layers import FieldEmbedding
from recbole_mars.ctr.lrd import LRD, LRDSettings
from recbole_mars.ctr.similarities import Modality
from recbole_mars.ctr.simtier import SimTier, SimTierSettings
from recbole_mars.ctr.unisrec import UniSRec, UniSRecSettings

# Candidates a history from which on a product for each history costs less than gathered pairs.
_SHARED_FROM = 8

__all__ = ["NETWORKS", "NetworkKind", "build_network", "score_candidates", "score_targets"]


@dataclass(frozen=True)
class NetworkKind:
    """make: from items, users, modalities, settings and own settings. settings: type of the latter,
    None without any. reads_features: whether modalities are read."""

    make: Callable[..., nn.Module]
    settings: type | None = None
    reads_features: bool = False


def _unit(make: Callable[[int, Any], nn.Module]) -> Callable[..., nn.Module]:
    """A DIN with another unit in place of its attention."""
    return lambda items, users, _, settings, own: InterestNetwork(
        items, users, settings, make(items.width, own)
    )


def _dimo(
    items: FieldEmbedding,
    users: FieldEmbedding | None,
    modalities: Sequence[Modality],
    settings: DINSettings,
    own: DIMOSettings,
) -> DIMO:
    """Companions are what a trainer sets and weights hold."""
    companions = no_companions(items.n_ids, own.companions)
    return DIMO(items, users, modalities, companions, settings, own)


def _frnet(
    items: FieldEmbedding,
    users: FieldEmbedding | None,
    modalities: Sequence[Modality],
    settings: DINSettings,
    own: FRNetSettings,
) -> FRNet:
    weights = items.alike(1), None if users is None else users.alike(1)
    return FRNet(items, users, *weights, own, settings.context_width)


NETWORKS: dict[str, NetworkKind] = {
    "MARS": NetworkKind(lambda items, users, _, settings, own: DIN(items, users, settings)),
    "DMAE": NetworkKind(DMAE, DMAESettings, True),
    "SimTier": NetworkKind(SimTier, SimTierSettings, True),
    "UniSRec": NetworkKind(UniSRec, UniSRecSettings, True),
    "LRD": NetworkKind(LRD, LRDSettings, True),
    "DIMO": NetworkKind(_dimo, DIMOSettings, True),
    "FRNet": NetworkKind(_frnet, FRNetSettings),
    "BST": NetworkKind(_unit(TransformerInterest), BSTSettings),
    "GRU4RecCTR": NetworkKind(_unit(lambda width, own: GRUInterest(width))),
    "AveragePooling": NetworkKind(_unit(lambda width, own: MeanInterest())),
}


def build_network(
    kind: str,
    items: FieldEmbedding,
    users: FieldEmbedding | None,
    settings: DINSettings,
    own: Any = None,
    modalities: Sequence[Modality] = (),
) -> nn.Module:
    """A network with fresh weights. kind: of NETWORKS. own: its own settings, if it has any.

    A DIMO has no companions yet, see CompanionVectors.hold.

    Raises ValueError for an unknown kind, or settings of another.
    """
    if kind not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {kind!r}")
    wanted = NETWORKS[kind].settings
    if not isinstance(own, wanted or type(None)):
        name = wanted.__name__ if wanted else "no settings"
        raise ValueError(f"{kind} takes {name} of its own, got {type(own).__name__}")
    return NETWORKS[kind].make(items, users, modalities, settings, own)


def score_targets(
    network: nn.Module,
    history: History,
    target_item: Tensor,
    user: Tensor | None = None,
    context: Tensor | None = None,
) -> Tensor:
    """Logits (B,) of any of the networks; see DIN.forward for the arguments."""
    if isinstance(network, DIN):
        return network.logits(*network.interest(history, target_item), user, context)
    return network(history, target_item, user, context).logits


def score_candidates(
    network: nn.Module,
    history: History,
    candidates: Tensor,
    counts: Sequence[int],
    user: Tensor | None = None,
    context: Tensor | None = None,
) -> Tensor:
    """Logits (B,) of several candidates for each of R histories, without gradients.

    As score_targets with each history repeated, but what depends on the history alone is done once
    where the network can. history, user: of R users. candidates: (B,), those of the first user
    first. counts: of each user's. context: (B, context_width).
    """
    repeats = torch.tensor(counts)
    of = torch.arange(len(repeats)).repeat_interleave(repeats)
    users = None if user is None else user[of]
    many = len(candidates) >= _SHARED_FROM * len(counts)
    if many and isinstance(network, DIN) and network.shares_histories:
        interest = network.interest_in_candidates(history, candidates, counts)
        return network.logits(*interest, users, context)
    return score_targets(network, history.chosen(of), candidates, users, context)
