# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Code that the HTTP layers of the services share: calls, routes, responses and errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

from .world import Principal, World


class AzureError(Exception):
    """A response other than success, with a body in the format of the service."""

    def __init__(self, status: int, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.headers = dict(headers or {})


class BadJson(Exception):
    """The request body is not valid JSON, or not a JSON object. Each service returns its own error for this."""


# Deeper documents are refused, as the JSON readers of Azure's services refuse them by default.
JSON_DEPTH = 64
# The characters that a header value can contain unquoted.
HEADER_CHARACTERS = "".join(map(chr, range(0x20, 0x7F)))


def read_json(content: bytes) -> Any:
    """Parse JSON. Stricter than `json.loads`, so that every accepted document can be serialized again. Raises
    BadJson."""
    try:
        document = json.loads(content, parse_constant=_no_number, parse_float=_finite)
        if content.count(b"[") + content.count(b"{") > JSON_DEPTH and _is_deep(document):
            raise BadJson(f"it is more than {JSON_DEPTH} levels deep")
        if b"\\u" in content or not content.isascii():
            # Half a surrogate pair cannot be encoded.
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadJson(str(error)) from error
    return document


def _no_number(text: str) -> None:
    raise BadJson(f"{text} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadJson(f"{text} is too large")
    return number


def _is_deep(document: Any) -> bool:
    level = [document]
    for _ in range(JSON_DEPTH):
        values = [value for one in level for value in (one.values() if isinstance(one, dict) else one)]
        level = [value for value in values if isinstance(value, (dict, list))]
    return bool(level)


W_co = TypeVar("W_co", bound=World, covariant=True)


@dataclass
class Call(Generic[W_co]):
    """One request as a handler sees it."""

    world: W_co
    request: Request
    content: bytes
    path: Mapping[str, str] = field(default_factory=dict)
    # Set by the plane once the token has been checked.
    caller: Principal | None = None
    # Set by the plane once the route is found. The request log shows it.
    route: Route | None = None
    # Set by the server: whether the request changed the state of Azure.
    wrote: bool = False

    @cached_property
    def host(self) -> str:
        return self.request.headers.get("host", "").lower().removesuffix(":443")

    @property
    def url_path(self) -> str:
        """The unquoted path. `request.url` would cut the path at a quoted question mark, and fails for some hosts."""
        return str(self.request.scope["path"])

    @property
    def api_version(self) -> str:
        return self.query("api-version")

    def query(self, name: str) -> str:
        """The value of a query parameter; empty if it is missing. Azure accepts the name in any letter case."""
        wanted = name.lower()
        return next((value for key, value in self.request.query_params.items() if key.lower() == wanted), "")

    @cached_property
    def json(self) -> dict[str, Any]:
        document = read_json(self.content or b"{}")
        if not isinstance(document, dict):
            raise BadJson("a JSON object is expected")
        return document


Handler = Callable[[Call[Any]], Response | Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """One operation. `path` is a template: `{name}` is one segment, `{name:path}` any number."""

    method: str
    path: str
    handler: Handler
    # The action that a role must allow, for example Microsoft.Batch/batchAccounts/read.
    action: str = ""


async def call_handler(route: Route, call: Call[Any]) -> Response:
    """Call the handler, which may be a coroutine function."""
    response = route.handler(call)
    return response if isinstance(response, Response) else await response


class Routes:
    """The operations of one service. Paths match in any letter case, as in Azure."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._table = [(re.compile(compile_path(r.path)[0].pattern, re.IGNORECASE), r) for r in routes]

    def __iter__(self) -> Iterator[Route]:
        return iter(route for _pattern, route in self._table)

    def match(self, method: str, path: str) -> tuple[Route | None, dict[str, str], set[str]]:
        """The route with its path parameters; if no route matches, None with the methods that the path supports."""
        for pattern, route in self._table:
            if route.method == method and (found := pattern.fullmatch(path)):
                return route, found.groupdict(), set()
        return None, {}, {route.method for pattern, route in self._table if pattern.fullmatch(path)}


def answer(
    document: Any = None, status: int = 200, headers: Mapping[str, str] | None = None, *, charset: bool = True
) -> Response:
    """A response with compact JSON, as Azure writes it. A response without a body has no content type."""
    sent = {name: quote(value, safe=HEADER_CHARACTERS) for name, value in (headers or {}).items()}
    if document is None:
        return Response(status_code=status, headers={**sent, "content-length": "0"})
    media_type = "application/json; charset=utf-8" if charset else "application/json"
    # A token's claims, which are part of some responses, can still contain half a surrogate pair.
    content = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    return Response(content, status, headers=sent, media_type=media_type)
