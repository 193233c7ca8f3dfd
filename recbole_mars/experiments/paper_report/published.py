"""What the paper prints (Xiao et al., MARS, KDD 2025), as it stands there: Tables 1, 2 and 3.

Figure 4 is a picture: the text gives no numbers for it. All of it is leave-one-out, with DIN as
base, histories of 200, LLaMA-7B for text and the vision encoder of Qwen2.5-VL for images. Eq. 19
calls the user AUC "AUC", which leave-one-out, with one impression a user, does not define.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = [
    "ABLATIONS",
    "BASELINES",
    "METHODS",
    "PaperResult",
    "ablation_result",
    "best_baseline",
    "compact",
    "overall_result",
    "paper_name",
    "statistics",
]


class PaperResult(NamedTuple):
    """A method's AUC and its RelaImpr in percent, as printed."""

    auc: float
    rela_impr: float


_NAMES = {"ml1m": "ML-1M", "amazonbeauty": "Amazon-Beauty", "amazontoys": "Amazon-Toys"}

# Users, items, interactions, mean length, sparsity.
_TABLE_1 = {
    "ML-1M": (6041, 3417, 1000210, 165, 0.9495),
    "Amazon-Beauty": (4323, 2424, 60276, 13.95, 0.9942),
    "Amazon-Toys": (19412, 11924, 167597, 8.6, 0.9993),
}

# AUC and RelaImpr on ML-1M, Amazon-Beauty and Amazon-Toys.
_TABLE_2 = {
    "BaseModel": ((0.7772, 0.00), (0.6092, 0.00), (0.5802, 0.00)),
    "Ran": ((0.7738, -1.23), (0.5913, -16.39), (0.5841, 4.86)),
    "RepPad": ((0.7711, -2.21), (0.5962, -11.91), (0.5844, 5.23)),
    "Ran-S": ((0.7745, -0.97), (0.6064, -2.56), (0.5801, -0.12)),
    "CMR": ((0.7754, -0.64), (0.6108, 1.46), (0.5843, 5.11)),
    "CMRSI": ((0.7798, 0.94), (0.6066, -2.38), (0.5827, 3.11)),
    "CL4SRec": ((0.7783, 0.39), (0.6104, 1.09), (0.5894, 11.47)),
    "CoSeRec": ((0.7789, 0.61), (0.6123, 2.84), (0.5816, 1.74)),
    "BASRec": ((0.7793, 0.76), (0.6112, 1.83), (0.5874, 8.97)),
    "MARS": ((0.7813, 1.48), (0.6149, 5.21), (0.5901, 12.34)),
}
_TABLE_3 = {
    "MARS": ((0.7813, 0.00), (0.6149, 0.00), (0.5901, 0.00)),
    "w/o txt": ((0.7402, -14.61), (0.5915, -20.36), (0.5761, -15.53)),
    "w/o img": ((0.7503, -11.02), (0.5977, -14.96), (0.5793, -11.98)),
    "w/o stein": ((0.7565, -8.81), (0.6068, -7.05), (0.5746, -17.20)),
}

# Our methods' names, without case and punctuation.
BASELINES = {
    "random": "Ran",
    "reppad": "RepPad",
    "randomseq": "Ran-S",
    "cmr": "CMR",
    "cmrsi": "CMRSI",
    "cl4srec": "CL4SRec",
    "coserec": "CoSeRec",
    "basrec": "BASRec",
}
METHODS = {**BASELINES, "mars": "MARS"}
# Settings of ours that, switched off, are a row of Table 3.
ABLATIONS = {"mars_use_text": "w/o txt", "mars_use_image": "w/o img", "mars_use_stein": "w/o stein"}


def compact(name: str) -> str:
    """A name without case and punctuation: "Random-Seq" and "random_seq" are one."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def paper_name(dataset: str) -> str | None:
    """What the paper calls a data set of ours, None if it has none of that name."""
    return _NAMES.get(compact(dataset))


def statistics(dataset: str) -> dict[str, float]:
    """Table 1's row of a data set, by the names of `dataset_statistics`; empty if it has none."""
    row = _TABLE_1.get(paper_name(dataset) or "", ())
    return dict(zip(("users", "items", "interactions", "mean_length", "sparsity"), row))


def overall_result(dataset: str, row: str) -> PaperResult | None:
    """Table 2's figures of "BaseModel", "MARS" or a baseline, None where the paper has none."""
    return _result(_TABLE_2, dataset, row)


def ablation_result(dataset: str, row: str) -> PaperResult | None:
    """Table 3's figures of "MARS" or of it without a part, None where the paper has none."""
    return _result(_TABLE_3, dataset, row)


def best_baseline(dataset: str) -> tuple[str, PaperResult] | None:
    """The baseline of Table 2 with the highest (test) AUC, None for a data set of our own."""
    found = {row: overall_result(dataset, row) for row in BASELINES.values()}
    known = {row: result for row, result in found.items() if result is not None}
    return max(known.items(), key=lambda pair: pair[1].auc) if known else None


def _result(table: Mapping[str, Any], dataset: str, row: str) -> PaperResult | None:
    name = paper_name(dataset)
    if name is None or row not in table:
        return None
    return PaperResult(*table[row][list(_TABLE_1).index(name)])
