# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The transport of requests in check mode (rehearsal): a write changes the run's picture of Azure instead of Azure.

Reads are sent to Azure, and the picture completes their responses. Writes get the response that Azure would return,
with long-running operations complete at once. No write is sent: only one function sends requests, and it sends only
reads. An unknown request fails the task.

This module util is private to the collection.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate, parsedate_to_datetime
from math import inf
from typing import Any
from urllib.parse import unquote, urlsplit

from .._core import placeholders
from .._resources.vault.document import ACCESS_POLICY
from . import connections
from .picture import Picture
from .rate_limit import is_read
from .rehearsed_access import RehearsedAccess
from .rehearsed_accounts import RehearsedAccounts
from .rehearsed_keys import RehearsedKeys
from .rehearsed_vaults import RehearsedVaults
from .responses import Call, Response
from .run_store import RunFiles

_CLOCKS_DIFFER_SECONDS = 5
_READ_TTL_SECONDS = 5


class Rehearsal:
    """`caller` returns the caller's `object_id` and `tenant_id`."""

    def __init__(self, files: RunFiles, caller: Callable[[], Mapping[str, str]]) -> None:
        self._picture = Picture(files)
        self._vaults = RehearsedVaults(self._picture, caller)
        self._keys = RehearsedKeys(self._picture, self._vaults)
        self._access = RehearsedAccess(self._picture, self._vaults)
        self.accounts = RehearsedAccounts(self._picture, self._vaults, caller)
        self._services = (self._keys, self._access, self.accounts, self._vaults)
        self._files = files
        # The time and the response of each read, by URL.
        self._reads: dict[str, tuple[float, Response]] = {}

    def transport(self) -> Any:
        """For a client of the SDKs."""
        import requests

        rehearsal = self

        class Adapter(requests.adapters.BaseAdapter):
            def __init__(self, to_azure: Any) -> None:
                super().__init__()
                self._to_azure = to_azure

            def send(self, request: Any, *args: Any, **options: Any) -> Any:
                def ask(url: str | None = None) -> Response:
                    """Send the request if it is a read, or a GET of another URL with the same credentials. For a
                    prediction, the task may have read that URL a moment ago."""
                    is_write = not is_read(request.method, request.url)
                    if (is_write or url) and (known := rehearsal._known(url or request.url)):
                        return known
                    read = request.copy()
                    if is_write:
                        read.method, read.body = "GET", None
                        for name in ("Content-Length", "Content-Type"):
                            read.headers.pop(name, None)
                    if url is not None:
                        read.url = url
                    _require_read(read.method, read.url)
                    response = rehearsal._noted(_received(self._to_azure.send(read, *args, **options)))
                    rehearsal._reads[read.url] = time.monotonic(), response
                    return response

                call = _call(request, rehearsal._now(), ask)
                return _delivered(rehearsal.response(call), request, rehearsal._now())

            def close(self) -> None:
                self._to_azure.close()

        return connections.transport(Adapter)

    def response(self, call: Call) -> Response:
        """The response that Azure would give."""
        for service in self._services:
            response = service.response(call)
            if response is not None:
                return response
        if is_read(call.method, call.url):
            return call.ask()
        raise _not_rehearsed(call.method, call.url)

    def resolved(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The task's options, with placeholders in place of their texts, which results of other tasks contain."""
        if params.get("authorization") == ACCESS_POLICY:
            self._vaults.with_policies |= {str(params[one]).lower() for one in ("name", "vault_name") if one in params}
        self._picture.learn_placeholders()
        return {name: placeholders.resolved(value) for name, value in params.items()}

    def _known(self, url: str) -> Response | None:
        at, response = self._reads.get(url, (-inf, None))
        return response if time.monotonic() - at < _READ_TTL_SECONDS else None

    def _now(self) -> float:
        """The current time by Azure's clock, from the stored clock difference: if all resources of a task are in
        the picture, the task gets no time from Azure."""
        return time.time() + float(self._files.load("ahead") or 0)

    def _noted(self, response: Response) -> Response:
        if date := response.headers.get("Date"):
            # The header is in whole seconds, and the response is some time old: a small difference is not one of
            # the clocks.
            ahead = parsedate_to_datetime(date).timestamp() - time.time()
            self._files.store(ahead if abs(ahead) > _CLOCKS_DIFFER_SECONDS else 0, "ahead")
        return response


def _require_read(method: str | None, url: str | None) -> None:
    if not is_read(method, url):
        raise _not_rehearsed(method, url)


def _not_rehearsed(method: str | None, url: str | None) -> AssertionError:
    return AssertionError(
        f"check mode does not know the request {method} {urlsplit(url or '').path}, so it was not sent"
    )


def _call(request: Any, now: float, ask: Callable[[str | None], Response]) -> Call:
    parts = urlsplit(request.url)
    body = request.body.encode() if isinstance(request.body, str) else request.body
    return Call(
        method=request.method,
        url=request.url,
        host=(parts.hostname or "").lower(),
        path=unquote(parts.path).rstrip("/"),
        query=unquote(parts.query.replace("+", " ")),
        body=json.loads(body) if body else {},
        now=now,
        ask=ask,
    )


def _received(response: Any) -> Response:
    content = response.content
    try:
        body = json.loads(content) if content else None
    except ValueError:
        body = None
    return Response(response.status_code, body, response.headers, response)


def _delivered(response: Response, request: Any, now: float) -> Any:
    """The response as an object of the library requests."""
    import requests

    if response.unchanged is not None:
        return response.unchanged
    delivered = requests.Response()
    delivered.status_code, delivered.request, delivered.url = response.status, request, request.url
    content = b"" if response.body is None else json.dumps(response.body).encode()
    delivered.headers.update(
        {"Date": formatdate(now, usegmt=True), **response.headers, "Content-Type": "application/json; charset=utf-8"}
    )
    for name in ("Content-Encoding", "Transfer-Encoding", "Content-Length"):
        delivered.headers.pop(name, None)
    delivered.headers["Content-Length"] = str(len(content))
    delivered.raw = io.BytesIO(content)
    return delivered
