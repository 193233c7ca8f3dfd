"""The service's OpenAPI description, and a page of it that needs nothing from elsewhere."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from recbole_mars.serving.service.messages import CTRRequest

__all__ = ["describe", "docs_page"]

_REFERENCE = "#/components/schemas/{model}"
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
pre{background:#f4f4f4;padding:.7rem;overflow:auto}summary{cursor:pointer}h2{margin-top:2.5rem}"""


def describe(app: FastAPI, request: type[CTRRequest], needs_key: bool) -> dict[str, Any]:
    """The OpenAPI document. request: the body of /v1/ctr, which the service reads itself."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schema = request.model_json_schema(ref_template=_REFERENCE)
    named = document.setdefault("components", {}).setdefault("schemas", {})
    named.update(schema.pop("$defs", {}))
    named["CTRRequest"] = schema
    reference = {"schema": {"$ref": _REFERENCE.format(model="CTRRequest")}}
    asked = document["paths"]["/v1/ctr"]["post"]
    asked["requestBody"] = {"required": True, "content": {"application/json": reference}}
    if needs_key:
        scheme = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
        document["components"]["securitySchemes"] = {"key": scheme}
        asked["security"] = [{"key": []}]
    return document


def docs_page(document: dict[str, Any]) -> str:
    """The OpenAPI document as HTML without scripts, fonts or styles from elsewhere."""
    parts = [f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"]
    parts.append(f"<p>{escape(document['info'].get('description', ''))}</p>")
    parts.append('<p>For programs: <a href="openapi.json">openapi.json</a></p>')
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(told.get('description') or told.get('summary', ''))}</p>")
            responses = (
                f"<li><b>{escape(status)}</b> {escape(each['description'])}</li>"
                for status, each in told["responses"].items()
            )
            parts.append(f"<ul>{''.join(responses)}</ul>")
    parts.append("<h2>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        text = escape(json.dumps(schema, indent=2))
        parts.append(f"<details><summary>{escape(name)}</summary><pre>{text}</pre></details>")
    head = f'<meta charset="utf-8"><title>{escape(document["info"]["title"])}</title>'
    body = "\n".join(parts)
    return f'<!doctype html><html lang="en">{head}<style>{_STYLE}</style><body>{body}</body></html>'
