"""Random numbers by counter: a function of what they are for, not of what was drawn before.

A batch holds its targets in any order, in any process, perhaps after a kill; what is drawn for a
target must not depend on that. So nothing is drawn from a generator: each number is a hash of its
place, by the mixing steps of SplitMix64 (Steele et al., OOPSLA 2014).

Dimension letters: B targets.
"""

from __future__ import annotations

import numpy as np

__all__ = ["substream", "uniforms"]

_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: its multiples fill the 64 bits evenly
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BITS = (1 << 64) - 1


def uniforms(seed: int, epoch: int, rows: np.ndarray, stream: int, n: int) -> np.ndarray:
    """Uniform numbers in [0, 1), n for each row, float64 (B, n).

    seed, epoch, stream: any integers; what has a stream of its own is independent of the others.
    rows: (B,) integers >= 0, such as rows of the log. Column j depends on seed, epoch, stream, the
    row and j only: neither on n nor on the other rows.
    """
    key = _hash(seed, epoch, stream)
    steps = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_STEP)
    states = _mix(np.asarray(rows).astype(np.uint64) * np.uint64(_STEP) + np.uint64(key))
    return (_mix(states[:, None] + steps) >> np.uint64(11)) * 2.0**-53


def substream(stream: int, *path: int) -> int:
    """A stream below another one, for a part of what draws from it. path: its number, or several.

    Different paths give different streams; none is that of the whole.
    """
    return _hash(stream, *path)


def _hash(*values: int) -> int:
    """64 bits from integers; their order counts."""
    state = len(values)
    for value in values:
        state = (state + _STEP * (1 + value % (1 << 64))) & _BITS
        state = ((state ^ (state >> 30)) * _FIRST) & _BITS
        state = ((state ^ (state >> 27)) * _SECOND) & _BITS
        state ^= state >> 31
    return state


def _mix(states: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer on uint64, in which numpy's products wrap around."""
    states = (states ^ (states >> np.uint64(30))) * np.uint64(_FIRST)
    states = (states ^ (states >> np.uint64(27))) * np.uint64(_SECOND)
    return states ^ (states >> np.uint64(31))
