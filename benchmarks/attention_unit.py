"""What each idea in the attention unit is worth: one training batch, in turn, forward and backward.

    python benchmarks/attention_unit.py

2,048 samples with histories of up to 200 of 3,706 items, items by popularity, as in ml-1m; vectors
of 10, layers 256-256-256. "plain" is the unit as DIN's equation reads, over padded places; each
line below changes one thing. Rates are medians over rounds in which all take their turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from argparse import Namespace
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import torch
from against_recbole_table import machine_facts
from torch import Tensor

from recbole_mars.ctr import TargetAttention
from recbole_mars.ctr import pair_scores as unit

SAMPLES, LENGTH, ITEMS, WIDTH = 2048, 200, 3706, 10


class Batch:
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        chances = 1 / torch.arange(1, ITEMS + 1) ** 0.6
        lengths = (torch.rand(SAMPLES, generator=generator) * 2 * LENGTH).long()
        self.lengths = lengths.clamp(max=LENGTH, min=1) * 3 // 4  # 112 in the mean
        self.target_of = torch.multinomial(chances, SAMPLES, True, generator=generator)
        n = int(self.lengths.sum())
        self.behaviour_of = torch.multinomial(chances, n, True, generator=generator)
        self.vectors = torch.randn(ITEMS, WIDTH, generator=generator).requires_grad_()

    def padded(self) -> tuple[Tensor, Tensor]:
        mask = torch.arange(LENGTH) < self.lengths.unsqueeze(1)
        history = torch.zeros(SAMPLES, LENGTH, dtype=torch.long)
        history[mask] = self.behaviour_of
        return history, mask


def plain(attention: Any, batch: Batch, packed: bool) -> Tensor:
    """The concatenation, as layers; over all places or over the real ones."""
    vectors, target_of = batch.vectors, batch.target_of
    if packed:
        sample_of = torch.arange(SAMPLES).repeat_interleave(batch.lengths)
        q, k = vectors[target_of[sample_of]], vectors[batch.behaviour_of]
    else:
        history, mask = batch.padded()
        k = vectors[history]
        q = vectors[target_of].unsqueeze(1).expand_as(k)
    hidden = torch.cat([q, k, q - k, q * k], dim=-1)
    for layer in attention.layers[:-1]:
        hidden = layer(hidden).sigmoid()
    scores = attention.layers[-1](hidden).squeeze(-1) * WIDTH**-0.5
    if packed:
        weighted = scores.unsqueeze(1) * k
        return torch.zeros(SAMPLES, WIDTH).index_add(0, sample_of, weighted)
    return torch.bmm((scores * mask).unsqueeze(1), k).squeeze(1)


def ours(attention: Any, batch: Batch, **changes: Any) -> Tensor:
    """Our unit, with some of its constants changed."""
    before = {name: getattr(unit, name) for name in ("_PIECE", "_KEPT", "_onednn")}
    attention._shares = changes.pop("shares", True)
    if changes.pop("fresh", False):
        attention._workspace = unit.Workspace()
    precision = changes.pop("autocast", nullcontext())
    for name, value in changes.items():
        setattr(unit, name, value)
    try:
        with precision:
            return attention(
                batch.vectors, batch.vectors, batch.target_of, batch.behaviour_of, batch.lengths
            )
    finally:
        batch.restore = before  # type: ignore[attr-defined]  # after the backward pass


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    batch, attention = Batch(), TargetAttention(WIDTH, (256, 256, 256))
    compiled = torch.compile(plain)
    half = torch.autocast("cpu", torch.bfloat16)
    ways = {
        "plain": lambda: plain(attention, batch, False),
        "plain, torch.compile": lambda: compiled(attention, batch, False),
        "plain, packed": lambda: plain(attention, batch, True),
        "ours": lambda: ours(attention, batch),
        "ours, one piece": lambda: ours(attention, batch, _PIECE={"cpu": 1 << 40}),
        "ours, MKL's products": lambda: ours(attention, batch, _onednn=None),
        "ours, fresh memory each step": lambda: ours(attention, batch, fresh=True),
        "ours, activations computed again": lambda: ours(attention, batch, _KEPT=0),
        "ours, equal pairs not shared": lambda: ours(attention, batch, shares=False),
        "ours, bfloat16": lambda: ours(attention, batch, autocast=half),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    reference = plain(attention, batch, False).detach()
    spaces = {name: unit.Workspace() for name in ways}
    for turn in range(args.rounds + 1):
        for name, way in ways.items():
            attention._workspace = spaces[name]
            for _ in range(2):  # the first finds the others' data in the cache
                batch.restore = {}  # type: ignore[attr-defined]
                begin = time.perf_counter()
                found = way()
                found.sum().backward()
                taken = time.perf_counter() - begin
                for constant, value in batch.restore.items():  # type: ignore[attr-defined]
                    setattr(unit, constant, value)
            error = float((found.detach() - reference).abs().max() / reference.abs().max())
            if error > (0.05 if "bfloat16" in name else 1e-4):
                raise RuntimeError(f"{name} is off by {error}")
            if turn:
                seconds[name].append(taken)
            print(f"round {turn}, {name}: {taken:.2f} s", file=sys.stderr)
    lines = ["# What each idea in the attention unit is worth", ""]
    lines += ["| | samples/s | times plain, within a round |", "| --- | --- | --- |"]
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(seconds["plain"], taken)]
        lines.append(
            f"| {name} | {SAMPLES / statistics.median(taken):,.0f} "
            f"| {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] |"
        )
    facts = machine_facts(Namespace(device="cpu", threads=args.threads))
    pairs = len(batch.behaviour_of)
    lines += [
        "",
        f"Forward and backward pass of the unit for {SAMPLES:,} samples, {pairs:,} behaviours.",
        "",
        f"```\npython benchmarks/attention_unit.py {' '.join(sys.argv[1:])}".rstrip() + "\n```",
        "",
        f"{date.today()}, commit {facts['commit']}, {facts['processor']}, {facts['threads']} "
        f"threads, torch {facts['torch']}; {args.rounds} rounds.",
    ]
    file = Path(__file__).parent / "results" / "attention-unit.md"
    file.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
