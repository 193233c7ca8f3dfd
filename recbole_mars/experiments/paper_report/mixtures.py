"""Runs that stand under one name but were made with different settings."""

from __future__ import annotations

from collections import Counter
from typing import Any

from recbole_mars.experiments.paper_report.results import Results
from recbole_mars.plugin.run_inputs import FILE_KEYS

__all__ = ["mixtures"]

# What the seeds of a method differ in anyway; files are compared by the data's fingerprint.
_OWN = {"seed", *FILE_KEYS}


def mixtures(results: Results) -> list[str]:
    """In words, in which keys the seeds of a method differ, and runs from what spec.yaml fixes."""
    return [*_between_seeds(results), *_from_the_plan(results)]


def _between_seeds(results: Results) -> list[str]:
    found = []
    for setting in results.settings():
        for method in results.methods(setting):
            configs = [run.config for run in results.runs(setting, method).values()]
            parts = []
            for key in sorted({key for config in configs for key in config} - _OWN):
                # A key that a record does not know is newer than it.
                values = Counter(str(config[key]) for config in configs if key in config)
                if len(values) > 1:
                    listed = (f"{value} in {_runs(count)}" for value, count in values.items())
                    parts.append(f"{key} ({', '.join(listed)})")
            if parts:
                found.append(
                    f"{setting}: the seeds of {method} differ in {'; '.join(parts)}; their mean is "
                    "of no one configuration. Start the experiment again."
                )
    return found


def _from_the_plan(results: Results) -> list[str]:
    counts: Counter[tuple[str, str, str]] = Counter()
    methods: dict[tuple[str, str, str], dict[str, None]] = {}
    for record in results.records:
        planned = results.planned.get((record.setting, record.method), {})
        for key in sorted((planned.keys() & record.config.keys()) - _OWN):
            if not _agree(planned[key], record.config[key]):
                change = (key, str(record.config[key]), str(planned[key]))
                counts[change] += 1
                methods.setdefault(change, {})[record.method] = None
    return [
        f"{_runs(count)} of {', '.join(methods[change])} had {change[0]} {change[1]}, spec.yaml "
        f"has {change[2]}. Start the experiment again."
        for change, count in counts.items()
    ]


def _agree(planned: Any, found: Any) -> bool:
    """Whether a value of the YAML is what RecBole resolved it to."""
    if isinstance(planned, dict) and isinstance(found, dict):
        return all(_agree(value, found.get(key)) for key, value in planned.items())
    if isinstance(found, dict):  # as mode: labeled, for validation and test alike
        return planned is None or all(_agree(planned, value) for value in found.values())
    if isinstance(planned, str) and isinstance(found, (int, float)):  # YAML's 1e-3 is a word
        try:
            return float(planned) == found
        except ValueError:
            return False
    return bool(planned == found)


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"
