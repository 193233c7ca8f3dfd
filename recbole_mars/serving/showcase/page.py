"""The page as one text that needs nothing else, and what a browser is told about it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import NamedTuple

__all__ = ["Page", "read_page"]

_FOLDER = Path(__file__).parent


class Page(NamedTuple):
    """headers: with a policy by which a browser runs no other script, whatever a title holds."""

    html: str
    headers: dict[str, str]


def read_page() -> Page:
    """Put page.html, page.css and page.js together."""
    html, style, script = (
        (_FOLDER / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    policy = [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "connect-src 'self'",
        "img-src 'self' data:",
        f"style-src '{_hash(style)}'",
        f"script-src '{_hash(script)}'",
    ]
    headers = {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    whole = html.replace("/* page.css */", style, 1).replace("/* page.js */", script, 1)
    return Page(whole, headers)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
