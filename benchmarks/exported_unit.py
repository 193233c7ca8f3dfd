"""Whether ONNX Runtime or torch.compile would score a request faster than the service does.

    pip install onnx onnxruntime onnxscript
    OMP_NUM_THREADS=1 python benchmarks/exported_unit.py

The attention over one history for 100 candidates, four fifths of a request's network, on one
thread: as the service computes it (ctr/candidate_scores.py), the same equations in plain PyTorch,
those by torch.compile and those by ONNX Runtime. All take turns; writes a table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from against_recbole_table import machine_facts
from torch import Tensor, nn

from recbole_mars.ctr import TargetAttention

HIDDEN = (80, 40)


class Plain(nn.Module):
    """What TargetAttention.of_candidates computes, in operations that can be exported."""

    def __init__(self, attention: TargetAttention) -> None:
        super().__init__()
        self.layers = attention.layers

    def forward(self, targets: Tensor, behaviours: Tensor) -> Tensor:
        first, second, last = self.layers
        of_target, of_behaviour, difference, product = first.weight.chunk(4, dim=1)
        bias = nn.functional.linear(targets, of_target + difference, first.bias)
        weights = (of_behaviour - difference) + product * targets.unsqueeze(1)
        hidden = behaviours @ weights.reshape(-1, weights.shape[2]).t() + bias.reshape(-1)
        hidden = second(hidden.sigmoid().reshape(-1, HIDDEN[0])).sigmoid()
        scores = last(hidden).reshape(len(behaviours), -1).t()
        return (scores * targets.shape[1] ** -0.5) @ behaviours


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, nargs="+", default=[10, 20, 32])
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| width | way | ms, median | least | times ours, median of the ratios | off by |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for width in args.width:
        lines += measured(width, args)
    command = f"OMP_NUM_THREADS=1 python benchmarks/exported_unit.py --rounds {args.rounds}"
    facts = machine_facts(argparse.Namespace(device="cpu", threads=1))
    versions = f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}"
    where = f"commit {facts['commit']}, {date.today()}, {facts['processor']}"
    table = Path(__file__).parent / "results" / "exported-unit.md"
    about = f"{args.candidates} candidates, a history of {args.length}, one thread."
    title = "# Attention of one request: ours, ONNX Runtime, torch.compile"
    table.write_text(
        "\n".join([title, "", about, "", *lines, "", f"`{command}`; {versions}; {where}", ""])
    )
    print(table.read_text())


@torch.inference_mode()
def measured(width: int, args: argparse.Namespace) -> list[str]:
    torch.manual_seed(0)
    attention = TargetAttention(width, HIDDEN, False).eval()
    plain = Plain(attention)
    given = torch.randn(args.candidates, width), torch.randn(args.length, width)
    compiled = torch.compile(plain, dynamic=True)
    session = onnx_session(plain, given)
    feed = {"targets": given[0].numpy(), "behaviours": given[1].numpy()}
    ways: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: attention.of_candidates(*given).numpy(),
        "plain PyTorch": lambda: plain(*given).numpy(),
        "torch.compile": lambda: compiled(*given).numpy(),
        "ONNX Runtime": lambda: session.run(None, feed)[0],
    }
    expected = plain.double()(*(each.double() for each in given)).numpy()
    plain.float()
    off = {name: float(np.abs(way() - expected).max()) for name, way in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            taken[name].append(1e3 * (time.perf_counter() - begun))
    lines = []
    for name, each in taken.items():
        ratio = statistics.median(a / b for a, b in zip(each, taken["ours"]))
        figures = f"{statistics.median(each):.2f} | {min(each):.2f} | {ratio:.2f}"
        lines.append(f"| {width} | {name} | {figures} | {off[name]:.1e} |")
    return lines


def onnx_session(module: nn.Module, given: tuple[Tensor, Tensor]) -> onnxruntime.InferenceSession:
    sizes = {"targets": {0: torch.export.Dim("C")}, "behaviours": {0: torch.export.Dim("L")}}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with TemporaryDirectory() as folder, torch.inference_mode(False):
        file = f"{folder}/unit.onnx"
        names = list(sizes)
        torch.onnx.export(
            module, given, file, input_names=names, dynamic_shapes=sizes, dynamo=True, verbose=False
        )
        return onnxruntime.InferenceSession(file, options)


if __name__ == "__main__":
    main()
