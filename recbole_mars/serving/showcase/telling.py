"""Some real requests to a running service, and their answers as tables for a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

__all__ = ["tell_answers"]

_TRIED = 40  # users, to find one who borrows
_CANDIDATES = 6
_ROWS = 6  # of a long list
_WIDTH = 44  # of a title
_SECONDS = 30
_STRANGER = "somebody new"
_NO_ITEM = "an item nobody knows"


def tell_answers(address: str, tell: Callable[[str], None]) -> None:
    """Ask for a user who borrows, for the same one after a dislike, and for a stranger.

    address: of a service with the page. Raises OSError if it does not answer.
    """
    client = _Client(address)
    user = client.who_borrows()
    known = client.get("/demo/history", user=user)
    candidates = known["candidates"][:_CANDIDATES]
    answer = client.ask(user, candidates)
    tell(f"User {user}: {known['group']}-active, {known['seen']} behaviours")
    newest = known["behaviours"][::-1]
    rows = [[_short(each["title"]), _opinion(each)] for each in newest]
    tell(_table("own history, newest first", [""], rows))
    _tell_evidence(client, answer, tell)
    _tell_scores(client, answer, tell)

    top = max(answer["predictions"], key=lambda each: each["probability"])["item"]
    told = {"item": top, "value": known["dislike"], "time": known["last_time"] + 1}
    tell(f"The same user, who has just disliked {client.title(top)} (`recent`)")
    others = [each for each in candidates if each["item"] != top]
    _tell_scores(client, client.ask(user, others, [told]), tell)

    tell(f"A user and an item that the model does not know ({_STRANGER!r}, {_NO_ITEM!r})")
    candidates = [*candidates[:2], {"item": _NO_ITEM, "title": _NO_ITEM}]
    _tell_scores(client, client.ask(_STRANGER, candidates), tell)


class _Client:
    def __init__(self, address: str) -> None:
        self._address = address
        self._titles: dict[str, str] = {}
        self.took = 0.0

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        return self._send(Request(f"{self._address}{path}?{urlencode(parameters, doseq=True)}"))

    def ask(
        self,
        user: str,
        candidates: Sequence[dict[str, Any]],
        recent: Sequence[dict[str, Any]] = (),
    ) -> dict[str, Any]:
        self._titles.update((each["item"], each["title"]) for each in candidates)
        items = [each["item"] for each in candidates]
        body = {"user": user, "candidates": items, "recent": list(recent), "explain": True}
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._send(Request(f"{self._address}/v1/ctr", data, headers))

    def who_borrows(self) -> str:
        """The first low-active user who borrows, or the first user."""
        listed = [each["user"] for each in self.get("/demo/users", group="low")["users"]]
        for user in listed[:_TRIED]:
            (item, *_) = self.get("/demo/history", user=user)["candidates"]
            if self.ask(user, [item])["augmented"]:
                return user
        return listed[0] if listed else self.get("/demo/users")["users"][0]["user"]

    def title(self, item: str) -> str:
        if item not in self._titles:
            (told,) = self.get("/demo/items", id=item)["items"]
            self._titles[item] = told["title"]
        return _short(self._titles[item])

    def _send(self, request: Request) -> dict[str, Any]:
        begun = time.perf_counter()
        with urlopen(request, timeout=_SECONDS) as response:
            found = json.load(response)
        self.took = time.perf_counter() - begun
        return found


def _tell_evidence(client: _Client, answer: dict[str, Any], tell: Callable[[str], None]) -> None:
    explanation = answer["explanation"]
    added = explanation["added"][::-1]
    lent = [each["donor"] for each in added]
    rows = [
        [each["user"], f"{each['similarity']:.3f}", str(lent.count(each["user"]))]
        for each in explanation["neighbours"]
    ]
    tell(_table("similar active users", ["similarity", "lends"], rows))
    rows = [
        [client.title(each["item"]), _opinion(each), f"{each['similarity']:.3f}", each["donor"]]
        for each in added[: _ROWS + 1]
    ]
    tell(_table("borrowed, newest first", ["", "similarity", "of user"], rows, len(added)))


def _tell_scores(client: _Client, answer: dict[str, Any], tell: Callable[[str], None]) -> None:
    unknown = {each["item"] for each in answer["predictions"] if not each["known"]}
    rows = []
    for each in answer["explanation"]["probabilities"]:
        one, other = each["with_augmentation"], each["without_augmentation"]
        note = "unknown" if each["item"] in unknown else ""
        rows.append(
            [client.title(each["item"]), f"{one:.4f}", f"{other:.4f}", f"{one - other:+.4f}", note]
        )
    rows.sort(key=lambda row: -float(row[1]))
    header = ["augmented", "own history", "change", ""]
    tell(_table(f"scores, in {1000 * client.took:.0f} ms", header, rows))


def _table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], count: int | None = None
) -> str:
    """Aligned columns under a title, numbers to the right; the rest of a long list is counted."""
    count = len(rows) if count is None else count
    shown = [[title, *header], *rows[:_ROWS]]
    if count > _ROWS:
        shown.append([f"and {count - _ROWS} more", *("" for _ in header)])
    if not rows:
        shown.append(["none", *("" for _ in header)])
    widths = [max(len(row[column]) for row in shown) for column in range(len(header) + 1)]
    widths[0] = max(widths[0], _WIDTH)
    lines = []
    for row in shown:
        first, *others = (
            cell.rjust(width) if place and header[place - 1] else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        )
        lines.append(f"  {'  '.join([first, *others])}".rstrip())
    return "\n".join(lines) + "\n"


def _short(title: str) -> str:
    return title if len(title) <= _WIDTH else f"{title[: _WIDTH - 1]}…"


def _opinion(behaviour: dict[str, Any]) -> str:
    return "liked" if behaviour["liked"] else "disliked"
