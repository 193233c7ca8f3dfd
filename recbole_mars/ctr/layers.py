"""Building blocks of the CTR models.

Dimension letters: B batch, L history length, D width of an item vector, H hidden width,
I number of ids (padding included), F number of fields, E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Dice", "FieldEmbedding", "TargetAttention", "mlp"]


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

    widths: input width first. activation: "dice", "sigmoid", "relu" or "prelu".
    """
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Linear(before, after), _activation(activation, after)]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def _activation(name: str, width: int) -> nn.Module:
    if name == "dice":
        return Dice(width)
    known = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "prelu": nn.PReLU}
    if name not in known:
        raise ValueError(f"activation must be 'dice' or one of {sorted(known)}, got {name!r}")
    return known[name]()


class TargetAttention(nn.Module):
    """Local activation unit: weigh each behaviour by its relevance to the target (DIN, eq. 3).

    The unit is an MLP over [q, k, q - k, q·k] with q the target and k a behaviour. Its first
    layer is linear, so W[q, k, q - k, q·k] = (Wq + Wd) q + (Wk - Wd + Wp diag(q)) k: one product
    with D inputs instead of 4D, and the concatenation is never built.

    softmax: normalise the weights over the history. Off, as in the DIN paper, they keep the
    intensity of interest. The unit's output is divided by sqrt(D) either way.
    """

    def __init__(self, width: int, hidden: Sequence[int] = (80, 40), softmax: bool = False) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("attention_hidden must hold at least one width, got none")
        self.first = nn.Linear(4 * width, hidden[0])
        self.rest = nn.Sequential(
            nn.Sigmoid(), mlp(list(hidden), activation="sigmoid"), nn.Linear(hidden[-1], 1)
        )
        self.softmax = softmax

    def forward(self, target: Tensor, history: Tensor, history_mask: Tensor) -> Tensor:
        """target: (B, D). history: (B, L, D). history_mask: (B, L) bool, True = real.

        Returns the user's interest in the target, (B, D); zeros for an empty history.
        """
        from_target, from_history, difference, product = self.first.weight.chunk(4, dim=1)
        constant = nn.functional.linear(target, from_target + difference, self.first.bias)
        scaled = target.unsqueeze(2) * product.t()  # Wp diag(q), (B, D, H)
        hidden = torch.baddbmm(
            constant.unsqueeze(1), history, scaled + (from_history - difference).t()
        )
        scores = self.rest(hidden).squeeze(2) * history.shape[2] ** -0.5
        if self.softmax:
            scores = scores.masked_fill(~history_mask, torch.finfo(scores.dtype).min).softmax(1)
        weights = scores.masked_fill(~history_mask, 0.0)
        return torch.bmm(weights.unsqueeze(1), history).squeeze(1)


class FieldEmbedding(nn.Module):
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
        self.n_ids = n_ids
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
        fields = len(self.embeddings) + len(self.scales) + int(use_id)
        if fields == 0:
            raise ValueError("at least one field is needed: set use_id or give a column")
        self.width = fields * embedding_size

    def _check(self, name: str, column: Tensor) -> None:
        if len(column) != self.n_ids:
            raise ValueError(f"field {name} must have {self.n_ids} rows, got {len(column)}")

    def forward(self, ids: Tensor) -> Tensor:
        """ids: any shape, int64. Returns (*ids.shape, F·E)."""
        return nn.functional.embedding(*self.distinct(ids))

    def distinct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embed each id once, however often it occurs.

        Returns places of the ids' shape and vectors (N, F·E): id i is vectors[places[i]].
        """
        if ids.numel() >= self.n_ids:
            return ids, self._vectors(None)
        unique, places = torch.unique(ids, return_inverse=True)
        return places, self._vectors(unique)

    def _vectors(self, ids: Tensor | None) -> Tensor:
        def column(name: str) -> Tensor:
            values = getattr(self, f"column_{name}")
            return values if ids is None else values[ids]

        parts = []
        if self.id_embedding is not None:
            parts.append(self.id_embedding.weight if ids is None else self.id_embedding(ids))
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
