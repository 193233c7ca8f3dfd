"""The contrastive loss in blocks against the whole matrix of cosines: time and memory of a step.

    OMP_NUM_THREADS=1 python benchmarks/info_nce.py

Forward and backward of CL4SRec's loss on two views a row, of width 10. "the matrix" is the formula
as it reads: all cosines, those of the same user masked, a cross-entropy. Both take turns; memory is
what the process' peak grows by. Writes a table.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
from against_recbole_table import machine_facts
from torch import Tensor
from torch.nn import functional as F

from recbole_mars.ctr import info_nce

WIDTH, USERS, TEMPERATURE = 10, 6040, 1.0


def the_matrix(first: Tensor, second: Tensor, groups: Tensor, temperature: float) -> Tensor:
    views = F.normalize(torch.cat([first, second]), dim=1)
    scores = views @ views.t() / temperature
    places = torch.arange(len(views))
    partners = places.roll(len(first))
    left_out = groups.repeat(2).unsqueeze(1) == groups.repeat(2)
    left_out[places, partners] = False
    return F.cross_entropy(scores.masked_fill(left_out, -torch.inf), partners)


WAYS = {"the matrix": the_matrix, "in blocks": info_nce}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peak", nargs=2, metavar=("ROWS", "WAY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        print(peak(int(args.peak[0]), args.peak[1]))
        return
    lines = ["| rows | the matrix, ms | in blocks, ms | ratio | the matrix, MB | in blocks, MB |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for rows in args.rows:
        taken: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(args.rounds):
            for name in WAYS:
                taken[name].append(1e3 * step(rows, name))
        whole, blocks = (statistics.median(each) for each in taken.values())
        ratio = statistics.median(a / b for a, b in zip(*taken.values()))
        grown = [in_own_process(rows, name) for name in WAYS]
        figures = f"{rows} | {whole:.1f} | {blocks:.1f} | {ratio:.1f}"
        lines.append(f"| {figures} | {grown[0]:.0f} | {grown[1]:.0f} |")
    facts = machine_facts(argparse.Namespace(device="cpu", threads=1))
    where = f"commit {facts['commit']}, {date.today()}, {facts['processor']}, one thread"
    command = f"OMP_NUM_THREADS=1 python benchmarks/info_nce.py --rounds {args.rounds}"
    about = f"Medians over {args.rounds} rounds in turn; the ratio is the rounds' median."
    table = Path(__file__).parent / "results" / "info-nce.md"
    title = "# A step of the contrastive loss"
    text = [title, "", about, "", *lines, "", f"`{command}`; torch {facts['torch']}, {where}", ""]
    table.write_text("\n".join(text))
    print(table.read_text())


def step(rows: int, name: str) -> float:
    torch.manual_seed(0)
    views = [torch.randn(rows, WIDTH, requires_grad=True) for _ in range(2)]
    users = torch.randint(USERS, (rows,))
    begun = time.perf_counter()
    WAYS[name](*views, users, TEMPERATURE).backward()
    return time.perf_counter() - begun


def peak(rows: int, name: str) -> float:
    """MB by which a step's peak exceeds what was there."""
    step(16, name)
    before = _resident("VmRSS")
    step(rows, name)
    return (_resident("VmHWM") - before) / 1024


def in_own_process(rows: int, name: str) -> float:
    command = [sys.executable, __file__, "--peak", str(rows), name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
