"""Where a step's time goes: torch's profiler, forward and backward, by parts of our choosing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

MARK, REST = "part: ", "all else"


@contextmanager
def profiled(
    modules: dict[nn.Module, str], methods: dict[tuple[object, str], str]
) -> Iterator[dict[str, float]]:
    """Profile what runs inside; on leaving the dict holds the CPU seconds of each part.

    modules: part of each module. methods: part of each (object, name of its method). A part's own
    parts are not counted in it; the optimizer's steps and all else are parts as well.
    """
    seconds: dict[str, float] = {}
    changed = [(module, "forward", part) for module, part in modules.items()]
    changed += [(owner, name, part) for (owner, name), part in methods.items()]
    for owner, name, part in changed:
        setattr(owner, name, _marked(getattr(owner, name), part))
    try:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            yield seconds
    finally:
        for owner, name, _ in changed:
            delattr(owner, name)  # the class has its own
    seconds.update(_by_part(profiler.events()))


def _marked(function: Callable, part: str) -> Callable:
    def marked(*args, **kwargs):
        with record_function(MARK + part):
            return function(*args, **kwargs)

    return marked


def _by_part(events) -> dict[str, float]:
    """A backward node belongs to the part whose forward has its sequence number."""
    owner = {}
    for event in events:
        part = _part(event)
        if part is not None and event.sequence_nr >= 0:
            owner[event.sequence_nr] = part
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        part = _part(event)
        if part is None:
            nodes = [e.sequence_nr for e in _ancestry(event) if e.name.startswith("autograd::")]
            part = next((owner[node] for node in nodes if node in owner), REST)
        seconds[part] += event.self_cpu_time_total * 1e-6
    return dict(sorted(seconds.items(), key=lambda entry: (entry[0] == REST, -entry[1])))


def _part(event) -> str | None:
    for each in _ancestry(event):
        if each.name.startswith(MARK):
            return each.name[len(MARK) :]
        if each.name.startswith("Optimizer.step"):
            return "optimizer"
    return None


def _ancestry(event) -> Iterator:
    while event is not None:
        yield event
        event = event.cpu_parent
