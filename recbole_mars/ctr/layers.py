"""Building blocks of the CTR models.

Dimension letters: B batch, L history length, D width of an item vector, H hidden width,
I number of ids (padding included), F number of fields, E embedding size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recbole_mars.ctr.candidate_scores import candidate_scores
from recbole_mars.ctr.pair_scores import Workspace, pair_scores
from recbole_mars.ctr.weighted_sum import samples_of, weighted_sum

__all__ = [
    "ACTIVATIONS",
    "Dice",
    "FieldEmbedding",
    "TargetAttention",
    "VectorTable",
    "check_widths",
    "distinct",
    "logsumexp_within",
    "mlp",
    "softmax_within",
]


ACTIVATIONS = ("dice", "bn_silu", "relu", "prelu", "sigmoid")

# Products a pair from which to look for equal pairs: finding them costs a sort of all pairs.
_SHARED_FROM = 50_000


class Dice(nn.Module):
    """Data-adaptive activation, p·x + (1 - p)·alpha·x, p = sigmoid(normalised x) (DIN, eq. 4).

    x is normalised over the batch; a batch of one by the running statistics.

    x: (B, H). Returns (B, H).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        # One sample has no variance of its own; a synchronised norm may see more than this one.
        if self.training and len(x) == 1 and isinstance(self.norm, nn.BatchNorm1d):
            normalised = nn.functional.batch_norm(
                x, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps
            )
        else:
            normalised = self.norm(x)
        gate = torch.sigmoid(normalised)
        return x * (gate + (1 - gate) * self.alpha)


def mlp(widths: Sequence[int], activation: str = "dice", dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of the given widths, each followed by its activation and dropout.

    widths: input width first. activation: one of ACTIVATIONS, of which "bn_silu" is batch norm,
    then x·sigmoid(x): what RecBole calls Dice.

    Raises ValueError for another activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Linear(before, after), _activation(activation, after)]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def _activation(name: str, width: int) -> nn.Module:
    if name == "dice":
        return Dice(width)
    if name == "bn_silu":
        return nn.Sequential(nn.BatchNorm1d(width), nn.SiLU())
    return {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "prelu": nn.PReLU}[name]()


class TargetAttention(nn.Module):
    """Local activation unit: weigh each behaviour by its relevance to the target (DIN, eq. 3).

    The unit is an MLP over [q, k, q - k, q·k] with q the target and k a behaviour, a sigmoid
    after each hidden layer; see pair_scores. Histories come packed, without padding.

    softmax: normalise the weights over the history. Off, as in the DIN paper, they keep the
    intensity of interest. The unit's output is divided by sqrt(D) either way.
    """

    def __init__(self, width: int, hidden: Sequence[int] = (80, 40), softmax: bool = False) -> None:
        super().__init__()
        check_widths("attention_hidden", hidden)
        widths = [4 * width, *hidden, 1]
        layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
        self.layers = nn.ModuleList(layers)
        self.softmax = softmax
        self._workspace = Workspace()
        products = sum(layer.weight.numel() for layer in layers) - 3 * width * hidden[0]
        self._shares = products >= _SHARED_FROM

    def forward(
        self,
        targets: Tensor,
        behaviours: Tensor,
        target_of: Tensor,
        behaviour_of: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """Weigh packed histories: first the behaviours of sample 0, then of sample 1, and so on.

        targets: (T, D), behaviours: (K, D), the distinct ones of the batch. target_of: (B,) int64,
        each sample's target. behaviour_of: (M,) int64. lengths: (B,) int64, their sum is M.
        Returns each user's interest in the target, (B, D); zeros for an empty history.
        """
        sample_of = samples_of(lengths, len(behaviour_of))
        scores = self._scores(targets, behaviours, target_of[sample_of], behaviour_of)
        scores = scores * targets.shape[1] ** -0.5
        if self.softmax:
            scores = softmax_within(scores, sample_of, len(lengths))
        return weighted_sum(scores, behaviours, behaviour_of, sample_of, len(lengths))

    def of_candidates(self, targets: Tensor, behaviours: Tensor) -> Tensor:
        """One user's interest in many targets, without gradients.

        targets: (C, D). behaviours: (L, D), the history. Returns (C, D), as forward does.
        """
        scores = candidate_scores(targets, behaviours, self.layers)
        scores = scores * targets.shape[1] ** -0.5
        return (scores.softmax(dim=1) if self.softmax else scores) @ behaviours

    def _scores(
        self, targets: Tensor, behaviours: Tensor, target_of: Tensor, behaviour_of: Tensor
    ) -> Tensor:
        """The unit's output for each behaviour, (M,); an equal pair is scored once."""
        if not self._shares:
            return pair_scores(
                targets, behaviours, target_of, behaviour_of, self.layers, self._workspace
            )
        pairs, place = torch.unique(target_of * len(behaviours) + behaviour_of, return_inverse=True)
        target_of = pairs.div(len(behaviours), rounding_mode="floor")
        behaviour_of = pairs - target_of * len(behaviours)
        scores = pair_scores(
            targets, behaviours, target_of, behaviour_of, self.layers, self._workspace
        )
        return scores.index_select(0, place)


def distinct(codes: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Codes that hold all those given, and the place of each among them.

    codes: any shape, int64 in 0..n-1. Returns (N,), and places of the codes' shape. Where more
    codes are given than there are, N is n: finding which occur would cost more than it saves.
    """
    if codes.numel() >= n:
        return torch.arange(n, device=codes.device), codes
    return torch.unique(codes, return_inverse=True)


def logsumexp_within(scores: Tensor, group: Tensor, groups: int) -> Tensor:
    """log sum exp of each group's scores, (groups,); 0 of an empty one.

    scores: (M,). group: (M,) int64 in 0..groups-1.
    """
    highest = scores.new_zeros(groups).scatter_reduce(
        0, group, scores.detach(), "amax", include_self=False
    )
    powers = (scores - highest[group]).exp()
    total = powers.new_zeros(groups).index_add(0, group, powers)
    return torch.where(total > 0, total, 1).log() + highest


def softmax_within(scores: Tensor, group: Tensor, groups: int) -> Tensor:
    """Softmax over each group. scores: (M,). group: (M,) int64 in 0..groups-1."""
    return (scores - logsumexp_within(scores, group, groups)[group]).exp()


def check_widths(name: str, widths: Sequence[int]) -> None:
    """Raises ValueError, with the name, unless there is a width and all are whole numbers >= 1."""
    if not widths or any(not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(f"{name} must list whole numbers >= 1, got {widths!r}")


class VectorTable(nn.Module, ABC):
    """Vectors of ids, whatever they are made of: what a network takes for its items or users.

    width: of a vector, D.
    """

    width: int

    @abstractmethod
    def distinct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embed each id once, however often it occurs.

        ids: any shape, int64. Returns places of the ids' shape and vectors (N, D): id i is
        vectors[places[i]].
        """

    def forward(self, ids: Tensor) -> Tensor:
        """ids: any shape, int64. Returns (*ids.shape, D)."""
        return nn.functional.embedding(*self.distinct(ids))


class FieldEmbedding(VectorTable):
    """Vectors of items (or users) from their id and side features.

    n_ids: number of ids I, 0 is padding. embedding_size: E. tokens: (I,) int64 columns, one
    category each. token_lists: (I, S) int64 columns, several categories each, padded with 0 and
    averaged. numbers: (I,) float columns. use_id: embed the id itself.

    The columns are constants of the data set: buffers that a checkpoint leaves out.
    """

    def __init__(
        self,
        n_ids: int,
        embedding_size: int,
        tokens: Mapping[str, Tensor] | None = None,
        token_lists: Mapping[str, Tensor] | None = None,
        numbers: Mapping[str, Tensor] | None = None,
        use_id: bool = True,
    ) -> None:
        super().__init__()
        self.n_ids, self.embedding_size = n_ids, embedding_size
        self.id_embedding = _table(n_ids, embedding_size) if use_id else None
        self.embeddings = nn.ModuleDict()
        self.scales = nn.ParameterDict()
        self._tokens = list(tokens or {})
        self._token_lists = list(token_lists or {})
        self._numbers = list(numbers or {})
        for name, column in {**(tokens or {}), **(token_lists or {})}.items():
            self._check(name, column)
            self.register_buffer(f"column_{name}", column, persistent=False)
            self.embeddings[name] = _table(int(column.max()) + 1, embedding_size)
        for name, column in (numbers or {}).items():
            self._check(name, column)
            self.register_buffer(f"column_{name}", column.float(), persistent=False)
            self.scales[name] = nn.Parameter(torch.randn(embedding_size) * embedding_size**-0.5)
        self.fields = len(self.embeddings) + len(self.scales) + int(use_id)
        if self.fields == 0:
            raise ValueError("at least one field is needed: set use_id or give a column")
        self.width = self.fields * embedding_size

    def columns(self) -> dict[str, dict[str, Tensor]]:
        """The columns as they were given, by "tokens", "token_lists" and "numbers", then name."""
        groups = {
            "tokens": self._tokens,
            "token_lists": self._token_lists,
            "numbers": self._numbers,
        }
        return {
            group: {name: getattr(self, f"column_{name}") for name in names}
            for group, names in groups.items()
        }

    def alike(self, embedding_size: int) -> FieldEmbedding:
        """Other vectors of the same fields, of this size and with fresh weights."""
        use_id = self.id_embedding is not None
        return FieldEmbedding(self.n_ids, embedding_size, **self.columns(), use_id=use_id)

    def _check(self, name: str, column: Tensor) -> None:
        if len(column) != self.n_ids:
            raise ValueError(f"field {name} must have {self.n_ids} rows, got {len(column)}")

    def distinct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """See VectorTable; D is F·E."""
        unique, places = distinct(ids, self.n_ids)
        return places, self._vectors(unique)

    def _vectors(self, ids: Tensor) -> Tensor:
        def column(name: str) -> Tensor:
            return getattr(self, f"column_{name}")[ids]

        parts = []
        if self.id_embedding is not None:
            parts.append(self.id_embedding(ids))
        parts += [self.embeddings[name](column(name)) for name in self._tokens]
        for name in self._token_lists:
            values = column(name)
            real = (values > 0).unsqueeze(-1)
            total = (self.embeddings[name](values) * real).sum(1)
            parts.append(total / real.sum(1).clamp(min=1))
        parts += [column(name).unsqueeze(1) * self.scales[name] for name in self._numbers]
        return torch.cat(parts, dim=1)


def _table(n_ids: int, embedding_size: int) -> nn.Embedding:
    table = nn.Embedding(n_ids, embedding_size, padding_idx=0)
    nn.init.xavier_normal_(table.weight)
    with torch.no_grad():
        table.weight[0].zero_()
    return table
