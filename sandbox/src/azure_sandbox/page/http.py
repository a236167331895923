# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page over HTTP: which requests get the page, and its security headers."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Template
from starlette.responses import Response

from ..sandbox import Sandbox
from ..shared.web import Call
from .facts import facts
from .query import PageQuery


def is_wanted(accept: str) -> bool:
    """Whether a client prefers HTML to JSON, as browsers do. Other clients, such as curl, get the JSON description."""
    return _quality(accept, "text/html") > _quality(accept, "application/json")


def _quality(accept: str, wanted: str) -> float:
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        if kind == wanted:
            quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
            try:
                return float(quality)
            except ValueError:
                return 1.0
    return 0.0


def get(sandbox: Sandbox, call: Call[Any]) -> Response:
    page_query = PageQuery.read(call.request.query_params)
    style, script = _part("page.css"), _part("page.js")
    text = _template().render(facts(sandbox, page_query), style=style, script=script)
    # JSON can contain half a surrogate pair, which cannot be encoded.
    content = text.encode(errors="replace")
    return Response(content, headers=_headers(style, script), media_type="text/html; charset=utf-8")


def _headers(style: str, script: str) -> dict[str, str]:
    """Security headers. The browser uses only the page's own style and script, whatever names and tags the page shows.
    No site can show the page in a frame, and the page sends requests to the sandbox only."""
    policy = (
        "default-src 'none'",
        f"style-src '{_digest(style)}'",
        f"script-src '{_digest(script)}'",
        "connect-src 'self'",
        "form-action 'self'",
        "img-src data:",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
        "vary": "accept",
    }


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


@cache
def _template() -> Template:
    # Loaded on the first request, because few users of a sandbox open the page.
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_part), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja")
