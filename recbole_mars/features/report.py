"""What an extraction did, as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_mars.data.plain_table import plain_table
from recbole_mars.features.build import Built
from recbole_mars.features.stores.store import FeatureStore

__all__ = ["describe_built", "side_by_side"]


def describe_built(built: Built) -> list[tuple[str, str]]:
    """Name and value of everything worth knowing of features that were built.

    Counts are of items; rates are of the inputs that the encoder worked on, without the loading
    of the model.
    """
    store, encoded = built.store, built.extraction
    given = store.sources.any(axis=1)
    broken = store.broken
    silent = int((given & ~store.present).sum()) - len(broken)
    rows = [
        ("encoder", str(store.manifest["provenance"].get("model") or store.name)),
        ("items", f"{len(store):,}"),
        ("with features", f"{int(store.present.sum()):,}"),
        ("nothing given", f"{int((~given).sum()):,}"),
        (
            "broken",
            f"{len(broken):,}, see {store.folder.name}/broken.txt" if broken else "0",
        ),
    ]
    if silent:
        rows.append(("no vector", f"{silent:,}"))
    rows.append(("read in part", f"{int(store.truncated.sum()):,}"))
    if encoded.encoded:
        rate = encoded.encoded / max(encoded.seconds, 1e-9)
        rows.append(
            ("encoded now", f"{encoded.encoded:,} in {_time(encoded.seconds)}, {rate:,.1f}/s")
        )
    else:
        rows.append(("encoded now", "none, reused"))
    rows.append(("width", _width(store)))
    rows.append(("stored", f"{store.manifest['dtype']}, {_bytes(store)}"))
    if store.cosine_error is not None and store.present.any():
        errors = store.cosine_error[store.present]
        rows.append(("1 - cosine", f"mean {errors.mean():.1e}, worst {errors.max():.1e}"))
    rows.append(("folder", _short(store.folder)))
    return rows


def side_by_side(columns: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """Tables of names and values as one, a column each, under their titles."""
    names = list(dict.fromkeys(name for rows in columns.values() for name, _ in rows))
    lines = [[name, *(dict(rows).get(name, "-") for rows in columns.values())] for name in names]
    return plain_table(["", *columns], lines)


def _width(store: FeatureStore) -> str:
    provenance = store.manifest["provenance"]
    if "explained_variance" not in provenance:
        return str(store.dimensions)
    share, full = provenance["explained_variance"], provenance["full_dimensions"]
    return f"{store.dimensions} of {full}, {share:.1%} of the variance"


def _bytes(store: FeatureStore) -> str:
    size = sum(
        file["bytes"]
        for name, file in store.manifest["files"].items()
        if name in ("features.npy", "scales.npy")
    )
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    raise AssertionError


def _time(seconds: float) -> str:
    whole = int(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def _short(path: Path) -> str:
    """Relative to the working directory where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
