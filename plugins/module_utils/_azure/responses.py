# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A request in check mode, and its response.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Response:
    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    # The response object from Azure, if the picture has changed nothing in it.
    unchanged: Any = None

    def with_body(self, body: Any) -> Response:
        return replace(self, body=body, unchanged=None)


@dataclass(frozen=True)
class Call:
    """A request. `ask` sends it if it is a read, or sends a GET of another URL with the same credentials."""

    method: str
    url: str
    host: str
    path: str
    query: str
    body: Mapping[str, Any]
    # Seconds since 1970, by Azure's clock.
    now: float
    ask: Callable[..., Response]

    def get(self, path: str | None = None, api_version: str | None = None) -> Response:
        """Send a GET of the resource, or of another resource of the same service."""
        query = f"api-version={api_version}" if api_version else self.url.partition("?")[2]
        return self.ask(f"https://{self.host}{path or self.path}?{query}")


def missing(code: str, message: str) -> Response:
    return Response(404, {"error": {"code": code, "message": message}})


def completed(response: Response, entries: Mapping[str, Mapping[str, Any]], key: Callable[[Document], str]) -> Response:
    """A page of a list with the changes in the picture. Each of the entries, by key, has its `document`, which is
    None if it is deleted in the picture. If `made` is true, the entry was created in the picture and is added to
    the last page."""
    if response.status != 200 or not entries:
        return response
    kept = [entries.get(key(item), {"document": item})["document"] for item in response.body["value"]]
    if not response.body.get("nextLink"):
        kept += [entry["document"] for entry in entries.values() if entry["made"]]
    return response.with_body({**response.body, "value": [item for item in kept if item is not None]})
