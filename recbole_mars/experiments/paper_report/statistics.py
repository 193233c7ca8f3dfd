"""The statistics of a data set: what Table 1 of the paper has, and what it lacks."""

from __future__ import annotations

import numpy as np

from recbole_mars.data import InteractionLog

__all__ = ["STATISTICS", "dataset_statistics"]

# Titles for readers, and the form of the numbers.
STATISTICS = {
    "users": ("users", ",.0f"),
    "items": ("items", ",.0f"),
    "interactions": ("interactions", ",.0f"),
    "mean_length": ("behaviours a user", ",.2f"),
    "sparsity": ("sparsity", ".2%"),
    "positive_share": ("liked", ".1%"),
    "text_share": ("items with text", ".1%"),
    "image_share": ("items with image", ".1%"),
}


def dataset_statistics(
    log: InteractionLog,
    text_present: np.ndarray | None = None,
    image_present: np.ndarray | None = None,
) -> dict[str, float]:
    """Counts and shares of a log, as a record keeps them under "statistics".

    text_present, image_present: (n_items,) bool by internal id, None if the modality is not used.
    Sampled negatives do not count; users and items are those that occur, without padding; sparsity
    is the share of pairs of both without interaction; text_share and image_share are of the items
    that occur.
    Raises ValueError for an empty log and for masks of another length than n_items.
    """
    log = log.behaviours()
    if not len(log):
        raise ValueError("log must have interactions, got none; check the data set's filters")
    items = np.unique(log.items)
    n_users, n_items = len(np.unique(log.users)), len(items)
    found = {
        "users": n_users,
        "items": n_items,
        "interactions": len(log),
        "mean_length": len(log) / n_users,
        "sparsity": 1 - len(log) / (n_users * n_items),
        "positive_share": float(np.mean(log.labels == 1)),
    }
    for name, present in (("text", text_present), ("image", image_present)):
        if present is not None and len(present) != log.n_items:
            raise ValueError(
                f"{name}_present must have one value for each of {log.n_items} item ids, "
                f"got {len(present)}"
            )
        found[f"{name}_share"] = 0.0 if present is None else float(np.mean(present[items]))
    return found
