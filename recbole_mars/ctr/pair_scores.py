"""The local activation unit on pairs, in pieces that fit the cache, with its own backward pass.

Written as layers, the unit writes and reads a (behaviours x H) tensor for each product, sigmoid
and gradient, and on a CPU none of them stays in the cache. Here a few thousand pairs at a time pass
through all layers; what the backward pass needs is written once, to memory kept from step to step.

Dimension letters: P pairs, T targets, K behaviours, D width of an item vector, H hidden width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recbole_mars.ctr.dense import product_with_rows as _product

__all__ = ["Workspace", "pair_scores"]

_PIECE = {"cpu": 1 << 19}  # numbers of the widest layer in a piece: 2 MB in float32
_PIECE_ELSEWHERE = 1 << 24  # a GPU wants larger products
_MULTIPLE = 256  # of pairs
_NARROW = 16  # width D up to which vectors are gathered instead of the first layer's parts
_KEPT = 1 << 30  # bytes of activations kept for the backward pass; the others are computed again


class Workspace:
    """Memory for activations, handed from one step to the next.

    A copy or a pickle of it is empty.
    """

    def __init__(self) -> None:
        self._free: Tensor | None = None

    def take(self, size: int, like: Tensor) -> Tensor:
        """A flat tensor of that many numbers, of like's type and device, values undefined."""
        free, self._free = self._free, None
        if (
            free is not None
            and len(free) >= size
            and (free.dtype, free.device) == (like.dtype, like.device)
            # What inference mode has made cannot be written to elsewhere.
            and free.is_inference() == torch.is_inference_mode_enabled()
        ):
            return free
        free = None  # before new memory is taken
        # Somewhat more than asked for: the next batch may have a few pairs more.
        return like.new_empty(size + size // 8)

    def give_back(self, memory: Tensor) -> None:
        self._free = memory

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()


def pair_scores(
    targets: Tensor,
    behaviours: Tensor,
    target_of: Tensor,
    behaviour_of: Tensor,
    layers: Iterable[nn.Module],
    workspace: Workspace | None = None,
) -> Tensor:
    """Score pairs by an MLP over [q, k, q - k, q·k], q a target and k a behaviour (DIN, eq. 3).

    Its first layer is linear, so W[q, k, q - k, q·k] = (Wq + Wd) q + (Wk - Wd) k + Wp (q·k). Where
    vectors are wide the first two are found once a target and once a behaviour, and H numbers are
    gathered for a pair; where they are narrow, gathering the vectors themselves costs less.

    targets: (T, D). behaviours: (K, D). target_of, behaviour_of: (P,) int64, the pairs. layers:
    of widths 4D to H, H to H and so on, a sigmoid between each two, the last of width 1.
    workspace: memory to use again in the next step.
    Under autocast the products are computed in its type and summed in float32.
    Returns (P,), of the type of targets. It can be differentiated once.
    """
    n_pairs = len(target_of)
    # Products of few shapes: oneDNN compiles and keeps one for every shape.
    missing = -n_pairs % _MULTIPLE
    target_of, behaviour_of = (
        nn.functional.pad(x, (0, missing)) for x in (target_of, behaviour_of)
    )
    device = targets.device.type
    dtype = targets.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        parameters: list[Any] = [p for layer in layers for p in (layer.weight, layer.bias)]
        weight, bias, *rest = parameters
        from_target, from_behaviour, difference, product = weight.chunk(4, dim=1)
        from_target, from_behaviour = from_target + difference, from_behaviour - difference
        gathers = targets.shape[1] > _NARROW
        if gathers:
            by_target = nn.functional.linear(targets, from_target, bias)
            by_behaviour = nn.functional.linear(behaviours, from_behaviour)
            first = product
        else:
            by_target, by_behaviour = bias, bias.new_zeros(())
            first = torch.cat([product, from_behaviour, from_target], dim=1)
        keep = torch.is_grad_enabled()
        plan = _Plan(target_of, behaviour_of, dtype, workspace or Workspace(), keep, gathers)
        scores = _PairScores.apply(plan, by_target, by_behaviour, targets, behaviours, first, *rest)
    return scores[:n_pairs]


class _Plan(NamedTuple):
    target_of: Tensor
    behaviour_of: Tensor
    dtype: torch.dtype
    workspace: Workspace
    keep: bool
    gathers: bool


class _Unit:
    """The unit with its weights in the type of computation.

    Activations of n pairs lie as (H, n), so that no product needs a transposed copy; those of a
    first layer that gathers rows as (n, H).
    """

    def __init__(self, plan: _Plan, tensors: Sequence[Tensor]) -> None:
        cast = [tensor.to(plan.dtype).contiguous() for tensor in tensors]
        self.plan = plan
        self.by_target, self.by_behaviour, self.targets, self.behaviours, self.first = cast[:5]
        self.weights, self.biases = cast[5::2], cast[6::2]
        self.widths = [len(self.first), *(len(weight) for weight in self.weights[:-1])]
        self.n_pairs = len(plan.target_of)
        limit = _PIECE.get(self.first.device.type, _PIECE_ELSEWHERE)
        rows = limit // max(self.widths)
        rows = rows // _MULTIPLE * _MULTIPLE or rows
        self.piece = max(1, min(rows, self.n_pairs))

    def pieces(self) -> Iterator[tuple[int, int]]:
        for begin in range(0, self.n_pairs, self.piece):
            yield begin, min(begin + self.piece, self.n_pairs)

    def slots(self, memory: Tensor, first: int, n: int) -> list[Tensor]:
        """Places of a piece's activations, one a layer; those of a piece lie together."""
        place = first * sum(self.widths)
        slots: list[Tensor] = []
        for width in self.widths:
            slot = memory[place : place + n * width]
            in_rows = self.plan.gathers and not slots
            slots.append(slot.view(n, width) if in_rows else slot.view(width, n))
            place += n * width
        return slots

    def rows(self, hidden: Sequence[Tensor], i: int) -> Tensor:
        """A layer's activations as (n, H)."""
        in_rows = self.plan.gathers and i % len(hidden) == 0
        return hidden[i] if in_rows else hidden[i].t()

    def vectors(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Target and behaviour of each pair of a piece, both (n, D)."""
        return (
            self.targets.index_select(0, self.plan.target_of[begin:end]),
            self.behaviours.index_select(0, self.plan.behaviour_of[begin:end]),
        )

    def inputs(self, target: Tensor, behaviour: Tensor) -> Tensor:
        """What the first layer multiplies, (n, D) or (n, 3D)."""
        both = target * behaviour
        return both if self.plan.gathers else torch.cat([both, behaviour, target], dim=1)

    def activate(self, begin: int, end: int, hidden: Sequence[Tensor]) -> None:
        """Write what each layer's sigmoid gives to hidden."""
        inputs = self.inputs(*self.vectors(begin, end))
        if self.plan.gathers:
            sums = _product(inputs, self.first)
            sums.add_(self.by_target.index_select(0, self.plan.target_of[begin:end]))
            sums.add_(self.by_behaviour.index_select(0, self.plan.behaviour_of[begin:end]))
        else:
            sums = _product(self.first, inputs).add_(self.by_target.unsqueeze(1))
        torch.sigmoid(sums, out=hidden[0])
        for i, (weight, bias) in enumerate(zip(self.weights[:-1], self.biases)):
            sums = _product(weight, self.rows(hidden, i)).add_(bias.unsqueeze(1))
            torch.sigmoid(sums, out=hidden[i + 1])


class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> Tensor:
        unit = _Unit(plan, tensors)
        scores = unit.first.new_empty(unit.n_pairs)
        row = sum(unit.widths)
        kept_pairs = 0
        if plan.keep:
            kept_pairs = _KEPT // (row * scores.element_size()) // unit.piece * unit.piece
            kept_pairs = min(unit.n_pairs, kept_pairs)
        shared = unit.piece if kept_pairs < unit.n_pairs else 0  # by all pieces that are not kept
        kept = plan.workspace.take((kept_pairs + shared) * row, scores)
        for begin, end in unit.pieces():
            hidden = unit.slots(kept, min(begin, kept_pairs), end - begin)
            unit.activate(begin, end, hidden)
            torch.mv(unit.rows(hidden, -1), unit.weights[-1][0], out=scores[begin:end])
        scores += unit.biases[-1]
        ctx.plan, ctx.kept_pairs, ctx.kept = plan, kept_pairs, kept
        ctx.save_for_backward(*tensors)
        if not plan.keep:
            plan.workspace.give_back(kept)
        return scores.to(tensors[2].dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors, plan = ctx.saved_tensors, ctx.plan
        unit = _Unit(plan, tensors)
        kept, kept_pairs = ctx.kept, ctx.kept_pairs
        if kept is None:  # a second backward pass: the first has handed the memory on
            kept, kept_pairs = unit.first.new_empty(unit.piece * sum(unit.widths)), 0
        sums = [torch.zeros_like(tensor) for tensor in tensors]
        d_by_target, d_by_behaviour, d_targets, d_behaviours, d_first = sums[:5]
        d_weights, d_biases = sums[5::2], sums[6::2]
        d_biases[-1] += gradient.sum()
        turned = [weight.t().contiguous() for weight in unit.weights]
        first_turned = unit.first.t().contiguous()
        for begin, end in unit.pieces():
            hidden = unit.slots(kept, min(begin, kept_pairs), end - begin)
            if begin >= kept_pairs:
                unit.activate(begin, end, hidden)
            slope = gradient[begin:end].to(plan.dtype)
            d_weights[-1][0] += torch.mv(unit.rows(hidden, -1).t(), slope)
            d = turned[-1] * slope
            for i in reversed(range(1, len(hidden))):  # d: (H, n)
                torch.ops.aten.sigmoid_backward.grad_input(d, hidden[i], grad_input=d)
                d_weights[i - 1] += _product(d, unit.rows(hidden, i - 1).t())
                d_biases[i - 1] += d.sum(1)
                if i > 1 or not plan.gathers:
                    d = _product(turned[i - 1], d.t())
            target_of, behaviour_of = plan.target_of[begin:end], plan.behaviour_of[begin:end]
            target, behaviour = unit.vectors(begin, end)
            inputs = unit.inputs(target, behaviour)
            if plan.gathers:
                d = d.t().contiguous()
                if len(hidden) > 1:
                    d = _product(d, turned[0])
                torch.ops.aten.sigmoid_backward.grad_input(d, hidden[0], grad_input=d)
                d_first += _product(inputs.t().contiguous(), d.t()).t()
                d_both = _product(d, first_turned)
                d_target, d_behaviour = d_both * behaviour, d_both * target
                exact = d.to(d_by_target.dtype)
                d_by_target.index_add_(0, target_of, exact)
                d_by_behaviour.index_add_(0, behaviour_of, exact)
            else:
                torch.ops.aten.sigmoid_backward.grad_input(d, hidden[0], grad_input=d)
                d_first += _product(d, inputs.t())
                d_by_target += d.sum(1)
                parts = _product(first_turned, d.t()).t().contiguous().chunk(3, dim=1)
                d_target = parts[0] * behaviour + parts[2]
                d_behaviour = parts[0] * target + parts[1]
            d_targets.index_add_(0, target_of, d_target.to(d_targets.dtype))
            d_behaviours.index_add_(0, behaviour_of, d_behaviour.to(d_behaviours.dtype))
        if ctx.kept is not None:
            plan.workspace.give_back(kept)
            ctx.kept = None
        return (None, *sums)
