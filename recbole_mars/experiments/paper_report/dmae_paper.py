"""What the paper prints (Zhang et al., DMAE), as it stands there: Tables 1, 2 and 3.

Its fourth data set is the authors' own. Features are those of GPT-3 and EVA-02; the splits are
said to be those of earlier work. RelaImpr is not printed.
"""

from __future__ import annotations

from collections.abc import Mapping

from recbole_mars.experiments.paper_report.published import Paper, PaperResult

__all__ = ["DMAE_PAPER"]

# Users, items, impressions.
_TABLE_1 = {
    "Amazon-Books": (75053, 358367, 150016),
    "Amazon-Electro": (192403, 63001, 1689188),
    "MovieLens": (138493, 27278, 20000263),
}

# AUC on Amazon-Books, Amazon-Electro and MovieLens.
_TABLE_2 = {
    "Wide&Deep": (0.6630, 0.8637, 0.7212),
    "FRNet": (0.6813, 0.8731, 0.7241),
    "Average": (0.7248, 0.8797, 0.7329),
    "GRU4Rec": (0.7238, 0.8782, 0.7331),
    "DIN": (0.7281, 0.8857, 0.7366),
    "BST": (0.7264, 0.8824, 0.7343),
    "UniSRec": (0.7390, 0.8946, 0.7409),
    "LRD": (0.7371, 0.8928, 0.7395),
    "DIMO": (0.7501, 0.8972, 0.7431),
    "SimTier": (0.7526, 0.9034, 0.7482),
    "DMAE": (0.7645, 0.9105, 0.7570),
}
_TABLE_3 = {
    "w/o MIEU-se": (0.7582, 0.9069, 0.7541),
    "w/o MIEU-t": (0.7580, 0.9072, 0.7555),
    "w/o MIFU": (0.7539, 0.9042, 0.7501),
    "w/o IDDU": (0.7561, 0.9051, 0.7527),
    "DMAE": (0.7645, 0.9105, 0.7570),
}


def _results(table: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[PaperResult, ...]]:
    return {row: tuple(PaperResult(auc) for auc in aucs) for row, aucs in table.items()}


DMAE_PAPER = Paper(
    measured="DMAE",
    base="DIN",
    splits=(),
    note=(
        "The paper's figures are with GPT-3 and EVA-02 features and a split that it does not "
        "define; they are not mixed into ours."
    ),
    counts="",
    datasets={
        "amazonbooks": "Amazon-Books",
        "amazonelectronics": "Amazon-Electro",
        "ml20m": "MovieLens",
    },
    statistics={
        name: dict(zip(("users", "items", "interactions"), row)) for name, row in _TABLE_1.items()
    },
    baselines={
        "widedeep": "Wide&Deep",
        "frnet": "FRNet",
        "averagepooling": "Average",
        "gru4rec": "GRU4Rec",
        "bst": "BST",
        "unisrec": "UniSRec",
        "lrd": "LRD",
        "dimo": "DIMO",
        "simtier": "SimTier",
    },
    ablations={
        "dmae_use_similarity_embedding": "w/o MIEU-se",
        "dmae_use_time": "w/o MIEU-t",
        "dmae_use_fusion": "w/o MIFU",
        "dmae_use_decoder": "w/o IDDU",
    },
    overall=_results(_TABLE_2),
    without=_results(_TABLE_3),
)
