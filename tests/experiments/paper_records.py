"""Records of an experiment that was never run, with gains that are planted."""

from __future__ import annotations

import json

import numpy as np
import yaml

from recbole_mars.evaluation import auc, log_loss, user_auc

SEEDS = (1, 2, 3, 4, 5)
# The difference of a run to the mean of its seeds, alike for all methods; then a method's own.
SEED_EFFECTS = (0.002, -0.001, 0.0, 0.001, -0.002)
OWN_EFFECTS = (0.001, -0.001, 0.0, 0.0, 0.0)  # standard deviation sqrt(2e-6 / 4) = 0.000707
CONFIG = {"augmentation": "mars", "mars_theta": 0.8, "mars_use_text": True, "seed": 0}


def record(dataset="ml-1m", method="MARS", seed=1, auc=0.75, **changes):
    """A record with everything in it; changes replace keys, None takes one out."""
    found = {
        "experiment": "planted",
        "groups": ["table-2"],
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "split": "leave-one-out",
        "test": {"auc": auc, "log_loss": 0.5},
        "valid": {"auc": auc},
        "seconds": {"total": 100.0, "stage_one": 20.0},
        "epochs": 8,
        "best_epoch": 5,
        "peak_memory_mb": 1000.0,
        "config": {**CONFIG, "seed": seed},
        "commit": "c0ffee",
        "version": "0.1.0",
        "data_fingerprint": f"data of {dataset}",
        "machine": {"cpu": "abacus", "threads": 2},
        **changes,
    }
    return {key: value for key, value in found.items() if value is not None}


def stem_of(found):
    """The name of a record's files, as the runner gives it."""
    stem = ".".join(str(found[key]) for key in ("dataset", "split", "method", "seed"))
    stem += f".{found['variant']}" if "variant" in found else ""
    return stem.replace(" ", "_")


def write(folder, *records, spec=None):
    """Put records into a results folder; spec: content of spec.yaml."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    for found in records:
        (folder / "records" / f"{stem_of(found)}.json").write_text(json.dumps(found), "utf-8")
    if spec is not None:
        (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
    return folder


def runs(method, gain=0.0, base=0.7, seeds=SEEDS, **changes):
    """A record for each seed, AUC base + gain on average."""
    return [
        record(
            method=method,
            seed=seed,
            auc=round(base + gain + SEED_EFFECTS[i] + (OWN_EFFECTS[i] if gain else 0.0), 6),
            **changes,
        )
        for i, seed in enumerate(seeds)
    ]


def scored_runs(folder, method, skill, seeds=SEEDS, impressions=2000, **changes):
    """Records with scores: the more skill, the better; it fades with the length of the history."""
    data = np.random.default_rng(0)
    users = data.integers(1, impressions // 4, impressions)
    labels = (data.random(impressions) < 0.45).astype(np.int8)
    lengths = data.geometric(0.05, impressions).astype(np.int32)
    groups = np.digitize(lengths, np.quantile(lengths, [0.3, 0.7])).astype(np.int8)
    signal = data.normal(size=impressions) + 0.9 * labels
    found = []
    for seed in seeds:
        noise = np.random.default_rng([seed, len(method)]).normal(size=impressions)
        scores = signal + 1.2 * labels * skill / np.sqrt(lengths) + 0.3 * noise
        scores = (1 / (1 + np.exp(-scores))).astype(np.float32)
        test = {"auc": auc(labels, scores), "log_loss": log_loss(labels, scores)}
        for i, name in enumerate(("low", "mid", "high")):
            test[f"auc_{name}"] = auc(labels[groups == i], scores[groups == i])
        test["user_auc"] = user_auc(users, labels, scores)
        valid = {"auc": test["auc"] + 0.005}
        found.append(record(method=method, seed=seed, test=test, valid=valid, **changes))
        (folder / "scores").mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / "scores" / f"{stem_of(found[-1])}.npz",
            users=users,
            groups=groups,
            labels=labels,
            scores=scores,
            lengths=lengths,
        )
    write(folder, *found)
    return found
