"""Events that are told apart by a number."""

from __future__ import annotations

from recbole_mars.serving.events import Event


def events(first: int, last: int) -> list[Event]:
    """One event for each number, with the number as its time."""
    return [Event("u", f"i{n}", n % 2, n) for n in range(first, last)]


def numbers(read: list[tuple[str, Event]]) -> list[int]:
    return [int(event.time) for _, event in read]
