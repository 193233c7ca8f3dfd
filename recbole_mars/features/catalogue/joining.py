"""One text per item from several columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["join_text"]


def join_text(columns: Sequence[Sequence[object]]) -> list[str]:
    """Join what several columns say of an item into one text, each part a sentence.

    columns: equally long, of strings; None, NaN and blank parts are skipped. An item without any
    part gets ''. Raises ValueError if the columns differ in length or hold something else.
    """
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:
        raise ValueError(f"columns must have one length, got {lengths}; give a part per item")
    texts = []
    for row, parts in enumerate(zip(*columns)):
        sentences = []
        for part in parts:
            if part is None or (isinstance(part, float) and math.isnan(part)):
                continue
            if not isinstance(part, str):
                raise ValueError(
                    f"columns must hold strings, got {part!r} in row {row}; "
                    f"convert the column to strings"
                )
            part = part.strip()
            if part:
                sentences.append(part if part[-1] in ".!?" else f"{part}.")
        texts.append(" ".join(sentences))
    return texts
