"""What the page asks for, beside the service's own /v1/ctr; all of it only reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

from recbole_mars.serving.service import Engine
from recbole_mars.serving.service.errors import ServiceError
from recbole_mars.serving.showcase.cards import Card
from recbole_mars.serving.showcase.directory import Directory, group_name
from recbole_mars.serving.showcase.page import read_page
from recbole_mars.serving.stores import MAX_KEY_BYTES, StoreError
from recbole_mars.serving.users import UserRecord, user_key

__all__ = ["Showcase"]

_USERS = 200  # listed at once
_SHOWN = 200  # behaviours of a history
_FOUND = 24  # items of a search
_CANDIDATES = 60
_MAX_TEXT = 200
_PICTURES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}


class Showcase:
    """The page and its data, to be mounted on a service: `app.include_router(showcase.router)`.

    cards: of items, those without one are shown by name.
    """

    def __init__(self, engine: Engine, directory: Directory, cards: Mapping[str, Card]) -> None:
        self._engine, self._directory, self._cards = engine, directory, cards
        self._page = read_page()
        self.router = APIRouter(include_in_schema=False)
        for path, endpoint in (
            ("/", self._show),
            ("/demo/users", self._users),
            ("/demo/history", self._history),
            ("/demo/items", self._items),
            ("/demo/cover", self._cover),
        ):
            self.router.add_api_route(path, endpoint, methods=["GET"])

    async def _show(self) -> Response:
        return HTMLResponse(self._page.html, headers=self._page.headers)

    async def _users(self, request: Request) -> Response:
        text, group = _text(request, "search"), _text(request, "group")
        found, count = self._directory.find(text, group, _USERS)
        return JSONResponse({"users": [each._asdict() for each in found], "count": count})

    def _history(self, request: Request) -> Response:
        user = request.query_params.get("user", "")
        if not user or len(user_key(user)) > MAX_KEY_BYTES:
            raise ServiceError(404, "no_user", "the user's name is empty or too long")
        try:
            record = self._directory.record(user)
        except (StoreError, ValueError):
            raise ServiceError(503, "store", "the store does not answer", retry_after=1) from None
        known = record is not None
        return JSONResponse({"user": user, "known": known, **self._told(record or UserRecord())})

    def _told(self, record: UserRecord) -> dict[str, Any]:
        loaded = self._engine.loaded
        if loaded is None:
            raise ServiceError(503, "not_ready", "no snapshot is loaded yet", retry_after=1)
        names = [loaded.scorer.model.items[item - 1] for item in record.items.tolist()]
        behaviours = [
            {**self._item(item), "liked": liked}
            for item, liked in zip(names[-_SHOWN:], record.liked[-_SHOWN:].tolist())
        ]
        met = set(names)
        unmet = [item for item in self._directory.items if item not in met]
        return {
            "group": group_name(record),
            "may_borrow": loaded.scorer.donors is not None and loaded.scorer.is_low_active(record),
            "seen": record.seen,
            "last_time": float(record.times[-1]) if len(record) else 0.0,
            "behaviours": behaviours,
            "candidates": [
                self._item(item) for item in (unmet or self._directory.items)[:_CANDIDATES]
            ],
            "like": self._directory.like,
            "dislike": self._directory.dislike,
        }

    async def _items(self, request: Request) -> Response:
        """Items by name (id=..., again and again), or by a part of their titles."""
        named = request.query_params.getlist("id")[: 2 * _SHOWN]
        if named:
            return JSONResponse({"items": [self._item(item) for item in named]})
        text = _text(request, "search").casefold()
        fitting = (item for item in self._directory.items if text in self._title(item).casefold())
        return JSONResponse({"items": [self._item(i) for i, _ in zip(fitting, range(_FOUND))]})

    async def _cover(self, request: Request) -> Response:
        """The picture of an item; a file's name never comes from the client."""
        card = self._cards.get(_text(request, "item"))
        kind = _PICTURES.get(card.picture.suffix.lower()) if card and card.picture else None
        if card is None or card.picture is None or kind is None or not card.picture.is_file():
            raise ServiceError(404, "no_cover", "there is no picture of this item")
        headers = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
        return FileResponse(card.picture, media_type=kind, headers=headers)

    def _title(self, item: str) -> str:
        card = self._cards.get(item)
        return card.title if card else item

    def _item(self, item: str) -> dict[str, Any]:
        card = self._cards.get(item)
        pictured = card is not None and card.picture is not None
        return {"item": item, "title": self._title(item), "pictured": pictured}


def _text(request: Request, name: str) -> str:
    return request.query_params.get(name, "")[:_MAX_TEXT]
